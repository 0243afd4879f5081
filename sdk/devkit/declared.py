"""Checks of what a plugin says about itself before it answers anything."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tellsign.errors import PluginError
from tellsign.onefile import UNSTATED
from tellsign.plugin import UnavailableError
from tellsign.schemas import HEADS, Task
from tellsign.tuning.known import FILE
from tellsign.worker import in_words

from .report import CheckFailedError, CheckSkippedError, fail_unless, some
from .subject import Subject

HEAVY = ("torch", "torchvision", "timm", "open_clip", "transformers", "xgboost", "sklearn", "scipy", "pandas", "cv2")
PICKLED = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5"}
WEIGHTS = {".safetensors", ".onnx", ".ubj", ".gguf", ".npz", ".npy"}

_SPDX = re.compile(r"\(*[A-Za-z0-9.+:-]+\)*(?: (?:AND|OR|WITH) \(*[A-Za-z0-9.+:-]+\)*)*")
_NO_COMMERCE = re.compile(r"(?:^|[^A-Za-z])(?:NC|non-?commercial|research-only)(?:[^A-Za-z]|$)", re.I)

_PROBE = """
import json, sys, time
sys.path[:] = json.loads(sys.argv[1])
module, heavy = sys.argv[2], json.loads(sys.argv[3])
began = time.perf_counter()
from tellsign.host import discover
found = [r.state for r in discover(environ={}) if r.module == module]
listed = time.perf_counter() - began
ours = sorted(m for m in sys.modules if m == module or m.startswith(module + "."))
if found and not module.startswith("tellsign_onefile_"):
    __import__(module)
print(json.dumps([found, listed, ours, [m for m in heavy if m in sys.modules]]))
"""


def declaration(subject: Subject) -> str:
    """The declaration is valid and complete: task, columns with their direction, licences that fit together."""
    record = subject.record
    fail_unless(record.state in ("ok", "disabled"), f"the host refuses it ({record.state}): {record.reason}")
    told = subject.declaration
    fail_unless(told.columns or told.task is Task.PROVENANCE, "it declares no columns, so no fusion can ever read it")
    fail_unless(len(told.summary) >= 10, f"its summary says too little: {told.summary!r}")
    for field in ("code_licence", "weights_licence"):
        licence = getattr(told, field)
        fail_unless(licence != UNSTATED, f"its {field} is not stated")
        fail_unless(_SPDX.fullmatch(licence), f"its {field} is no SPDX expression: {licence!r}")
        clash = told.commercial_use and _NO_COMMERCE.search(licence)
        fail_unless(not clash, f"commercial_use is true, but its {field} is {licence!r}")
    fail_unless(
        told.weights_licence != "none" or not told.weights, "it ships weights, and its weights_licence is 'none'"
    )
    heads = {head: [c for c in told.columns if c.head == head] for head in HEADS}
    counted = ", ".join(
        f"{len(columns)} for {head} ({', '.join(f'{c.direction:+d}' for c in columns)})"
        for head, columns in heads.items()
        if columns
    )
    return (
        f"task {told.task.value}; columns: {counted or 'none'}; licences {told.code_licence} / {told.weights_licence}"
    )


def weights(subject: Subject) -> str:
    """Weights are those that it declares: its own by hash, no pickles, with a model card; shared ones by name."""
    told, folder = subject.declaration, subject.record.folder
    if folder is None:
        raise CheckSkippedError("the folder of its declaration is not known")
    for file in told.weights:
        path = folder / file.file
        fail_unless(path.is_file(), f"{file.file} is declared and not there")
        fail_unless(path.suffix not in PICKLED, f"{file.file} can hold a pickle, which runs code when it is read")
        content = path.read_bytes()
        fail_unless(len(content) == file.size, f"{file.file} has {len(content)} bytes, {file.size} are declared")
        found = hashlib.sha256(content).hexdigest()
        fail_unless(found == file.sha256, f"the SHA-256 of {file.file} is {found}, declared is {file.sha256}")
        cards = [p for p in path.parent.glob("*.md") if path.stem.lower() in p.read_text(encoding="utf-8").lower()]
        fail_unless(cards, f"there is no model card (*.md) beside {file.file} that names it")
    if subject.record.file is None:  # one file may lie among anything
        declared = {(folder / file.file).resolve() for file in told.weights}
        others = [p for p in _files(folder) if p.resolve() not in declared]
        pickled = [p.name for p in others if p.suffix in PICKLED]
        fail_unless(not pickled, f"it ships what can hold a pickle: {some(pickled)}")
        # Hashes of the pictures that it was trained on are no weights.
        secret = [p.name for p in others if p.suffix in WEIGHTS and p != folder / FILE]
        fail_unless(not secret, f"it ships weights that the declaration does not name: {some(secret)}")
    with contextlib.suppress(CheckSkippedError, CheckFailedError):  # what it does wrong then is told elsewhere
        _ = subject.alone
    silent = sorted(subject.shared_weights - set(told.shared_weights))
    fail_unless(not silent, f"it asks for the weights {some(silent)}, which shared_weights does not name")
    size = sum(file.size for file in told.weights)
    ships = "it ships none"
    if told.weights:
        ships = f"{len(told.weights)} files of {size / 1e6:.1f} MB in all, hashes right"
    return ships + (f"; shares {', '.join(told.shared_weights)}" if told.shared_weights else "")


def _files(folder: Path) -> Iterator[Path]:
    for where, below, names in os.walk(folder):
        below[:] = [d for d in below if not d.startswith((".", "__pycache__"))]
        yield from (Path(where) / name for name in names)


def cheap_listing(subject: Subject) -> str:
    """Listing it runs none of its code, and importing its package imports nothing heavy."""
    command = [sys.executable, "-c", _PROBE, json.dumps([p for p in sys.path if isinstance(p, str)])]
    command += [subject.record.module, json.dumps(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise CheckFailedError(f"importing its package fails: {last[0]}")
    found, seconds, ours, heavy = json.loads(done.stdout.splitlines()[-1])
    if not found:
        if subject.record.file is not None:
            raise CheckSkippedError("a plugin in one file is read and not imported when it is listed")
        raise CheckFailedError("a fresh interpreter does not find it")
    fail_unless(not ours, f"listing it imports {some(ours)}")
    fail_unless(not heavy, f"importing its package imports {some(heavy)}: import it inside the hook or in `detect`")
    return (
        f"listed in {seconds * 1e3:.0f} ms in a fresh interpreter; its package imports 0 of {len(HEAVY)} heavy modules"
    )


def loads(subject: Subject) -> str:
    """The host loads the declared class, and its setup ends well or says why it is unavailable."""
    try:
        first = subject.load()
    except PluginError as error:
        raise CheckFailedError(error.message) from error
    fail_unless(first is not subject.load(), "two Detectors would share one instance")
    try:
        subject.within(lambda: first.setup(subject.runtime))
    except UnavailableError as error:
        return f"{subject.declaration.detector}; set up in {subject.took:.2f} s; unavailable here: {error.reason}"
    except CheckFailedError:
        raise
    except Exception as error:
        raise CheckFailedError(f"its setup raised {in_words(error)}") from error
    return f"{subject.declaration.detector}; set up in {subject.took:.2f} s"


__all__ = ["cheap_listing", "declaration", "loads", "weights"]
