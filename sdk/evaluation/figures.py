"""Line figures as SVG inside the page: a frame with ticks, curves, points with intervals, a legend in words."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tellsign.report.html import escaped

COLOURS = ("var(--ai)", "var(--authentic)", "var(--tampered)", "var(--uncertain)", "var(--muted)")
"""Of curves, in their order; each also has its own dashes, so that the page reads without colour."""
_DASHES = ("", "7 4", "2 4", "9 3 2 3", "1 2")
_WIDTH, _HEIGHT = 420, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 44


@attrs.frozen(kw_only=True)
class Curve:
    """One line: points (x, y) in the figure's units; `low` and `high` are intervals of y, None where there is none."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    dots: bool = False


def figure(
    curves: Sequence[Curve],
    *,
    title: str,
    x_name: str,
    y_name: str,
    x_range: tuple[float, float] = (0.0, 1.0),
    y_range: tuple[float, float] = (0.0, 1.0),
    diagonal: bool = False,
    level: float | None = None,
) -> str:
    """A figure with its axes; what it shows is also told in words, for those who do not see it.

    Parameters
    ----------
    curves : sequence of Curve
    title, x_name, y_name : str
    x_range, y_range : (float, float)
    diagonal : bool
        Draw the line from corner to corner.
    level : float, optional
        Draw a horizontal line there.
    """
    (x0, x1), (y0, y1) = x_range, y_range

    def at(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (x - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - (y - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for value in _ticks(x0, x1):
        x, y = at(value, y0)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis" x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{value:g}</text>')
    for value in _ticks(y0, y1):
        x, y = at(x0, value)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis" x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    middle_x, middle_y = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text class="axis" x="{middle_x}" y="{_HEIGHT - 6}" text-anchor="middle">{escaped(x_name)}</text>')
    parts.append(
        f'<text class="axis" x="14" y="{middle_y}" text-anchor="middle" transform="rotate(-90 14 {middle_y})">'
        f"{escaped(y_name)}</text>"
    )
    for on, start, end in (
        (diagonal, (x0, y0), (x1, y1)),
        (level is not None, (x0, level or 0.0), (x1, level or 0.0)),
    ):
        if on:
            (ax, ay), (bx, by) = at(*start), at(*end)
            parts.append(f'<line class="even" x1="{ax:.1f}" y1="{ay:.1f}" x2="{bx:.1f}" y2="{by:.1f}"/>')
    for n, curve in enumerate(curves):
        parts.append(_drawn(curve, n, at))
    told = "; ".join(f"{c.name}: {len([y for y in c.y if y is not None])} points" for c in curves)
    legend = "".join(
        f'<li><svg viewBox="0 0 30 8" aria-hidden="true"><line x1="1" y1="4" x2="29" y2="4" {_stroke(n)}/></svg>'
        f"{escaped(c.name)}</li>"
        for n, c in enumerate(curves)
    )
    return (
        f'<figure class="plot"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escaped(title)}. '
        f'{escaped(told)}">{"".join(parts)}</svg><figcaption><b>{escaped(title)}</b>'
        f'<ul class="legend-list">{legend}</ul></figcaption></figure>'
    )


def _stroke(n: int) -> str:
    dash = _DASHES[n % len(_DASHES)]
    return f'style="stroke:{COLOURS[n % len(COLOURS)]};stroke-width:2.2"' + (
        f' stroke-dasharray="{dash}"' if dash else ""
    )


def _drawn(curve: Curve, n: int, at: object) -> str:
    place = at  # a callable; typed loosely so that the helper stays one
    points = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if y is not None]
    out = ""
    if curve.low and curve.high:
        for x, low, high in zip(curve.x, curve.low, curve.high, strict=True):
            if low is not None and high is not None:
                (ax, ay), (_, by) = place(x, low), place(x, high)  # type: ignore[operator]
                out += (
                    f'<line x1="{ax:.1f}" y1="{ay:.1f}" x2="{ax:.1f}" y2="{by:.1f}" '
                    f'style="stroke:{COLOURS[n % len(COLOURS)]};stroke-width:1.2;opacity:.6"/>'
                )
    where = [place(x, y) for x, y in points]  # type: ignore[operator]
    if len(where) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
        out += f'<polyline points="{path}" fill="none" {_stroke(n)}/>'
    if curve.dots or len(where) == 1:
        out += "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" style="fill:{COLOURS[n % len(COLOURS)]}"/>' for x, y in where
        )
    return out


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, five to eight of them."""
    span = high - low
    unit = 10.0 ** len(str(int(span))) if span >= 1 else 1.0
    for step in (f * unit for f in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0)):
        if span / step <= 6.001:
            first = -(-low // step)
            return [round((first + k) * step, 6) for k in range(int((high - first * step) / step + 1e-9) + 1)]
    return [low, high]
