"""Verdicts as one HTML page that needs nothing but itself: no requests, no fonts, no libraries."""

from __future__ import annotations

import base64
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.errors import SettingError
from tellsign.schemas import (
    DEFINITE_LABELS,
    HEADS,
    Contribution,
    Facts,
    Label,
    MapEvidence,
    Picture,
    ProvenanceEvidence,
    Verdict,
)

from . import words
from .html import escaped as _t
from .html import opening, write_whole
from .style import SCRIPT

_TEXT = 400
"""Characters of one metadata text that are shown; some editors store whole documents in XMP."""
_MAP_SIDE = 256
_STOPS = ((0.0, (255, 196, 0), 0.0), (0.35, (255, 150, 0), 0.35), (0.7, (232, 62, 48), 0.7), (1.0, (150, 0, 90), 0.92))
"""Heat ramp: value, RGB, opacity. It darkens steadily, so that it reads without colour too."""


@attrs.define
class _Row:
    """One line of the overview."""

    anchor: str
    name: str
    label: str
    word: str
    p: str
    rare: str


class Page:
    """Collects verdicts and renders the page.

    Pictures are kept as downscaled JPEG only: at most 900 px a side for up to a dozen, 560 px up to a hundred, 320 px
    beyond, which keeps a hundred pictures near 8 MB.

    Parameters
    ----------
    expected : int
        How many pictures will come; decides the thumbnails' size.
    title : str
        Heading of the page.
    """

    def __init__(self, *, expected: int = 1, title: str = "tellsign report") -> None:
        if expected < 0:
            raise SettingError("expected", "an integer of at least 0", expected)
        self._side = 900 if expected <= 12 else 560 if expected <= 100 else 320
        self._title = title
        self._parts: list[str] = []
        self._rows: list[_Row] = []
        self._counts: Counter[str] = Counter()

    def add(self, verdict: Verdict, picture: Picture | None = None) -> None:
        """Add one verdict; without its picture the page shows a placeholder in its place."""
        anchor = f"p{len(self._rows) + 1}"
        name = verdict.source if verdict.source is not None else "picture without a name"
        p = "-" if verdict.p_ai is None else words.percent(verdict.p_ai)
        rare = "-" if verdict.p_ai_at_1_percent is None else words.percent(verdict.p_ai_at_1_percent)
        self._rows.append(_Row(anchor, name, verdict.label.value, words.LABELS[verdict.label], p, rare))
        self._counts[verdict.label.value] += 1
        self._parts.append(_article(verdict, picture, anchor, name, self._side))

    def add_error(self, source: str, code: str, message: str) -> None:
        """Add a picture that could not be read."""
        anchor = f"p{len(self._rows) + 1}"
        self._rows.append(_Row(anchor, source, "unread", "not read", "-", "-"))
        self._counts["unread"] += 1
        self._parts.append(
            f'<article id="{anchor}" class="card unread" data-label="unread">'
            f'<header><h2>{_t(source)}</h2></header><p class="verdict">Not read</p>'
            f"<p>{_t(message)} <code>{_t(code)}</code></p></article>"
        )

    def html(self) -> str:
        """The whole page."""
        made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        head = opening(self._title, scripts=(SCRIPT,))
        n = len(self._rows)
        top = f'<header class="top"><h1>{_t(self._title)}</h1><p class="muted">{n} picture{"s" * (n != 1)}, {made}</p>'
        body = "".join(self._parts)
        tail = f"</main>{_explained()}<script>{SCRIPT}</script></body></html>\n"
        return f"{head}{top}{self._overview()}</header><main{' class=many' if n > 20 else ''}>{body}{tail}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page to `path`, whole or not at all."""
        write_whole(path, self.html())

    def _overview(self) -> str:
        if len(self._rows) < 2:
            return ""
        order = [*(label.value for label in DEFINITE_LABELS), Label.UNCERTAIN.value, "unread"]
        word = {label.value: words.LABELS[label] for label in Label} | {"unread": "not read"}
        chips = "".join(
            f'<button type="button" class="chip {label}" data-filter="{label}" aria-pressed="false">'
            f"{_t(word[label])} <b>{self._counts[label]}</b></button>"
            for label in order
            if self._counts[label]
        )
        rows = "".join(
            f'<tr data-label="{r.label}"><td><a href="#{r.anchor}">{_t(_tail(r.name, 80))}</a></td>'
            f'<td><span class="tag {r.label}">{_t(r.word)}</span></td><td class="n">{_t(r.p)}</td>'
            f'<td class="n">{_t(r.rare)}</td></tr>'
            for r in self._rows
        )
        return (
            f'<div class="chips" role="group" aria-label="Show only">{chips}</div>'
            '<details class="overview" open><summary>All pictures</summary><div class="scroll"><table>'
            '<thead><tr><th scope="col">Picture</th><th scope="col">Verdict</th><th scope="col" class="n">AI</th>'
            '<th scope="col" class="n">AI, if 1 in 100 is</th></tr></thead>'
            f"<tbody>{rows}</tbody></table></div></details>"
        )


