"""Ways of moving a base and of judging the move, side by side: `python -m tellsign.tuning.ways`.

Takes the score table that the shipped fusion was trained on, takes one domain (real sources and generators) out, trains
a base on the rest and tunes it on draws of the domain, each way and gate on the same draws. The way that ships and its
prior were chosen here, on `fuse`; the `user` split only measures them (`tellsign.tuning.experiment`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import attrs
import numpy as np
import typer
from numpy.typing import NDArray

from tellsign.fusion.bundle import Bundle, Head
from tellsign.fusion.folds import group_folds
from tellsign.fusion.gain import even_weights, log_losses, paired_gain
from tellsign.fusion.logistic import fit_ridge
from tellsign.fusion.shrink import SPREAD, BaseView, base_view, head_odds, moved_calibrators, recalibrated, reweighted
from tellsign.fusion.table import ScoreTable
from tellsign.fusion.train import sample_weights, train_bundle
from tellsign.host import discover

from . import tables
from .experiment import DRAWS, drawn_rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DOMAINS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "food": (
        ("food_phone",),
        ("z_image_turbo", "comfy_z_image", "qwen_image", "qwen_image_yetter_webp", "comfy_qwen_image"),
    ),
    "stock": (("real_picsum_unsplash",), ("muse",)),
    "art": (
        ("art_paintings",),
        ("ml72_diffusion1", "ml72_diffusion2", "ml72_diffusion3", "ml72_diffusion4", "ml72_gan"),
    ),
    "land": (
        ("stock_land", "photogrammetry"),
        (
            "pixart_sigma",
            "pixart_alpha_cmp",
            "biggan",
            "deepfloyd_if",
            *("biggan_genimage", "vqdm_genimage", "adm_genimage", "glide_genimage"),
        ),
    ),
}
"""Real sources and generators of `fuse` that are taken out together."""

GATES = {"two-sided 95 %": 0.95, "one-sided 95 %": 0.90, "one-sided 90 %": 0.80}
"""Confidence of the interval whose lower end must lie above zero."""

T_GATE = "Student's t 95 %"
SPREADS = (0.2, 0.35, 0.5, 1.0)
_INNER = (1.0, 0.35, 0.1)
"""Spreads that the inner folds choose from."""

app = typer.Typer(add_completion=False, help=__doc__)


@attrs.frozen(kw_only=True, eq=False)
class Problem:
    """A draw of a domain, the rest of it and everything else, seen by one base."""

    base: Bundle
    view: BaseView
    labels: Ints
    groups: NDArray[np.str_]
    weights: Floats
    parts: Mapping[str, Ints]
    """Row numbers of "drawn", "rest" and "elsewhere"."""

    def odds(self, head: Head, rows: Ints) -> Floats:
        """A head's log-odds of some rows, float64 (rows,)."""
        return np.nan_to_num(head_odds(head, attrs.evolve(self.view, values=self.view.values[rows])))


Way = Callable[[Problem, Ints, Ints], Floats]
"""Learns from some rows; gives the log-odds of others."""


def strength(spread: float, groups: int) -> float:
    """Of a prior of that spread, in units of the one that ships."""
    return (SPREAD / spread) ** 2 / groups


def moved(fit: Callable[..., Head], spread: float) -> Way:
    """`recalibrated` or `reweighted` under a prior of one spread."""

    def way(problem: Problem, rows: Ints, asked: Ints) -> Floats:
        own = strength(spread, len(np.unique(problem.groups[rows])))
        return problem.odds(fit(problem.base, problem.view, problem.labels, problem.weights, rows, own), asked)

    return way


def unmoved(problem: Problem, rows: Ints, asked: Ints) -> Floats:
    """The base."""
    return problem.odds(problem.base.heads["p_ai"], asked)


