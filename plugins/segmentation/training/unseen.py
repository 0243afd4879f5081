"""Leave one kind out: what the path on residuals makes of forgeries of a kind that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tellsign.errors import SettingError
from tellsign.plugins.segmentation.model import MASKS
from tellsign.plugins.segmentation.scan import forward_of

from .calibrate import choose
from .data import UNTOUCHED, ForgedRow, few, without_tools
from .evaluate import look_at_all, table
from .recipe import Recipe
from .trace import load_traces

EACH = 8
"""Forgeries of each other kind and tool on which the cut is chosen."""


def leave_out(
    traces: Path, choosing: Sequence[ForgedRow], rows: Sequence[ForgedRow], conditions: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """Choose the cut on other kinds, and measure on the one that was left out.

    Parameters
    ----------
    traces : Path
        What `trace.pretrain` wrote with a recipe that leaves kinds out (`without`).
    choosing : sequence of ForgedRow
        On whose untouched pictures and other kinds the cuts are chosen, as they are and saved as JPEG 90.
    rows : sequence of ForgedRow
        Of which the kinds that were left out, and untouched pictures, are measured.
    conditions : sequence of str

    Returns
    -------
    shift : dict
        Of each mask, in log-odds.
    told : dict
        By condition what `evaluate.table` says.

    Raises
    ------
    SettingError
        The recipe leaves nothing out, or `rows` has none of it.
    """
    recipe = Recipe.read(traces.parent)
    if not recipe.without:
        raise SettingError("traces", "a run whose recipe leaves kinds out (without)", str(traces))
    kept = {id(r) for r in without_tools(rows, recipe.without)}
    held = [r for r in rows if id(r) not in kept]
    if not held:
        raise SettingError("folder", f"forgeries of {', '.join(recipe.without)}", "none")
    others = without_tools(choosing, recipe.without)
    known = [r for r in others if r.kind == UNTOUCHED]
    known += few([r for r in others if r.kind not in (UNTOUCHED, "generated")], EACH)
    device = torch.device("cpu")
    chosen = choose(known, forward_of(load_traces(recipe, traces), device))
    shift = {name: float(chosen[name]["shift"]) for name in MASKS}
    forward = forward_of(load_traces(recipe, traces, shift), device)
    measured = [r for r in rows if r.kind == UNTOUCHED] + held
    return shift, {c: table(look_at_all(measured, forward, c, own=False)) for c in conditions}


__all__ = ["EACH", "leave_out"]
