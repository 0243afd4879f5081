"""A tiny tower, and weights files in the plugin's own format around it."""

import importlib.util
import json
import sys
from pathlib import Path

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


def _helper(name):
    """A module beside this file; tests are no package, so what several of them share is loaded by path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_vlm():
    """The module that makes tiny vision-language models."""
    return _helper("tiny_vlm")


@pytest.fixture(scope="session")
def taught_vlm(tiny_vlm, tmp_path_factory):
    """Folder of a model that calls dark pictures fake and bright ones real, with a reason each."""
    tok = tiny_vlm.tokenizer(tiny_vlm.corpus())
    proc, net = tiny_vlm.processor(tok), tiny_vlm.model(tok)
    said = {True: tiny_vlm.FAKE, False: tiny_vlm.REAL}
    examples = [(tiny_vlm.picture(dark, seed), said[dark]) for dark in (True, False) for seed in range(2)]
    assert tiny_vlm.teach(net, proc, examples, steps=70, rate=5e-3) < 0.1
    return tiny_vlm.save(tmp_path_factory.mktemp("vlm") / "taught", net, proc)


@pytest.fixture(scope="session")
def toys():
    """The module that makes tiny segmentation networks and draws forgeries."""
    return _helper("segmentation_toys")


_helper("provenance_files")


@pytest.fixture(scope="session")
def make_provenance():
    """Function that makes the provenance plugin with settings."""
    import importlib.util
    from pathlib import Path

    from tellsign.plugins.provenance.detector import ProvenanceDetector
    from tellsign.schemas import Declaration
    from tellsign.schemas.codec import loads

    folder = Path(importlib.util.find_spec("tellsign.plugins.provenance").origin).parent
    declaration = loads((folder / "tellsign.json").read_text(), Declaration)
    return lambda **settings: ProvenanceDetector(declaration, settings)


@pytest.fixture(scope="session")
def look(make_provenance):
    """Function that says what the provenance plugin answers to a file's bytes."""
    from tellsign import decode
    from tellsign.schemas import Task
    from tellsign.views import build_view

    def answer(data, **settings):
        view = build_view(Task.PROVENANCE, decode(data), "a")
        (evidence,) = make_provenance(**settings).detect([view], None)
        return evidence

    return answer
