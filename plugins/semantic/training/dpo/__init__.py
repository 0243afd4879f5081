"""Preference training of the vision-language judge: `python -m tellsign.plugins.semantic.training.dpo --help`."""
