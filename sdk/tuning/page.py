"""The report of a tuning as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tellsign.report import words
from tellsign.report.style import STYLE

from .report import curve_in_words

_MORE = """
.plot{max-width:22rem}.plots{display:flex;flex-wrap:wrap;gap:1.5rem}
.plot svg{display:block;width:100%;height:auto;font-size:12px}.plot text{fill:currentColor}
.plot .grid{stroke:var(--line)}.plot .axis{stroke:var(--muted)}
.plot .before{stroke:var(--muted);fill:var(--muted)}.plot .after{stroke:var(--ai);fill:var(--ai)}
.plot path{fill:none!important;stroke-width:2}.plot line.bar{stroke-width:1.5;opacity:.6}
.serious{font-weight:600}.card{border-top-color:var(--muted)}.good{--c:var(--authentic)}.kept{--c:var(--uncertain)}
.card.good,.card.kept{border-top-color:var(--c)}
"""
_RULES = (
    ("auc", "AUC"),
    ("balanced_accuracy", "Balanced accuracy"),
    ("ece_balanced", "Calibration error, classes alike"),
    ("brier_balanced", "Brier score, classes alike"),
    ("tpr_at_5_fpr", "Found at 5 % false alarms"),
)


def render(report: Mapping[str, Any]) -> str:
    """The page of what `report.build` gives."""
    title = "Tuning report"
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{title}</title><style>{STYLE}{_MORE}</style></head><body>"
    )
    data = report["data"]
    top = (
        f'<header class="top"><h1>{title}</h1><p class="muted">{data["rows"]} rows, {data["judged"]} judged in '
        f"{data['groups']} groups: {data['real']} real, {data['ai']} AI</p></header><main>"
    )
    parts = [
        _outcome(report),
        _findings(report),
        _held_out(report),
        _plots(report),
        _generators(report),
        _plugins(report),
        _curve(report),
        _sets(report),
        _settings(report),
    ]
    return f"{head}{top}{''.join(parts)}</main>{_explained()}</body></html>\n"


def _t(text: object) -> str:
    return escape(words.printable(str(text)), quote=True)


def _n(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _between(pair: Sequence[float] | None, digits: int = 3) -> str:
    return "" if pair is None else f"{pair[0]:.{digits}f} to {pair[1]:.{digits}f}"


def _card(title: str, body: str, kind: str = "") -> str:
    return f'<section class="card {kind}"><header><h2>{_t(title)}</h2></header>{body}</section>' if body else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of cells that are HTML already."""
    top = "".join(f'<th scope="col"{"" if i < left else " class=n"}>{_t(h)}</th>' for i, h in enumerate(heads))
    lines = "".join(
        "<tr>" + "".join(f"<td{'' if i < left else ' class=n'}>{c}</td>" for i, c in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def _outcome(report: Mapping[str, Any]) -> str:
    written = report["written"]
    line = "A tuned bundle was written" if written else "Nothing better was proven: the base stays"
    reasons = "".join(f"<li>{_t(r)}</li>" for r in report["reasons"])
    names = f"<dl><dt>Base</dt><dd>{_t(report['base'])}</dd><dt>In use</dt><dd>{_t(report['bundle'])}</dd></dl>"
    point = report["operating"]
    asked = f'<p class="{"" if point["promised"] else "serious"}">Threshold: {_t(point["text"])}</p>' if point else ""
    return _card(
        "Outcome", f'<p class="verdict">{line}</p><ul>{reasons}</ul>{asked}{names}', "good" if written else "kept"
    )


def _findings(report: Mapping[str, Any]) -> str:
    items = "".join(
        f'<li class="{"serious" if f["serious"] else ""}">{_t(f["text"])}</li>'
        for f in sorted(report["findings"], key=lambda f: not f["serious"])
    )
    unread = report["data"]["unreadable"]
    rows = [[_t(u["path"]), _t(u["message"])] for u in unread]
    more = report["data"]["unreadable_count"] - len(unread)
    listed = f"<details><summary>Not read</summary>{_table(['Picture', 'Why'], rows, 2)}</details>" if rows else ""
    listed += f'<p class="muted">and {more} more</p>' if more > 0 else ""
    rules = report["data"]["trivial_rules"]
    told = ", ".join(f"{_t(k)} {v:.2f}" for k, v in sorted(rules.items(), key=lambda p: -p[1]))
    told = f'<p class="muted small">AUC of rules that look at no picture: {told}</p>' if told else ""
    return _card("The data", (f"<ul>{items}</ul>" if items else "<p>Nothing was found wrong.</p>") + told + listed)


def _held_out(report: Mapping[str, Any]) -> str:
    both = report["held_out"]
    if both is None:
        return ""
    rows = [["Log loss, classes alike", _n(both["before"]["log_loss"], 4), "", _n(both["after"]["log_loss"], 4), ""]]
    for key, name in _RULES:
        if both["before"].get(key) is None:
            continue
        cells = [name]
        for side in ("before", "after"):
            cells += [_n(both[side][key]), _between(both[side].get(f"{key}_ci"))]
        rows.append(cells)
    gains = "".join(
        f"<li>{_t(head)}, {_t(how)}: {g['mean']:+.4f} nats per picture, {g['confidence']:.1%} interval "
        f"[{_signed(g['low'])}, {_signed(g['high'])}]</li>"
        for head, ways in report["gain"].items()
        for how, g in ways.items()
    )
    note = "Each picture was judged by a fusion that did not train on its group."
    table = _table(["", "Before", "95 %", "After", "95 %"], rows)
    return _card("Before and after, held out", f"<p>{note}</p>{table}<h3>Gain</h3><ul>{gains}</ul>")


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


def _plots(report: Mapping[str, Any]) -> str:
    found = report["reliability"]
    if found is None:
        return ""
    plots = "".join(
        f'<figure class="plot">{_reliability(found[side], side)}<figcaption class="muted small">{side}'
        "</figcaption></figure>"
        for side in ("before", "after")
    )
    note = "Probability that was said, across; share of AI that was so, up; bars are 95 % intervals."
    return _card("Reliability, held out", f'<div class="plots">{plots}</div><p class="muted small">{note}</p>')


def _reliability(bins: Sequence[Mapping[str, Any]], side: str) -> str:
    size, edge = 260, 34

    def x(p: float) -> float:
        return edge + p * (size - edge - 10)

    def y(p: float) -> float:
        return size - edge - p * (size - edge - 10)

    grid = "".join(
        f'<line class="grid" x1="{x(v):.1f}" y1="{y(0):.1f}" x2="{x(v):.1f}" y2="{y(1):.1f}"/>'
        f'<line class="grid" x1="{x(0):.1f}" y1="{y(v):.1f}" x2="{x(1):.1f}" y2="{y(v):.1f}"/>'
        f'<text x="{x(v):.1f}" y="{size - edge + 16}" text-anchor="middle">{v:g}</text>'
        f'<text x="{edge - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        for v in (0, 0.5, 1)
    )
    bars = "".join(
        f'<line class="bar {side}" x1="{x(b["p"]):.1f}" y1="{y(b["low"]):.1f}" x2="{x(b["p"]):.1f}" '
        f'y2="{y(b["high"]):.1f}"/>'
        for b in bins
        if b["low"] is not None
    )
    dots = "".join(f'<circle class="{side}" cx="{x(b["p"]):.1f}" cy="{y(b["share"]):.1f}" r="4"/>' for b in bins)
    told = "; ".join(f"said {b['p']:.2f}, was {b['share']:.2f}" for b in bins)
    return (
        f'<svg viewBox="0 0 {size} {size}" role="img" aria-label="Reliability {side}: {_t(told)}">{grid}'
        f'<line class="axis" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(1):.1f}" y2="{y(1):.1f}" stroke-dasharray="4 4"/>'
        f"{bars}{dots}</svg>"
    )


def _generators(report: Mapping[str, Any]) -> str:
    rows = [
        [
            _t(g["generator"]),
            str(g["rows"]),
            _n(g["before"]["auc"]),
            _between(g["before"]["auc_ci"]),
            _n(g["after"]["auc"]),
            _between(g["after"]["auc_ci"]),
            _n(g["before"]["log_loss"]),
            _n(g["after"]["log_loss"]),
        ]
        for g in report["by_generator"]
    ]
    heads = ["Generator", "Rows", "AUC before", "95 %", "after", "95 %", "Log loss before", "after"]
    return _card("By generator, against all real pictures", _table(heads, rows) if rows else "")


def _plugins(report: Mapping[str, Any]) -> str:
    rows = [
        [
            _t(p["plugin"]),
            f"{p['answered']:.0%}",
            _t(", ".join(c.partition(".")[2] for c in p["columns"]) or "not used"),
            _n(p["log_loss_without"], 4),
            _n(p["auc_without"]),
        ]
        for p in report["plugins"]
    ]
    body = _table(["Plugin", "Answered", "Columns", "Log loss without it", "AUC without it"], rows)
    if report["plugins"]:
        first = report["plugins"][0]
        body += (
            f'<p class="muted small">With all of them: log loss {_n(first["log_loss"], 4)}, AUC {_n(first["auc"])}; '
            "on the same rows that the bundle was fitted on.</p>"
        )
    tasks = report["tasks"]
    names = sorted({(h, t) for side in ("before", "after") for h, by in tasks[side].items() for t in by})
    lines = [
        [f"{_t(h)}: {_t(t)}", *(_n(tasks[side].get(h, {}).get(t), 2) for side in ("before", "after"))] for h, t in names
    ]
    body += "<h3>Weight of each task, log-odds from its least to its most suspicious</h3>"
    return _card("What each plugin contributes", body + _table(["", "Before", "After"], lines))


def _curve(report: Mapping[str, Any]) -> str:
    points = report["learning_curve"]
    if not points:
        return ""
    rows = [[f"{p['groups']:.0f}", _n(p["log_loss"], 4), _signed(p["gain"]), _n(p["auc"])] for p in points]
    table = _table(["Groups trained on", "Log loss", "Gain over the base", "AUC"], rows, 0)
    return _card("What more data would give", f"<p>{_t(curve_in_words(points))}</p>{table}")


def _sets(report: Mapping[str, Any]) -> str:
    mine = {key: by for key, by in report["sets"].items() if any(e["groups"] for e in by.values())}
    rows = [
        [_t(key), _t(label.replace("_", " ")), str(e["groups"]), str(e["needed"]), _t(_FROM.get(e["from"], e["from"]))]
        for key, by in mine.items()
        for label, e in by.items()
    ]
    note = (
        "A label that rests on the base's pictures is ruled out no more easily than before, and no error rate is "
        "promised for it on pictures like yours."
    )
    if others := len(report["sets"]) - len(mine):
        note += (
            f" {others} other sets of detectors did not answer on your pictures: there everything rests on the base's."
        )
    heads = ["Detectors that answered", "Label", "Independent pictures", "Needed", "Rests on"]
    return _card("Prediction sets", f"<p>{note}</p>{_table(heads, rows, 2)}" if rows else "")


_FROM = {
    "own": "your pictures",
    "mapped": "the base's pictures",
    "carried": "the base's thresholds",
    "none": "nothing: always in the set",
}


def _settings(report: Mapping[str, Any]) -> str:
    lines = "".join(
        f"<dt>{_t(k)}</dt><dd>{_t(v)}</dd>" for k, v in report["settings"].items() if v not in (None, False)
    )
    return _card("Settings", f"<dl>{lines}</dl>")


def _explained() -> str:
    return (
        "<footer><h2>How to read this</h2><ul>"
        "<li><b>Log loss</b> is what a probability is charged for what was true; .693 is a coin's. The two classes "
        "weigh the same in it. The new bundle is written only where the interval of its fall lies above zero.</li>"
        "<li><b>Held out</b> means that every number before and after is of pictures whose group the judging fusion "
        "never saw, its settings chosen without them too.</li>"
        "<li>All of it is about pictures like these. Other sources and other generators may do otherwise; "
        "<code>tellsign monitor</code> tells when scores no longer look like these.</li></ul></footer>"
    )


__all__ = ["render"]
