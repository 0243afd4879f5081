"""`tellsign eval`: how good the product's own verdicts are on somebody's labelled pictures.

`dataset` reads DATA, `conditions` re-saves pictures the way the web does, `metrics` counts, `run` brings them together
without holding pictures in memory, `table` prints. scikit-learn is imported by `metrics`; nothing here is imported by
`import tellsign`.
"""
