"""`tellsign doctor`."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import Annotated, Any

import attrs
import typer

from .common import console

OK, NOTE, BROKEN = "ok", "note", "broken"

# Runs in a process of its own: a mismatched pair can end the interpreter, and the doctor must outlive its patient.
PROBE = """
import json, sys
told = {}
try:
    import torch
    told["torch"] = torch.__version__
    if torch.cuda.is_available():
        told["device"] = "cuda"
        told["devices"] = [
            dict(zip(("name", "free", "total"), (torch.cuda.get_device_name(i), *torch.cuda.mem_get_info(i))))
            for i in range(torch.cuda.device_count())
        ]
    else:
        told["device"] = "mps" if torch.backends.mps.is_available() else "cpu"
    told["built_for_cuda"] = torch.version.cuda
    told["threads"] = torch.get_num_threads()
except BaseException as error:
    told["torch_error"] = f"{type(error).__name__}: {error}"
print(json.dumps(told), flush=True)
try:
    import torchvision
    told["torchvision"] = torchvision.__version__
    from torchvision.ops import nms
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    told["kept"] = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
except BaseException as error:
    told["torchvision_error"] = f"{type(error).__name__}: {error}"
print(json.dumps(told), flush=True)
"""


@attrs.frozen(kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: str = attrs.field(validator=attrs.validators.in_((OK, NOTE, BROKEN)))
    message: str
    cure: str | None = None
    details: dict[str, Any] = attrs.field(factory=dict)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """Check this installation: versions, the torch pair, device, cache, weights, detectors, fusion bundle.

    Ends with 1 when something is broken; a note alone is not.
    """
    checks = []
    for check in examine():
        checks.append(check)
        if not as_json:
            _say(check)
    broken = [c for c in checks if c.state == BROKEN]
    if as_json:
        typer.echo(json.dumps({"ok": not broken, "checks": [attrs.asdict(c) for c in checks]}, indent=2))
    else:
        console().print(
            f"\n{len(broken)} of {len(checks)} checks found something broken." if broken else "\nAll is well."
        )
    if broken:
        raise typer.Exit(1)


def examine() -> Iterator[Check]:
    """Every check, in the order in which a cure helps the next one. None raises: what goes wrong is its finding."""
    looks: list[Callable[[], Iterable[Check]]] = [check_python, check_packages, check_torch, check_memory]
    looks += [check_cache, check_weights, check_plugins, check_bundle]
    for look in looks:
        try:
            yield from look()
        except Exception as error:  # a doctor that falls ill tells nobody what is wrong
            name = look.__name__.removeprefix("check_")
            yield Check(name=name, state=BROKEN, message=f"could not be checked ({type(error).__name__}: {error})")


def check_python() -> Iterator[Check]:
    """The interpreter and this package."""
    told = f"Python {platform.python_version()} on {platform.platform()}"
    old = sys.version_info < (3, 11)
    yield Check(
        name="python",
        state=BROKEN if old else OK,
        message=told,
        cure="tellsign needs Python 3.11 or newer" if old else None,
        details={"version": platform.python_version(), "executable": sys.executable},
    )
    try:
        version = metadata.version("tellsign")
    except metadata.PackageNotFoundError:
        yield Check(name="tellsign", state=BROKEN, message="runs without being installed", cure="pip install .")
    else:
        yield Check(name="tellsign", state=OK, message=f"tellsign {version}", details={"version": version})


def check_packages() -> Iterator[Check]:
    """Everything that the package depends on: installed, and new enough."""
    found: dict[str, str] = {}
    missing, old = [], []
    for line in metadata.requires("tellsign") or []:
        if "extra ==" in line:
            continue
        match = re.match(r"([A-Za-z0-9_.-]+)\s*(?:>=\s*([0-9.]+))?", line)
        if match is None:
            continue
        name, least = match[1], match[2]
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if least and _numbers(found[name]) < _numbers(least):
            old.append(f"{name} {found[name]} (needs {least})")
    if missing or old:
        told = [f"not installed: {', '.join(missing)}"] * bool(missing) + [f"too old: {', '.join(old)}"] * bool(old)
        cure = "pip install --upgrade " + " ".join([*missing, *(o.split()[0] for o in old)])
        yield Check(name="packages", state=BROKEN, message="; ".join(told), cure=cure, details=found)
    else:
        yield Check(name="packages", state=OK, message=f"all {len(found)} dependencies are installed", details=found)


def check_torch() -> Iterator[Check]:
    """torch, torchvision, whether the two were built for each other, and the device."""
    told, crash = probe()
    if "torch_error" in told or "torch" not in told:
        message = f"torch does not import: {told.get('torch_error') or crash}"
        yield Check(name="torch", state=BROKEN, message=message, cure="pip install --force-reinstall torch torchvision")
        return
    yield pair_check(told, crash)
    devices = told.get("devices") or []
    if devices:
        message = "; ".join(f"{d['name']}, {d['free'] / 1e9:.1f} of {d['total'] / 1e9:.1f} GB free" for d in devices)
    elif told["device"] == "mps":
        message = "Apple GPU (mps)"
    else:
        message = f"CPU, {told['threads']} threads" + (
            f"; this torch is built for CUDA {told['built_for_cuda']}, but no GPU answers"
            if told["built_for_cuda"]
            else ""
        )
    yield Check(name="device", state=OK, message=message, details={"device": told["device"], "devices": devices})


def probe() -> tuple[dict[str, Any], str]:
    """What torch and torchvision say of themselves in a process of their own, and how that process ended if badly."""
    try:
        ran = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, text=True, errors="replace", timeout=300, check=False
        )
    except subprocess.TimeoutExpired:
        return {}, "importing it took more than 300 s"
    told: dict[str, Any] = {}
    for line in ran.stdout.splitlines():
        if line.startswith("{"):
            told = json.loads(line)
    if ran.returncode == 0:
        return told, ""
    last = ran.stderr.strip().splitlines()[-1:] or [""]
    return told, f"the process ended with status {ran.returncode} {last[0]}".strip()


def pair_check(told: dict[str, Any], crash: str) -> Check:
    """Whether torch and torchvision fit, from what the probe told.

    torchvision's compiled operators are bound to one torch build. A wrong one still installs, and fails when an
    operator is asked for, in words that name neither package's version.
    """
    torch, vision = str(told["torch"]), str(told.get("torchvision") or _version_of("torchvision") or "")
    details = {"torch": torch, "torchvision": vision or None}
    together = "install both in one command and from one index, so that they match: "
    together += "pip install --upgrade --force-reinstall torch torchvision"
    if not vision:
        message = f"torch {torch} is here, torchvision is not"
        cure = "install the torchvision of the same build (CPU or CUDA) from the index that torch came from"
        return Check(name="torch", state=BROKEN, message=message, cure=cure, details=details)
    wanted = _torch_wanted_by_torchvision()
    reasons = []
    if wanted and wanted != torch.partition("+")[0]:
        reasons.append(f"torchvision {vision} was built for torch {wanted}, and torch {torch} is installed")
        together += f"; or keep torchvision and take its torch: pip install torch=={wanted}"
    builds = [v.partition("+")[2] for v in (torch, vision)]
    if all(builds) and builds[0] != builds[1]:
        reasons.append(f"torch is the {builds[0]} build and torchvision the {builds[1]} build")
    problem = told.get("torchvision_error") or (crash if "kept" not in told else "")
    if not problem and told.get("kept") != [0, 2]:
        problem = f"its operator nms answers {told.get('kept')} where [0, 2] is right"
    if problem:
        why = "; ".join(reasons) or "the two were not built for each other"
        message = f"torch {torch} and torchvision {vision} do not work together: {why} ({problem})"
        return Check(name="torch", state=BROKEN, message=message, cure=together, details=details)
    if reasons:  # the operator ran all the same
        message = f"torch {torch} and torchvision {vision} work, but {'; '.join(reasons)}"
        return Check(name="torch", state=NOTE, message=message, cure=together, details=details)
    return Check(name="torch", state=OK, message=f"torch {torch} and torchvision {vision} match", details=details)


def check_memory() -> Iterator[Check]:
    """Memory of the machine."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return
    small = total < 2e9
    yield Check(
        name="memory",
        state=NOTE if small else OK,
        message=f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB free now, {os.cpu_count()} processors",
        cure="large pictures may not fit; pass fewer at a time" if small else None,
        details={"total": total, "free": free, "processors": os.cpu_count()},
    )


