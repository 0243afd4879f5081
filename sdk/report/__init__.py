"""Verdicts for people: in the terminal (`terminal`), as one HTML page (`page`), and the words both use (`words`)."""
