"""A tiny tower, and weights files in the plugin's own format around it."""

import json

import attrs
import pytest
import torch
from safetensors.torch import save_file

WIDTH, DEPTH, PATCH, SIDE = 64, 3, 16, 64


def tower_state(seed=0, *, width=WIDTH, depth=DEPTH):
    """Random tensors of a CLIP tower in which every part is audible."""
    from tellsign.weights import clip_tower_layout

    generator = torch.Generator().manual_seed(seed)
    layout = clip_tower_layout(width=width, layers=depth, patch=PATCH, size=SIDE, out=8)
    return {
        name: torch.randn(shape, generator=generator) * (0.3 if len(shape) == 1 else 0.1)
        + float("ln_" in name and name.endswith("weight"))
        for name, shape in layout.items()
    }


class TinyRun:
    """A finished training run that nobody trained: random updates and heads on the tiny tower."""

    def __init__(self, folder, *, deep=(2, 3), early=(1, 2), rank=2, seed=1):
        from tellsign.plugins.pixel.training.train import Recipe, Run

        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.tower = folder, tower_state()
        self.recipe = Recipe(deep=deep, early=early, rank=rank, alpha=4.0)
        run = Run(self.recipe, WIDTH)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, p in [*run.named_parameters(), *run.named_buffers()]:
                value = torch.randn(p.shape, generator=generator) * 0.1
                p.copy_(value.abs() + 0.5 if name.endswith("std") else value)
        self.module = run.eval()
        (folder / "recipe.json").write_text(json.dumps(attrs.asdict(self.recipe)))
        save_file({k: v.contiguous() for k, v in run.state_dict().items()}, folder / "run.safetensors")

    def export(self, out, version="1.2.3"):
        """Paths of the two weights files."""
        from tellsign.plugins.pixel.training import export

        out.mkdir(parents=True, exist_ok=True)
        return (
            export.export_tower(self.folder, out, version=version),
            export.export_bundled(self.folder, self.tower, out, version=version),
        )


@pytest.fixture(scope="session")
def make_tower():
    """Function that makes the tiny tower's tensors, anew at every call."""
    return tower_state


@pytest.fixture
def tiny_run(tmp_path):
    return TinyRun(tmp_path / "run")


@pytest.fixture
def headed_run(tmp_path):
    """A run without updates: heads on the tower as it is, which is what `fit` writes."""
    return TinyRun(tmp_path / "headed", rank=0)


@pytest.fixture
def stand_ins(tiny_run, tmp_path, monkeypatch):
    """The plugin speaks with the tiny weights; the shared tower is the tiny one. Yields the run."""
    from tellsign.plugins.pixel import strengths, weights_files
    from tellsign.towers import shared

    tower, bundled = tiny_run.export(tmp_path / "weights")
    monkeypatch.setattr(strengths, "TOWER", tower)
    monkeypatch.setattr(strengths, "BUNDLED", bundled)
    monkeypatch.setattr(strengths, "load_adapter", lambda: weights_files.load_adapter(tower))
    monkeypatch.setattr(strengths, "load_bundled", lambda: weights_files.load_bundled(bundled))
    file = tmp_path / "clip.safetensors"
    save_file({k: v.contiguous().half() for k, v in tiny_run.tower.items()}, file)
    monkeypatch.setattr(shared, "locate", lambda name: file if name == "clip-vit-b16" else None)
    tiny_run.files = (tower, bundled)
    return tiny_run