def shifted(problem: Problem, rows: Ints, asked: Ints) -> Floats:
    """The log-odds with a shift and nothing else."""
    part, w = problem.base.heads["p_ai"], problem.weights[rows]
    shift = fit_ridge(
        np.ones((len(rows), 1)),
        problem.labels[rows].astype(float),
        w / w.sum(),
        prior=np.zeros(1),
        precision=np.array([1 / SPREAD**2 / len(np.unique(problem.groups[rows]))]),
        low=np.array([-np.inf]),
        high=np.array([np.inf]),
        offset=problem.view.odds[rows],
    )
    calibrators = moved_calibrators(part.calibrators, 1.0, float(shift[0]))
    return problem.odds(Head(model=part.model, calibrators=calibrators), asked)


def by_inner_folds(problem: Problem, rows: Ints, asked: Ints) -> Floats:
    """The method and the spread with the lowest log loss on inner folds, the base among them."""
    y, g = problem.labels[rows], problem.groups[rows]
    weight = even_weights(y, g)
    ways: list[Way] = [unmoved, *(moved(f, s) for f in (recalibrated, reweighted) for s in _INNER)]
    losses = np.zeros(len(ways))
    for fold in group_folds(y, g, 5, 1):
        for k, way in enumerate(ways):
            odds = way(problem, rows[fold.train], rows[fold.test])
            losses[k] += float(weight[fold.test] @ log_losses(y[fold.test], odds))
    return ways[int(np.argmin(np.round(losses, 5)))](problem, rows, asked)


WAYS: dict[str, Way] = {
    "shift only": shifted,
    "recalibrated": moved(recalibrated, SPREAD),
    **{f"reweighted, spread {s:g}": moved(reweighted, s) for s in SPREADS},
    "chosen by inner folds": by_inner_folds,
}


def lower_t(labels: Ints, before: Floats, after: Floats, groups: NDArray[np.str_]) -> float:
    """Welch's one-sided 95 % bound of the gain, the means of groups as its sample."""
    from scipy import stats

    fall = log_losses(labels, before) - log_losses(labels, after)
    samples = []
    for value in (0, 1):
        own = labels == value
        _, place = np.unique(groups[own], return_inverse=True)
        samples.append(np.bincount(place, fall[own]) / np.bincount(place))
    errors = [s.var(ddof=1) / len(s) for s in samples]
    freedom = sum(errors) ** 2 / max(sum(e**2 / (len(s) - 1) for e, s in zip(errors, samples, strict=True)), 1e-300)
    half = stats.t.ppf(0.95, max(freedom, 1.0)) * math.sqrt(sum(errors))
    return float(sum(s.mean() for s in samples) - half) / 2


def judged(problem: Problem, way: Way, *, seed: int) -> dict[str, Any]:
    """One way on one draw: its gains on the rest and elsewhere, and which gates let it pass."""
    drawn = problem.parts["drawn"]
    out: dict[str, Any] = {}
    for name in ("rest", "elsewhere"):
        rows = problem.parts[name]
        y = problem.labels[rows]
        fall = log_losses(y, unmoved(problem, drawn, rows)) - log_losses(y, way(problem, drawn, rows))
        out[name] = float(even_weights(y, problem.groups[rows]) @ fall)
    before, held = unmoved(problem, drawn, drawn), np.zeros(len(drawn))
    y, g = problem.labels[drawn], problem.groups[drawn]
    for fold in group_folds(y, g, 5, seed):
        held[fold.test] = way(problem, drawn[fold.train], drawn[fold.test])
    passed = {gate: paired_gain(y, before, held, g, confidence=c, seed=seed).proven for gate, c in GATES.items()}
    return {**out, "passed": passed | {T_GATE: lower_t(y, before, held, g) > 0}}


