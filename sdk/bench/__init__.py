"""`tellsign bench`: what the host costs beside the models, measured in one process.

`timing` alternates and judges, `parts` takes a Detector apart into decode, views and bare forwards, `memory` reads
peaks, `run` brings the lines together, `gate` is what CI asks of CPU time and counters, `table` prints.
"""