def check_cache() -> Iterator[Check]:
    """The folder for larger weights."""
    from tellsign.weights import home

    folder = home()
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    free = shutil.disk_usage(there).free
    yield Check(
        name="cache",
        state=OK if writable else NOTE,
        message=f"{folder}" + ("" if writable else " cannot be written") + f", {free / 1e9:.1f} GB free",
        cure=None if writable else "set TELLSIGN_HOME to a folder that can be written, to fetch larger weights",
        details={"path": str(folder), "writable": writable, "free": free},
    )


def check_weights() -> Iterator[Check]:
    """Larger weights: absent is fine, broken is not. Hashes every file."""
    from tellsign import weights
    from tellsign.errors import WeightsError

    for name in sorted(weights.SPECS):
        label = f"weights {name}"
        try:
            stamp = weights.verify(name)
        except WeightsError as error:
            yield Check(name=label, state=BROKEN, message=str(error), cure=f"tellsign models fetch {name} --force")
            continue
        if stamp is None:
            message = "not here; detectors fall back to what ships in the package"
            yield Check(name=label, state=NOTE, message=message, cure=f"tellsign models fetch {name}")
        else:
            message = f"here, from {stamp.source}: {stamp.origin}; hash right"
            yield Check(name=label, state=OK, message=message, details=attrs.asdict(stamp))


