"""Training of the semantic plugin: `python -m tellsign.plugins.semantic.training --help`."""
