"""Checks the first line of `tellsign detect --json`: the keys that scripts rely on, and the published schema."""

import json
import sys
from pathlib import Path

import jsonschema

KEYS = ("source", "label", "p_ai", "p_tampered", "prediction_set", "contributions", "evidence", "warnings", "versions")

verdict_file, schema_file = map(Path, sys.argv[1:])
lines = verdict_file.read_text(encoding="utf-8").splitlines()
if len(lines) != 1:
    sys.exit(f"one picture gave {len(lines)} lines")
verdict = json.loads(lines[0])
missing = [key for key in KEYS if key not in verdict]
if missing:
    sys.exit(f"the verdict has no {', '.join(missing)}")
jsonschema.validate(verdict, json.loads(schema_file.read_text(encoding="utf-8")))
if verdict["p_ai"] is None or not any(e["kind"] == "score" for e in verdict["evidence"]):
    sys.exit(f"no model spoke: {verdict['warnings']} {verdict['evidence']}")
print(f"{verdict['label']}, p_ai {verdict['p_ai']:.3f}, fits the schema")
