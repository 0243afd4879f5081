"""AIGI-R1: reasoning learned from rewards alone: `python -m tellsign.plugins.reasoning.training.grpo --help`."""
