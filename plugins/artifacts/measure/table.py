"""Thresholds chosen on one half of the sources, and what they give on the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tellsign.plugins.artifacts.lettering import LETTERS, SURE, garbled

from .looking import Seen

MOST = 0.01
"""False alarms that a check may give in a domain, as a share of its real pictures."""
Z = 1.959963984540054
Fires = Callable[[Seen], bool]


@attrs.frozen(kw_only=True)
class Check:
    """A check at one setting."""

    name: str
    setting: tuple[float, ...]
    fires: Fires = attrs.field(eq=False)


def lattice_checks(cuts: Sequence[float]) -> list[Check]:
    """The lattice at each cut."""

    def at(cut: float) -> Fires:
        return lambda seen: seen.lattice is not None and seen.lattice >= cut

    return [Check(name="lattice", setting=(c,), fires=at(c)) for c in cuts]


def lettering_checks(sures: Sequence[float], letters: Sequence[int]) -> list[Check]:
    """Lettering at each pair of settings."""

    def at(sure: float, least: int) -> Fires:
        return lambda seen: garbled(seen.lines, sure=sure, letters=least) is not None

    return [Check(name="lettering", setting=(s, n), fires=at(s, n)) for s in sures for n in letters]


GRID: Mapping[str, Callable[[], list[Check]]] = {
    "lattice": lambda: lattice_checks([round(float(c), 2) for c in np.arange(0.6, 0.19, -0.01)]),
    "lettering": lambda: lettering_checks((0.95, 0.9, 0.85, 0.8, 0.75), range(16, 5, -1)),
}
"""Settings that are tried, of each check, the strictest first."""


def rates(check: Check, seen: Sequence[Seen], by: Callable[[Seen], str]) -> dict[str, tuple[int, int]]:
    """How often a check fires, (fired, pictures), in groups of pictures."""
    out: dict[str, tuple[int, int]] = {}
    for s in seen:
        fired, n = out.get(by(s), (0, 0))
        out[by(s)] = fired + bool(check.fires(s)), n + 1
    return out


def quiet(check: Check, seen: Sequence[Seen]) -> bool:
    """Whether a check fires on at most `MOST` of the real pictures of every domain."""
    real = [s for s in seen if not s.row.label]
    return all(fired <= MOST * n for fired, n in rates(check, real, lambda s: s.row.domain).values())


def choose(checks: Sequence[Check], seen: Sequence[Seen]) -> Check | None:
    """The setting that finds most generated pictures among those that are quiet on `seen`; the strictest of equals.

    None where none is quiet and finds any.
    """
    generated = [s for s in seen if s.row.label]
    found = [(sum(map(c.fires, generated)), c) for c in checks if quiet(c, seen)]
    best = max(found, key=lambda pair: pair[0], default=None)
    return None if best is None or best[0] == 0 else best[1]


def wilson(fired: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = fired / n, Z**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * float(np.sqrt(p * (1 - p) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def report(name: str, seen: Sequence[Seen]) -> dict[str, Any]:
    """One check: the setting chosen on the half "tune", and how it fares on the half "report" and on all.

    Returns
    -------
    dict
        `setting` (None where none is quiet on "tune" and finds anything there); `on`: whether it keeps to `MOST` in
        every domain on "report" and on all, and finds more of the generated pictures of "report" than it gives false
        alarms there, the lower end of one interval above the upper end of the other; `parts`: by part ("tune",
        "report", "all") and domain {fired, n, share, interval}; `sources` that it fires on, on all, by
        "domain/source", and the number of `pictures` of each.
    """
    tune = [s for s in seen if s.row.half == "tune"]
    chosen = choose(GRID[name](), tune)
    if chosen is None:
        return {"setting": None, "on": False, "parts": {}, "sources": {}}
    return _told(chosen, {"tune": tune, "report": [s for s in seen if s.row.half == "report"], "all": list(seen)})


def report_shipped(seen: Sequence[Seen], after: int) -> dict[str, Any]:
    """The rule that ships, otherwise as `report`: on the first `after` pictures, which were looked at while it was
    made, and as "report" on those that came later.
    """
    return _told(shipped(), {"made on": list(seen[:after]), "report": list(seen[after:]), "all": list(seen)})


def shipped() -> Check:
    """Lettering as the plugin asks for it."""
    (check,) = lettering_checks([SURE], [LETTERS])
    return check


def _told(check: Check, parts: Mapping[str, Sequence[Seen]]) -> dict[str, Any]:
    told: dict[str, dict[str, Any]] = {
        name: {domain: _share(*pair) for domain, pair in sorted(rates(check, part, lambda s: s.row.domain).items())}
        for name, part in parts.items()
    }
    reported, seen = parts["report"], parts["all"]
    alarms = sum(check.fires(s) for s in reported if not s.row.label)
    finds = sum(check.fires(s) for s in reported if s.row.label)
    n_real = sum(not s.row.label for s in reported)
    apart = wilson(finds, len(reported) - n_real)[0] > wilson(alarms, n_real)[1]
    sources = rates(check, seen, lambda s: f"{s.row.domain}/{s.row.source}")
    return {
        "setting": list(check.setting),
        "on": bool(quiet(check, reported) and quiet(check, seen) and apart),
        "parts": told,
        "sources": {k: list(v) for k, v in sorted(sources.items()) if v[0]},
        "pictures": {k: v[1] for k, v in sorted(sources.items())},
    }


def _share(fired: int, n: int) -> dict[str, Any]:
    return {"fired": fired, "n": n, "share": fired / n, "interval": list(wilson(fired, n))}


def in_markdown(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables for a document."""
    lines = []
    for name, told in reports.items():
        if told["setting"] is None:
            lines += [f"{name}: no setting is quiet on the tuning half and finds anything there.", ""]
            continue
        lines += [f"{name} at {told['setting']}: {'on' if told['on'] else 'off'}", ""]
        lines += ["| | " + " | ".join(told["parts"]) + " |", "|---" * (len(told["parts"]) + 1) + "|"]
        for domain in told["parts"]["all"]:
            cells = (_cell(part.get(domain)) for part in told["parts"].values())
            lines.append(f"| {domain} | " + " | ".join(cells) + " |")
        fired = ", ".join(f"{k} {a} of {b}" for k, (a, b) in told["sources"].items())
        lines += ["", f"Fires on: {fired}.", ""]
    return "\n".join(lines)


def _cell(share: Mapping[str, Any] | None) -> str:
    if share is None:
        return "-"
    low, high = share["interval"]
    return f"{share['fired']} of {share['n']} ({100 * low:.1f} to {100 * high:.1f} %)"


__all__ = [
    "GRID",
    "MOST",
    "Check",
    "choose",
    "in_markdown",
    "quiet",
    "rates",
    "report",
    "report_shipped",
    "shipped",
    "wilson",
]