def check_plugins() -> Iterator[Check]:
    """The detectors, from their declarations."""
    from tellsign.host import discover

    records = discover()
    for record in records:
        where = f"{record.distribution} {record.version}"
        details = {"state": record.state, "distribution": record.distribution, "module": record.module}
        label = f"plugin {record.name}"
        if record.state == "ok":
            yield Check(name=label, state=OK, message=where, details=details)
        elif record.state == "disabled":
            yield Check(name=label, state=NOTE, message=f"{where}: {record.reason or 'disabled'}", details=details)
        else:
            away = f"update or uninstall {record.distribution}, or set TELLSIGN_DISABLED_PLUGINS={record.name}"
            cure = "install tellsign again: its files are incomplete" if record.distribution == "tellsign" else away
            message = f"{where} is {record.state}: {record.reason}"
            yield Check(name=label, state=BROKEN, message=message, cure=cure, details=details)
    if not any(r.state == "ok" for r in records):
        cure = "unset TELLSIGN_PLUGINS and TELLSIGN_DISABLED_PLUGINS, or install tellsign again"
        yield Check(name="plugins", state=BROKEN, message="no detector is left, so no verdict is possible", cure=cure)


def check_bundle() -> Iterator[Check]:
    """The fusion's default bundle."""
    from tellsign.fusion import Bundle

    try:
        bundle = Bundle.load()
    except Exception as error:  # whatever it is, the bundle does not load
        cure = "install tellsign again: its files are incomplete or were changed"
        yield Check(name="fusion bundle", state=BROKEN, message=_bundle_words(error), cure=cure)
    else:
        version = getattr(bundle, "version", None)
        yield Check(name="fusion bundle", state=OK, message=f"loads{f' (version {version})' if version else ''}")


def _torch_wanted_by_torchvision() -> str | None:
    try:
        lines = metadata.requires("torchvision") or []
    except metadata.PackageNotFoundError:
        return None
    for line in lines:
        match = re.match(r"torch\s*\(?==\s*([0-9][0-9A-Za-z.]*)", line)
        if match:
            return match[1]
    return None


def _version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version; enough to compare with a lower bound."""
    found = [re.match(r"\d+", part) for part in version.split("+")[0].split(".")]
    numbers = [int(m[0]) if m else -1 for m in found]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _say(check: Check) -> None:
    from rich.table import Table
    from rich.text import Text

    from tellsign.report.words import printable

    mark, colour = {OK: ("ok", "green"), NOTE: ("note", "yellow"), BROKEN: ("BROKEN", "bold red")}[check.state]
    line = Table.grid(padding=(0, 2))
    line.add_column(width=6, justify="right")
    line.add_column(overflow="fold")
    line.add_row(Text(mark, style=colour), Text.assemble((check.name, "bold"), f": {printable(check.message)}"))
    if check.cure:
        line.add_row("", Text(f"cure: {printable(check.cure)}", style="cyan"))
    console().print(line)


def _bundle_words(error: Exception) -> str:
    return str(error).removeprefix("fusion bundle: ") or type(error).__name__
