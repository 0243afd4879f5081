"""The `tellsign` command. Importing it costs typer and nothing else; each subcommand is imported when it is called."""
