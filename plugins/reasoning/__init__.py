"""Reasons in words for what a picture shows (ReAlign)."""
