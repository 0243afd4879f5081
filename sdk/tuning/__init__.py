"""Tuning the fusion on somebody's own pictures.

`scoring` runs the plugins and keeps what they said, `known` recognises pictures that a plugin trained on, `checks` says
what is wrong with the data, `tables` reads and writes score tables, `tune` puts it together, `report` and `page` tell,
`stream` trains on tables that do not fit in memory, `monitor` watches scores, `experiment` measures what tuning brings.
The statistics are in `tellsign.fusion`: `adapt`, `shrink`, `gain`, `operating`, `drift`.
"""
