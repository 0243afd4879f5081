"""From a training run to the weights files that ship."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tellsign.plugins.pixel.quantise import pack, unpack
from tellsign.plugins.pixel.residuals import ResidualProbe
from tellsign.towers import ClipTower


def _notes(recipe: Mapping[str, object], blocks: object, version: str) -> dict[str, str]:
    assert isinstance(blocks, list | tuple)
    return {
        "blocks": ",".join(str(b) for b in blocks),
        "rank": str(recipe["rank"]),
        "alpha": str(recipe["alpha"]),
        "version": version,
        "ratio": "4",
        "recipe": json.dumps(recipe, sort_keys=True),
    }


def _adapter(run: Mapping[str, Tensor], head: str, depth: int) -> dict[str, Tensor]:
    """Updates of the first `depth` blocks and one head; the updates in half precision, which is what they train in."""
    state = {
        name: value.half()
        for name, value in run.items()
        if name.startswith("lora.") and int(name.split(".", 2)[2].split("/")[0]) <= depth
    }
    state |= {"head." + n.removeprefix(head + "."): v.float() for n, v in run.items() if n.startswith(head + ".")}
    return {name: value.contiguous() for name, value in state.items()}


def export_tower(run: Path, out: Path, *, version: str) -> Path:
    """Write `pixel-tower.safetensors`: updates and deep head, for the tower that `tellsign models fetch` brings.

    Parameters
    ----------
    run : Path
        Folder of a training run (`recipe.json`, `run.safetensors`).
    out : Path
        Folder that receives the file.
    version : str
    """
    recipe = json.loads((run / "recipe.json").read_text())
    file = out / "pixel-tower.safetensors"
    state = _adapter(load_file(run / "run.safetensors"), "deep", max(recipe["deep"]))
    save_file(state, file, metadata=_notes(recipe, recipe["deep"], version))
    return file


def trunk(tower: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The first `depth` blocks of a tower and what comes before them, packed in four bits."""
    keep = {
        name: value
        for name, value in tower.items()
        if name not in ("ln_post.weight", "ln_post.bias", "proj")
        and (not name.startswith("transformer.resblocks.") or int(name.split(".")[2]) < depth)
    }
    return pack(keep)


def quantised_tower(tower: Mapping[str, Tensor], depth: int) -> ClipTower:
    """The tower as the bundled model will have it, in float32, for fine-tuning the updates on top of it."""
    return ClipTower.from_state_dict(unpack(trunk(tower, depth)))


def export_bundled(run: Path, tower: Mapping[str, Tensor], out: Path, *, version: str) -> Path:
    """Write `pixel-bundled.safetensors`: the first blocks in four bits, their updates, and the early head."""
    recipe = json.loads((run / "recipe.json").read_text())
    depth = max(recipe["early"])
    state = {f"tower.{n}": v.contiguous() for n, v in trunk(tower, depth).items()}
    state |= _adapter(load_file(run / "run.safetensors"), "early", depth)
    file = out / "pixel-bundled.safetensors"
    save_file(state, file, metadata=_notes(recipe, recipe["early"], version))
    return file


RESIDUAL = "residual.safetensors"
"""The probe on residuals in a run's folder."""


def save_residual(probe: ResidualProbe, run: Path) -> Path:
    """Keep the probe on residuals with a run."""
    file = run / RESIDUAL
    save_file({n: v.detach().contiguous() for n, v in probe.state_dict().items()}, file)
    return file


def export_residual(run: Path, out: Path, *, version: str) -> Path:
    """Write `pixel-residual.safetensors`."""
    file = out / "pixel-residual.safetensors"
    save_file(load_file(run / RESIDUAL), file, metadata={"version": version})
    return file


def load_tower(file: Path) -> dict[str, Tensor]:
    """The tower's tensors in float32."""
    return {name: value.to(torch.float32) for name, value in load_file(file).items()}
