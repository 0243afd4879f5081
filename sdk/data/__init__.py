"""The project's own pictures: who may train on which, one pipeline for all, and the rules that must not work.

`rows` reads the manifests and the splits, `normalise` is the resample and re-encode pipeline that every picture passes
before training and scoring, `trivial` measures what a rule that looks at nothing could get, `duplicates` finds
pictures that are nearly the same.
"""
