"""The audit as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tellsign.report.page import thumbnail
from tellsign.report.style import STYLE
from tellsign.report.words import printable

from .run import Audit, Example

SIDE = 150
"""Largest side of a picture on the page, in pixels."""
MORE_STYLE = """
td.heat{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
th.kind{border-bottom:2px solid var(--line);text-align:center}
.strip{display:flex;flex-wrap:wrap;gap:.8rem}.strip figure{width:150px}
.strip figcaption{font-size:.8rem;overflow-wrap:anywhere}
.card{--c:var(--muted)}
th[scope=row]{font-weight:600;white-space:nowrap}
body{max-width:86rem}
"""


def html(found: Audit) -> str:
    """The page."""
    report = found.report
    settings = report["settings"]
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>tellsign audit</title><style>{STYLE}{MORE_STYLE}</style></head><body>"
    )
    top = (
        '<header class="top"><h1>tellsign audit</h1><p class="muted">'
        f"{settings['pictures']} pictures ({settings['real']} real, {settings['ai']} AI) of "
        f"{_t(settings['data'])}{', split ' + _t(settings['split']) if settings['split'] else ''}; "
        f"pipeline {_t(settings['pipeline'])}, seed {settings['seed']}.</p></header>"
    )
    parts = [
        _card("What moves each detector", _matrix(report), _explained(report)),
        _card("Pictures", "".join(_example(e) for e in found.examples)),
        _card("Blind spots", _blind_spots(report["blind_spots"])),
        _card("OR against the learned fusion", _rules(report["rules"])),
        _card("Versions", _table(("what", "version"), sorted(report["versions"].items()))),
    ]
    return f"{head}{top}<main>{''.join(parts)}</main></body></html>\n"


def save(found: Audit, path: Path) -> None:
    """Write the page to `path`."""
    path.write_text(html(found), encoding="utf-8")


def _t(text: object) -> str:
    return escape(printable(str(text)), quote=True)


def _card(title: str, *parts: str) -> str:
    return f'<section class="card"><h2>{_t(title)}</h2><div class="scroll">{"".join(parts)}</div></section>'


def number(value: float | None, digits: int = 2) -> str:
    """A number for a table; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def _shade(value: float | None, most: float = 1.5) -> str:
    if value is None:
        return ""
    strength = max(0.0, min(1.0, value / most))
    return f"background:color-mix(in srgb, var(--for) {round(55 * strength)}%, transparent)"


def _matrix(report: Mapping[str, Any]) -> str:
    changes: Mapping[str, Mapping[str, str]] = report["changes"]
    kinds = {kind: [c for c, told in changes.items() if told["kind"] == kind] for kind in ("pixel", "semantic")}
    first = (
        '<tr><th></th><th></th><th class="kind" colspan="2">accuracy</th>'
        f'<th class="kind" colspan="{len(kinds["pixel"])}">pure pixel changes</th>'
        f'<th class="kind" colspan="{len(kinds["semantic"])}">pure semantic changes</th>'
        '<th class="kind" colspan="3">mean</th></tr>'
    )
    order = kinds["pixel"] + kinds["semantic"]
    names = ("detector", "task", "AUC", "at .5", *order, "pixel", "semantic", "semantic share")
    second = "<tr>" + "".join(f'<th scope="col">{_t(n)}</th>' for n in names) + "</tr>"
    lines = []
    for name, told in report["detectors"].items():
        cells = f'<th scope="row">{_t(name)}</th><td>{_t(told["task"])}</td>'
        cells += f'<td class="n">{number(told["auc"], 3)}</td><td class="n">{number(told["balanced_accuracy"], 3)}</td>'
        for change in order:
            value, after = told["sensitivity"][change], told["auc_after"][change]
            cells += f'<td class="heat" style="{_shade(value)}" title="AUC after: {number(after, 3)}">'
            cells += f"{number(value)}</td>"
        mean = told["mean_sensitivity"]
        cells += "".join(f'<td class="n">{number(mean[k])}</td>' for k in ("pixel", "semantic", "semantic_share"))
        lines.append(f"<tr>{cells}</tr>")
    return f"<table><thead>{first}{second}</thead><tbody>{''.join(lines)}</tbody></table>"


def _explained(report: Mapping[str, Any]) -> str:
    changes = "".join(f"<dt>{_t(c)}</dt><dd>{_t(told['summary'])}</dd>" for c, told in report["changes"].items())
    return (
        '<p class="small">Each cell is the mean absolute change of the detector\'s log-odds, in standard deviations '
        "of its log-odds among unchanged pictures: 0 is blind, 1.13 is what two unrelated pictures differ by. A "
        "detector of meaning should have little on the left and much on the right; a detector of traces the other "
        f'way round.</p><dl class="small">{changes}</dl>'
    )


def _example(example: Example) -> str:
    figures = []
    for change, picture in example.pictures.items():
        whole = picture.whole.pixels
        shown, (width, height) = thumbnail(whole, SIDE)
        lines = []
        for detector, value in example.log_odds[change].items():
            was = example.log_odds[""][detector]
            told = "-" if value != value else f"{value:+.2f}"
            if change and value == value and was == was:
                told += f" ({value - was:+.2f})"
            lines.append(f"{_t(detector)} {told}")
        figures.append(
            f'<figure><img src="{shown}" width="{width}" height="{height}" alt="{_t(change or "unchanged")}">'
            f"<figcaption><b>{_t(change or 'unchanged')}</b><br>{'<br>'.join(lines)}</figcaption></figure>"
        )
    truth = "made by AI" if example.label else "real"
    return (
        f'<h3>{_t(example.name)} <span class="muted">({truth})</span></h3><div class="strip">{"".join(figures)}</div>'
    )


def _blind_spots(told: Mapping[str, Any]) -> str:
    detectors = list(told["rescued"])
    caught = [
        (group, str(row["n"]), *(number(row[d]) for d in detectors))
        for group, row in sorted(told["caught"].items(), key=lambda pair: (-pair[1]["n"], pair[0]))
    ]
    rescued = [
        (f"{a} misses", *("" if a == b else number(told["rescued"][a][b]) for b in detectors)) for a in detectors
    ]
    return (
        f"<p>Share of each generator's pictures that a detector catches when it accuses {told['fpr']:.0%} of these "
        "real pictures falsely.</p>"
        + _table(("generator", "n", *detectors), caught)
        + "<p>Of what the detector on the left misses, the share that the one above catches.</p>"
        + _table(("", *detectors), rescued)
    )


def _rules(told: Mapping[str, Mapping[str, Any]]) -> str:
    names = {"or": "OR, each detector at its own threshold", "fusion": "learned fusion at .5"}
    keys = ("auc", "balanced_accuracy", "tpr", "fpr")
    rows = [(names[k], str(row["n"]), *(number(row[key], 3) for key in keys)) for k, row in told.items()]
    return _table(("rule", "n", "AUC", "balanced accuracy", "caught", "falsely accused"), rows)


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f'<th scope="col"{"" if i == 0 else " class=n"}>{_t(n)}</th>' for i, n in enumerate(names))
    body = "".join(
        "<tr>" + "".join(f"<td{'' if i == 0 else ' class=n'}>{_t(c)}</td>" for i, c in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