def _article(verdict: Verdict, picture: Picture | None, anchor: str, name: str, side: int) -> str:
    label = verdict.label.value
    missing = words.not_assessed(verdict)
    could = f"<dt>Could be</dt><dd>{_t(words.set_in_words(verdict))}</dd>"
    could += f'<dt>Not assessed</dt><dd class="muted">{_t(missing)}</dd>' if missing else ""
    if found := words.artifacts_found(verdict):
        could += f"<dt>Artifacts</dt><dd>{_t(found)}</dd>"
    if unseen := words.artifacts_not_assessed(verdict):
        could += f'<dt>No finding on</dt><dd class="muted">{_t(unseen)}: not assessed</dd>'
    warnings = "".join(
        f"<li>{_t(w.message)}" + (f" <code>{_t(w.plugin)}</code>" if w.plugin else "") + "</li>"
        for w in verdict.warnings
    )
    parts = [
        f'<article id="{anchor}" class="card {label}" data-label="{label}">',
        f"<header><h2>{_t(name)}</h2></header>",
        f'<div class="columns">{_figure(verdict, picture, anchor, side)}<div>',
        f'<p class="verdict"><span class="mark" aria-hidden="true"></span>{_t(words.headline(verdict))}</p>',
        f"<p>{_t(words.explanation(verdict))}</p>",
        _probabilities(verdict),
        f'<dl class="set">{could}</dl>',
        f'<div class="warnings" role="note"><h3>Warnings</h3><ul>{warnings}</ul></div>' if warnings else "",
        "</div></div>",
        *(_chart(head, [c for c in verdict.contributions if c.head == head], anchor) for head in HEADS),
        _claims(verdict),
        _evidence(verdict),
        '<div class="more">',
        _facts(picture.facts) if picture is not None and picture.facts is not None else "",
        _pairs("Versions", sorted(verdict.versions.items())),
        _pairs("Seconds spent", [(k, f"{v:.3f}") for k, v in verdict.timings.items()]),
        "</div></article>",
    ]
    return "".join(parts)


def _figure(verdict: Verdict, picture: Picture | None, anchor: str, side: int) -> str:
    size = f"{verdict.width} x {verdict.height} pixels"
    if picture is None:
        nothing = '<div class="picture none"><span>no picture to show</span></div>'
        return f"<figure>{nothing}<figcaption>{size}</figcaption></figure>"
    shown, (width, height) = thumbnail(picture.pixels, side)
    heat, boxes, control = verdict.heat_map, "", ""
    layers = f'<img src="{shown}" width="{width}" height="{height}" alt="The picture" loading="lazy" decoding="async">'
    if heat is not None:
        rows, columns = heat.map.shape
        words_of_map = f"Heat map {heat.name}: strongest {words.place(heat)}, {float(heat.map.max()):.2f} of 1"
        layers += (
            f'<img class="heat" src="{_heat(heat)}" style="{_within(heat.box, verdict)}" alt="{_t(words_of_map)}">'
        )
        control = (
            f'<div class="heatbar"><label for="{anchor}-heat">Heat map</label>'
            f'<input id="{anchor}-heat" type="range" min="0" max="100" value="65" data-heat>'
            f'<div class="legend"><span>0</span><i style="background:{_gradient()}"></i><span>1</span></div></div>'
            f'<p class="muted small">Where {_t(heat.plugin)} finds what it looks for ({rows} x {columns} cells, '
            f"strongest {_t(words.place(heat))}). The scale is the detector's own, not a probability.</p>"
        )
    for n, finding in enumerate(verdict.findings, 1):
        if finding.region is not None:
            boxes += (
                f'<span class="box" style="{_within(finding.region, verdict)}" '
                f'title="{_t(finding.category.value)}"><b>{n}</b></span>'
            )
    return (
        f'<figure><div class="picture">{layers}{boxes}</div>'
        f'<figcaption><span class="muted small">{size}</span>{control}</figcaption></figure>'
    )