def problem_of(base: Bundle, domain: ScoreTable, elsewhere: ScoreTable, size: int, seed: int) -> Problem:
    """Draw rows of a domain."""
    rows = drawn_rows(domain, size, seed)
    rest = np.flatnonzero(~np.isin(domain.group, np.unique(domain.group[rows])))
    pieces = [domain.take(rows), domain.take(rest), elsewhere]
    table = tables.joined(pieces)
    ends = np.cumsum([0, *(len(p) for p in pieces)])
    parts = {n: np.arange(ends[i], ends[i + 1]) for i, n in enumerate(("drawn", "rest", "elsewhere"))}
    weights = np.zeros(len(table))
    weights[parts["drawn"]] = sample_weights(pieces[0], pieces[0].label)
    return Problem(
        base=base,
        view=base_view(base, table, "p_ai"),
        labels=table.label,
        groups=table.group,
        weights=weights,
        parts=parts,
    )


def domains(table: ScoreTable) -> list[tuple[str, NDArray[np.bool_]]]:
    """Name of each domain and which rows belong to it, with every row that shares a group with them."""
    found = []
    for name, (reals, fakes) in DOMAINS.items():
        mine = np.isin(table.source, (*reals, *fakes))
        if mine.any():
            found.append((name, mine | np.isin(table.group, np.unique(table.group[mine]))))
    return found


@app.command()
def main(
    table: Annotated[
        Path, typer.Option(help="fuse.csv, as `tellsign.data.default_fusion` leaves it in its work folder.")
    ],
    size: Annotated[int, typer.Option(min=20, help="Rows to tune on.")] = 50,
    draws: Annotated[int, typer.Option(min=1)] = DRAWS,
    bases: Annotated[Path | None, typer.Option(help="Folder that keeps the trained bases; most of the time.")] = None,
) -> None:
    """Print one line per way: gains where every move is taken, and where a gate decides."""
    declarations = {r.name: r.declaration for r in discover() if r.declaration is not None}
    whole = tables.load(table, declarations)
    patterns = np.array(["".join("01"[int(x)] for x in row) for row in ~np.isnan(whole.rows)])
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    for name, mine in domains(whole):
        base = base_without(whole.take(np.flatnonzero(~mine)), None if bases is None else bases / name)
        for machine in sorted(set(patterns[mine].tolist())):
            # A row per picture: its first version.
            inside, outside = (first_of_groups(whole, side & (patterns == machine)) for side in (mine, ~mine))
            if min(inside.label.sum(), (1 - inside.label).sum()) < size // 2 + 5 or not len(outside):
                continue
            typer.echo(f"{name}, pattern {machine}: {len(inside)} rows, {len(outside)} elsewhere", err=True)
            for seed in range(draws):
                problem = problem_of(base, inside, outside, size, seed)
                for way, learn in WAYS.items():
                    found[way].append(judged(problem, learn, seed=seed))
    typer.echo("way | always: gain, draws that lose, elsewhere | " + " | ".join([*GATES, T_GATE]))
    for way, runs in found.items():
        if runs:
            typer.echo(line_of(way, runs))


def base_without(table: ScoreTable, folder: Path | None) -> Bundle:
    """A base trained on a table, or the one that a folder keeps."""
    if folder is not None and folder.is_dir():
        return Bundle.load(folder)
    base, _ = train_bundle(table, head="logistic")
    if folder is not None:
        base.save(folder)
    return base


def first_of_groups(table: ScoreTable, chosen: NDArray[np.bool_]) -> ScoreTable:
    """Every other row of the chosen ones: a picture's two versions follow each other."""
    return table.take(np.flatnonzero(chosen)[::2])


def line_of(way: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """A way's line of the table."""
    rest = np.array([r["rest"] for r in runs])
    far = float(np.mean([r["elsewhere"] for r in runs]))
    cells = [f"{way} | {rest.mean():+.4f}, {(rest < 0).sum()}/{len(rest)}, {far:+.4f}"]
    for gate in (*GATES, T_GATE):
        passed = np.array([r["passed"][gate] for r in runs])
        cells.append(f"{(rest * passed).mean():+.4f} ({passed.sum()} written, {(passed & (rest < 0)).sum()} lose)")
    return " | ".join(cells)


if __name__ == "__main__":
    app()
