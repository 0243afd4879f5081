"""A verdict as something to read in a terminal, with or without colour, wide or narrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
from rich.box import ROUNDED
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from tellsign.schemas import HEADS, Contribution, Evidence, Label, ProvenanceEvidence, Verdict

from . import words

_COLOURS = {
    Label.AUTHENTIC: "green",
    Label.AI_GENERATED: "magenta",
    Label.AI_EDITED: "magenta",
    Label.TAMPERED: "red",
    Label.UNCERTAIN: "yellow",
}
_MARKS = {
    Label.AUTHENTIC: ("✓", "+"),
    Label.AI_GENERATED: ("◆", "*"),
    Label.AI_EDITED: ("◈", "*"),
    Label.TAMPERED: ("▲", "!"),
    Label.UNCERTAIN: ("?", "?"),
}
WIDEST = 88
"""Columns; longer lines are hard to read."""
_NARROW = 64


@attrs.frozen
class _Bar:
    """A share in [0, 1] as a bar, or, with `signed`, a number in [-1, 1] that grows from the middle."""

    value: float
    colour: str
    signed: bool = False
    width: int = 24

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(self.width, options.max_width)
        full, empty, middle = ("#", ".", "|") if options.ascii_only else ("━", "╌", "┃")
        if self.signed:
            half = max(1, (width - 1) // 2)
            n = round(min(1.0, abs(self.value)) * half)
            left = n if self.value < 0 else 0
            right = n if self.value > 0 else 0
            parts = [(empty * (half - left), False), (full * left, True), (middle, False)]
            parts += [(full * right, True), (empty * (half - right), False)]
        else:
            n = round(self.value * width)
            parts = [(full * n, True), (empty * (width - n), False)]
        for text, strong in parts:
            if text:
                yield Segment(text, Style(color=self.colour) if strong else Style(dim=True))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> object:
        from rich.measure import Measurement

        return Measurement(min(11, options.max_width), min(self.width, options.max_width))


@attrs.frozen
class VerdictPanel:
    """A renderable for `rich.console.Console.print`."""

    verdict: Verdict
    name: str | None = None
    """Shown instead of the verdict's own source."""
    hint: str = ""
    """A last line, such as how to see where."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, WIDEST)
        narrow = width < _NARROW
        title = words.printable(self.name) if self.name is not None else words.name_of(self.verdict)
        room = max(8, width - 8)
        yield Panel(
            Group(*self._parts(narrow, options.ascii_only)),
            box=ROUNDED,
            title=Text(title if len(title) <= room else "..." + title[3 - room :], style="bold"),
            title_align="left",
            subtitle=Text(words.clip(_footer(self.verdict), room), style="dim"),
            subtitle_align="right",
            width=width,
            padding=(0, 1),
            border_style=_COLOURS[self.verdict.label],
        )

    def _parts(self, narrow: bool, ascii_only: bool) -> Iterator[RenderableType]:
        verdict = self.verdict
        colour = _COLOURS[verdict.label]
        mark = _MARKS[verdict.label][ascii_only]
        yield Text(f"{mark} {words.headline(verdict)}", style=f"bold {colour}")
        yield Text(words.explanation(verdict))
        yield Text()
        yield _pairs(list(_probabilities(verdict)), narrow)
        yield Text()
        could = [("Could be", Text(words.set_in_words(verdict)))]
        missing = words.not_assessed(verdict)
        if missing:
            could.append(("Not assessed", Text(missing, style="dim")))
        if found := words.artifacts_found(verdict):
            could.append(("Artifacts", Text(found)))
        if unseen := words.artifacts_not_assessed(verdict):
            could.append(("No finding on", Text(f"{unseen}: not assessed", style="dim")))
        yield _pairs(could, narrow)
        for head in HEADS:
            rows = [c for c in verdict.contributions if c.head == head]
            if rows:
                yield Text()
                yield _contributions(head, rows, narrow)
        spoken = [
            (words.printable(e.plugin), Text(words.printable(line), style=_style_of(e.kind)))
            for e in verdict.evidence
            for line in _lines(e)
        ]
        if spoken:
            yield Text()
            yield Text("What the detectors said", style="bold")
            yield _pairs(spoken, narrow)
        if verdict.warnings:
            yield Text()
            for notice in verdict.warnings:
                who = f" [{notice.plugin}]" if notice.plugin and notice.plugin not in notice.message else ""
                yield Text(words.printable(f"! {notice.message}{who}"), style="yellow")
        if self.hint:
            yield Text()
            yield Text(self.hint, style="dim")


def one_line(verdict: Verdict, name: str | None = None) -> str:
    """The verdict in one line: name, label, probability."""
    p = "" if verdict.p_ai is None else f" (AI {words.percent(verdict.p_ai)})"
    return f"{words.printable(name) if name is not None else words.name_of(verdict)}: {words.LABELS[verdict.label]}{p}"


def error_panel(name: str, message: str) -> RenderableType:
    """A picture that could not be read."""
    return Panel(
        Text(words.printable(message)),
        box=ROUNDED,
        title=Text(words.printable(name), style="bold"),
        title_align="left",
        subtitle=Text("not read", style="red"),
        subtitle_align="right",
        border_style="red",
        padding=(0, 1),
        width=None,
    )


def summary(counts: dict[str, int], seconds: float) -> RenderableType:
    """The last line over many pictures."""
    total = sum(counts.values())
    told = ", ".join(f"{n} {label}" for label, n in counts.items() if n)
    return Group(Text(), Text(f"{total} pictures in {seconds:.1f} s: {told}", style="bold"))


def _probabilities(verdict: Verdict) -> Iterator[tuple[str, RenderableType]]:
    if verdict.p_ai is None:
        yield "AI pixels", Text("no evidence", style="dim")
    else:
        yield f"AI, if {words.one_in(verdict.prior)} is", _probability(verdict.p_ai, "magenta")
        if verdict.p_ai_at_1_percent is not None and abs(verdict.prior - 0.01) > 1e-9:
            yield f"AI, if {words.one_in(0.01)} is", _probability(verdict.p_ai_at_1_percent, "magenta")
    if verdict.p_tampered is None:
        yield "Tampering", Text("not assessed: no detector looked for it", style="dim")
    else:
        yield "Tampering", _probability(verdict.p_tampered, "red")


def _probability(p: float, colour: str) -> RenderableType:
    line = Table.grid(padding=(0, 1))
    line.add_column(width=8, justify="right", no_wrap=True)
    line.add_column(ratio=2, min_width=6, max_width=24)
    line.add_column()
    line.add_row(Text(words.percent(p), style="bold"), _Bar(p, colour), Text(words.likelihood(p)))
    return line


def _contributions(head: str, rows: Sequence[Contribution], narrow: bool) -> RenderableType:
    largest = max(1.0, *(abs(r.log_odds) for r in rows))
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, max_width=15 if narrow else 24, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1, max_width=33)
    for row in rows:
        if row.plugin == "prior" and row.log_odds == 0:
            continue  # the prior that the model was calibrated at: nothing was added
        colour = "magenta" if row.log_odds > 0 else "green"
        table.add_row(
            Text(words.contributor(row)),
            Text(words.log_odds(row.log_odds)),
            _Bar(row.log_odds / largest, colour, signed=True, width=33),
        )
    total = sum(r.log_odds for r in rows)
    table.add_row(Text("together", style="bold"), Text(words.log_odds(total), style="bold"), Text())
    return Group(Text(f"What spoke against and for {words.HEADS[head]}, in log-odds", style="bold"), table)


def _pairs(rows: Sequence[tuple[str, RenderableType]], narrow: bool) -> RenderableType:
    """Name and value side by side, or the value under its name where the terminal is narrow."""
    if narrow:
        stacked: list[RenderableType] = []
        for i, (name, value) in enumerate(rows):
            if i == 0 or name != rows[i - 1][0]:
                stacked.append(Text(name, style="bold"))
            stacked.append(value)
        return Group(*stacked)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True, min_width=17, max_width=26, overflow="ellipsis")
    table.add_column()
    last = None
    for name, value in rows:
        table.add_row(Text("" if name == last else name), value)
        last = name
    return table


def _lines(evidence: Evidence) -> list[str]:
    """What a piece of evidence says; a claim takes a line for each thing that matters about it."""
    if isinstance(evidence, ProvenanceEvidence):
        return [
            evidence.claim,
            *(f"  {name.lower()}: {words.clip(text, 300)}" for name, text in words.claim_in_words(evidence)),
        ]
    return [_said(evidence)]


def _said(evidence: Evidence) -> str:
    model = f" ({evidence.model})" if evidence.kind in ("score", "failed") else ""
    return words.said(evidence) + model


def _style_of(kind: str) -> str:
    return {"failed": "yellow", "unavailable": "yellow", "not_applicable": "dim"}.get(kind, "")


def _footer(verdict: Verdict) -> str:
    parts = [f"{verdict.width} x {verdict.height}"]
    seconds = verdict.timings.get("total")
    if seconds is not None:
        parts.append(f"{seconds:.2f} s")
    if "tellsign" in verdict.versions:
        parts.append(f"tellsign {verdict.versions['tellsign']}")
    return ", ".join(parts)