def _within(box: object, verdict: Verdict) -> str:
    """A box of the picture as percentages of it."""
    left, top, right, bottom = (getattr(box, side) for side in ("left", "top", "right", "bottom"))
    return (
        f"left:{100 * left / verdict.width:.3f}%;top:{100 * top / verdict.height:.3f}%;"
        f"width:{100 * (right - left) / verdict.width:.3f}%;height:{100 * (bottom - top) / verdict.height:.3f}%"
    )


def thumbnail(pixels: NDArray[np.uint8], side: int) -> tuple[str, tuple[int, int]]:
    """A picture of at most `side` px a side as a data URL, and its width and height."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode(), picture.size


def _heat(evidence: MapEvidence) -> str:
    """The map as a small PNG with opacity, one pixel a cell; a fine map is averaged down first."""
    values = evidence.map
    step = max(1, -(-max(values.shape) // _MAP_SIDE))
    if step > 1:
        rows, columns = -(-values.shape[0] // step), -(-values.shape[1] // step)
        padded = np.pad(
            values, ((0, rows * step - values.shape[0]), (0, columns * step - values.shape[1])), mode="edge"
        )
        values = padded.reshape(rows, step, columns, step).mean(axis=(1, 3))
    at = [stop for stop, _, _ in _STOPS]
    channels = [np.interp(values, at, [colour[c] for _, colour, _ in _STOPS]) for c in range(3)]
    channels.append(255 * np.interp(values, at, [alpha for _, _, alpha in _STOPS]))
    stream = io.BytesIO()
    Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8), "RGBA").save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _gradient() -> str:
    stops = ", ".join(f"rgba({r},{g},{b},{alpha}) {100 * at:.0f}%" for at, (r, g, b), alpha in _STOPS)
    return f"linear-gradient(90deg, {stops})"


def _probabilities(verdict: Verdict) -> str:
    rows = []
    if verdict.p_ai is None:
        rows.append('<tr><th scope="row">AI pixels</th><td colspan="3" class="muted">no evidence</td></tr>')
    else:
        rows.append(_probability(f"AI, if {words.one_in(verdict.prior)} is", verdict.p_ai, "ai"))
        if verdict.p_ai_at_1_percent is not None and abs(verdict.prior - 0.01) > 1e-9:
            rows.append(_probability(f"AI, if {words.one_in(0.01)} is", verdict.p_ai_at_1_percent, "ai"))
    if verdict.p_tampered is None:
        rows.append(
            '<tr><th scope="row">Tampering</th><td colspan="3" class="muted">no detector looked for it</td></tr>'
        )
    else:
        rows.append(_probability("Tampering", verdict.p_tampered, "tampered"))
    return f'<table class="odds"><caption>How probable</caption><tbody>{"".join(rows)}</tbody></table>'


def _probability(name: str, p: float, kind: str) -> str:
    return (
        f'<tr><th scope="row">{_t(name)}</th><td class="n"><b>{_t(words.percent(p))}</b></td>'
        f'<td class="meter"><span class="bar {kind}" aria-hidden="true">'
        f'<i style="width:{100 * p:.2f}%"></i></span></td>'
        f"<td>{_t(words.likelihood(p))}</td></tr>"
    )


def _chart(head: str, rows: Sequence[Contribution], anchor: str) -> str:
    """Contributions as bars that grow left (against) or right (for) from the middle."""
    rows = [r for r in rows if not (r.plugin == "prior" and r.log_odds == 0)]
    if not rows:
        return ""
    total = sum(r.log_odds for r in rows)
    largest = max(1.0, abs(total), *(abs(r.log_odds) for r in rows))
    height, names, numbers, width = 26, 190, 74, 720
    half = (width - names - numbers) / 2
    middle = names + half
    lines = []
    shown = [(words.contributor(r), r.log_odds, "") for r in rows] + [("together", total, " total")]
    for n, (name, value, extra) in enumerate(shown):
        y = 30 + n * height
        length = abs(value) / largest * half
        x = middle - length if value < 0 else middle
        side = "for" if value > 0 else "against"
        number = words.log_odds(value).replace("-", "\N{MINUS SIGN}")
        lines.append(
            f'<text class="name{extra}" x="{names - 10}" y="{y + 14}" text-anchor="end">'
            f"{_t(words.clip(name, 18))}</text>"
            f'<rect class="{side}{extra}" x="{x:.1f}" y="{y}" width="{max(length, 1):.1f}" height="{height - 8}"/>'
            f'<text class="value{extra}" x="{width - 4}" y="{y + 14}" text-anchor="end">{_t(number)}</text>'
        )
    tall = 30 + len(shown) * height
    told = "; ".join(f"{name} {words.log_odds(value)}" for name, value, _ in shown)
    about = words.HEADS[head]
    ident = f"{anchor}-{head}"
    return (
        f'<section class="chart"><h3>What spoke against and for {_t(about)}</h3>'
        f'<svg viewBox="0 0 {width} {tall}" role="img" aria-labelledby="{ident}-t {ident}-d">'
        f'<title id="{ident}-t">Contributions in log-odds</title><desc id="{ident}-d">{_t(told)}</desc>'
        f'<text class="axis" x="{middle - 8}" y="16" text-anchor="end">against ◂</text>'
        f'<text class="axis" x="{middle + 8}" y="16">▸ for</text>'
        f'<line x1="{middle}" y1="22" x2="{middle}" y2="{tall - 4}"/>{"".join(lines)}</svg>'
        '<p class="muted small">In log-odds; the rows add up to the probability above.</p></section>'
    )


def _claims(verdict: Verdict) -> str:
    """What the file says of its own origin, one list per claim."""
    claims = [e for e in verdict.evidence if isinstance(e, ProvenanceEvidence)]
    if not claims:
        return ""
    blocks = "".join(
        f'<h4 class="{_t(e.verification)}">{_t(e.claim)}</h4><dl class="claim">'
        + "".join(
            f"<dt>{_t(name)}</dt><dd>{_t(words.clip(text, _TEXT))}</dd>" for name, text in words.claim_in_words(e)
        )
        + "</dl>"
        for e in claims
    )
    return f'<section class="claims"><h3>What the file says of itself</h3>{blocks}</section>'


def _evidence(verdict: Verdict) -> str:
    if not verdict.evidence:
        return ""
    boxed = {id(f): f"box {n}: " for n, f in enumerate(verdict.findings, 1) if f.region is not None}
    rows = "".join(
        f'<tr class="{_t(e.kind)}"><td>{_t(e.plugin)}</td><td>{_t(e.task.value)}</td><td>{_t(e.model)}</td>'
        f"<td>{_t(e.kind.replace('_', ' '))}</td>"
        f"<td>{_t(boxed.get(id(e), '') + words.clip(words.said(e), 600))}</td></tr>"
        for e in verdict.evidence
    )
    return (
        '<section><h3>Evidence</h3><div class="scroll"><table class="evidence"><thead><tr><th scope="col">Detector</th>'
        '<th scope="col">Task</th><th scope="col">Model</th><th scope="col">Kind</th><th scope="col">What it says</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _facts(facts: Facts) -> str:
    rows = [("Format", f"{facts.container}, {facts.mode}, {facts.width} x {facts.height} as stored")]
    if facts.frames > 1:
        rows.append(("Frames", f"{facts.frames}, the first was looked at"))
    if facts.quality is not None:
        rows.append(("JPEG quality", f"about {facts.quality}"))
    rows += sorted(facts.camera.items())
    rows += [("Software", s) for s in facts.software]
    rows += sorted(facts.texts.items())
    rows += [("On reading", c) for c in facts.conversions]
    return _pairs("The file's own facts (not used for the verdict)", rows)


def _pairs(title: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"<dt>{_t(words.clip(k, 80))}</dt><dd>{_t(words.clip(v, _TEXT))}</dd>" for k, v in rows)
    return f"<details><summary>{_t(title)}</summary><dl>{lines}</dl></details>" if lines else ""


def _explained() -> str:
    return (
        "<footer><h2>How to read this</h2><ul>"
        "<li><b>AI</b> is the calibrated probability that the picture holds pixels made by a neural network. It "
        "depends on how common such pictures are where this one comes from; that is why a second number says what it "
        "would be if only 1 picture in 100 were AI.</li>"
        "<li><b>Could be</b> lists the labels that cannot be ruled out at the chosen error rate. One label is a "
        "verdict; several, or none, are \N{LEFT DOUBLE QUOTATION MARK}cannot tell\N{RIGHT DOUBLE QUOTATION MARK}. "
        "For labels under <b>not assessed</b> the calibration has too few examples to speak about them.</li>"
        "<li><b>Looks authentic</b> means that the detectors that looked found no sign. It is no proof, and neither is "
        "any other verdict on this page.</li></ul></footer>"
    )


def _tail(path: str, length: int) -> str:
    """The end of a path, where the file's name is."""
    return path if len(path) <= length else "..." + path[3 - length :]
