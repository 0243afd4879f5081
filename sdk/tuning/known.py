"""Pictures that a plugin was trained on, as 64-bit perceptual hashes beside its declaration.

A fusion that is tuned on pictures that a plugin remembers learns to trust that plugin too much. So each plugin brings
`trained_on.safetensors` beside its `tellsign.json`: one tensor `hashes`, uint64 (n,), sorted, of
`tellsign.data.duplicates.perceptual_hash` of the whole pictures; the metadata names the hash. Eight bytes a picture,
read in milliseconds, and nothing of the pictures can be got back from it.

The hash knows a picture again when it was scaled or saved anew. It does not know crops and mirrored copies.

`python -m tellsign.tuning.known --csv windows.csv --split fit --out trained_on.safetensors` writes the file.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import attrs
import numpy as np
import typer
from numpy.typing import NDArray

from tellsign.data.duplicates import NEAR
from tellsign.errors import SettingError, WeightsError
from tellsign.host import PluginRecord

FILE = "trained_on.safetensors"
HASH = "dct-8x8-median"
"""Name of the hash in the file's metadata."""
LARGEST = 256 << 20
"""Bytes; a file above it is refused unread."""

Hashes = NDArray[np.uint64]


def write(hashes: Iterable[int], path: str | Path) -> int:
    """Write the file; the same hashes give the same bytes.

    Parameters
    ----------
    hashes : iterable of int
        64-bit, in any order; repeated ones are written once.
    path : str or Path

    Returns
    -------
    int
        How many were written.
    """
    from safetensors.numpy import save_file

    values = np.unique(np.fromiter((int(h) for h in hashes), np.uint64))
    if not len(values):
        raise SettingError("hashes", "at least one hash", "none")
    save_file({"hashes": values}, str(path), metadata={"hash": HASH})
    return len(values)


def read(path: str | Path) -> Hashes:
    """The sorted hashes of a file, uint64 (n,).

    Raises
    ------
    WeightsError
        The file is no such file; the message says what is wrong.
    """
    from safetensors import SafetensorError, safe_open

    target = Path(path)
    try:
        if target.stat().st_size > LARGEST:
            raise WeightsError(str(target), f"at most {LARGEST} bytes are allowed, got {target.stat().st_size}")
        with safe_open(str(target), framework="numpy") as file:
            kind = (file.metadata() or {}).get("hash")
            if list(file.keys()) != ["hashes"] or kind != HASH:
                raise WeightsError(str(target), f"takes one tensor `hashes` of the hash {HASH}, got {kind!r}")
            values = np.asarray(file.get_tensor("hashes"))
    except (OSError, SafetensorError) as error:
        raise WeightsError(str(target), f"cannot be read as hashes of training pictures: {error}") from error
    if values.dtype != np.uint64 or values.ndim != 1 or (values[1:] <= values[:-1]).any():
        raise WeightsError(str(target), f"takes sorted uint64 (n,), got {values.dtype} {values.shape}")
    return values


def installed(records: Sequence[PluginRecord]) -> dict[str, Hashes]:
    """Hashes of what each plugin that may run was trained on; those that bring no file are left out."""
    out: dict[str, Hashes] = {}
    for record in records:
        spec = importlib.util.find_spec(record.module) if record.state == "ok" else None
        if spec is None or not spec.origin:
            continue
        path = Path(spec.origin).parent / FILE
        if path.is_file():
            out[record.name] = read(path)
    return out


@attrs.frozen
class Recognised:
    """One picture that plugins trained on."""

    place: int
    """Its number among the hashes that were asked for."""
    plugins: tuple[str, ...]


def recognise(hashes: Sequence[int], trained: Mapping[str, Hashes], distance: int = NEAR) -> tuple[Recognised, ...]:
    """Which of the pictures a plugin was trained on.

    Parameters
    ----------
    hashes : sequence of n int
        Perceptual hashes.
    trained : mapping of str to uint64 array
        By plugin, as `installed` gives them.
    distance : int
        Hashes that differ in at most so many of 64 bits are of one picture.
    """
    asked = np.fromiter((int(h) for h in hashes), np.uint64, len(hashes))
    hits: dict[int, list[str]] = {}
    for plugin, known in sorted(trained.items()):
        for start in range(0, len(asked), 256):
            bits = np.bitwise_count(asked[start : start + 256, None] ^ known[None, :])
            for i in np.flatnonzero((bits <= distance).any(1)):
                hits.setdefault(start + int(i), []).append(plugin)
    return tuple(Recognised(i, tuple(p)) for i, p in sorted(hits.items()))


app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def main(
    csv_path: Annotated[
        Path, typer.Option("--csv", help="With a column `hash`, or `path` (each picture is then read and hashed).")
    ],
    out: Annotated[Path, typer.Option(help=f"Receives the hashes; beside tellsign.json it is called {FILE}.")],
    split: Annotated[str, typer.Option(help="Only rows whose column `split` says so; empty means all.")] = "",
) -> None:
    """Write the perceptual hashes of a plugin's training pictures."""
    with csv_path.open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        fields = list(reader.fieldnames or ())
        for need in (["split"] if split else []) + ([] if "hash" in fields else ["path"]):
            if need not in fields:
                raise typer.BadParameter(f"needs a column {need}, got {', '.join(fields)}", param_hint="--csv")
        rows = [r for r in reader if not split or r["split"] == split]
    if "hash" in fields:
        count = write((int(r["hash"]) for r in rows), out)
    else:
        from tellsign.data.duplicates import perceptual_hash
        from tellsign.decoding import decode

        count = write((int(perceptual_hash(decode(r["path"]).pixels)) for r in rows), out)
    typer.echo(f"{count} hashes of {len(rows)} rows in {out}, {out.stat().st_size} bytes")


if __name__ == "__main__":
    app()
