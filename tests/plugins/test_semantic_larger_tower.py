"""ViT-L-14-336 by setting, from open_clip's checkpoint to a verdict, on a small network in the same layout.

The real weights were never here. What is the same: the names in open_clip's checkpoint, 14 px patches,
QuickGELU, heads of 64, 336 px, the registry's entry but for its shapes, and every command on the way.
"""

from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from tellsign import weights
from tellsign.data.rows import PictureRow
from tellsign.errors import SettingError, WeightsError
from tellsign.plugins import semantic
from tellsign.plugins.semantic.detector import SemanticDetector
from tellsign.plugins.semantic.training import export
from tellsign.plugins.semantic.training.__main__ import app
from tellsign.plugins.semantic.training.prepare import prepare
from tellsign.plugins.semantic.weights_files import HEAD
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Declaration, Picture, ScoreEvidence
from tellsign.schemas.codec import loads
from tellsign.towers import CLIP_VIT_L14_336, clip_input, clip_tower
from tellsign.views import semantic_view
from tellsign.weights.files import read_notes
from tellsign.weights.registry import SPECS, clip_tower_layout

WIDTH, LAYERS, OUT = 128, 3, 16


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """Tensors under open_clip's names, fetched as `tellsign models fetch --file` does. Yields them."""
    layout = clip_tower_layout(width=WIDTH, layers=LAYERS, patch=14, size=336, out=OUT)
    generator = torch.Generator().manual_seed(0)
    state = {
        name: (torch.randn(shape, generator=generator) * 0.1 + float("ln_" in name and name.endswith("weight"))).half()
        for name, shape in layout.items()
    }
    monkeypatch.setenv("TELLSIGN_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(SPECS, CLIP_VIT_L14_336, attrs.evolve(SPECS[CLIP_VIT_L14_336], layout=layout))
    whole = {f"visual.{k}": v for k, v in state.items()} | {"token_embedding.weight": torch.zeros(4, 2)}
    save_file(whole, tmp_path / "open_clip_model.safetensors")
    weights.fetch(CLIP_VIT_L14_336, file=tmp_path / "open_clip_model.safetensors")
    return state


def picture(rng, made, size=(400, 380)):
    width, height = size
    values = np.broadcast_to(np.array([180.0, 90, 90]), (height, width, 3)) + rng.normal(0, 6, (height, width, 3))
    values[:, : width // 2] -= (5 if made else 70) * rng.uniform(0.8, 1.2)
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.mark.slow  # importing open_clip takes seconds
def test_the_tower_is_open_clips(checkpoint):
    transformer = pytest.importorskip("open_clip.transformer")
    theirs = transformer.VisionTransformer(
        image_size=336, patch_size=14, width=WIDTH, layers=LAYERS, heads=WIDTH // 64, mlp_ratio=4.0, output_dim=OUT,
        act_layer=transformer.QuickGELU,
    ).eval()  # fmt: skip
    theirs.load_state_dict({k: v.float() for k, v in checkpoint.items()})
    ours = clip_tower(CLIP_VIT_L14_336)
    assert (ours.patch, ours.grid, ours.width, ours.depth) == (14, 24, WIDTH, LAYERS)
    generator = torch.Generator().manual_seed(1)
    x = clip_input(torch.randint(0, 256, (2, 336, 336, 3), dtype=torch.uint8, generator=generator))
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-3)


def test_from_pictures_to_evidence_with_the_larger_tower(checkpoint, tmp_path, monkeypatch):
    rng, rows = np.random.default_rng(0), []
    for split, sources in (("fit", range(4)), ("fuse", range(4, 6))):
        for label in (0, 1):
            for source in sources:
                for i in range(4):
                    path = tmp_path / f"{split}-{label}-{source}-{i}.png"
                    Image.fromarray(picture(rng, label)).save(path)
                    name = f"{label}{source}"
                    rows.append(
                        PictureRow(path=path, label=label, source=name, content="photo", group=path.name, split=split)
                    )
    small, data = tmp_path / "small", tmp_path / "data"
    prepare(rows[:4], small)
    run = CliRunner().invoke
    told = run(app, ["features", "--folder", str(small), "--tower", CLIP_VIT_L14_336])
    assert isinstance(told.exception, SettingError)
    assert "prepare --side 336" in str(told.exception)

    prepare(rows, data, side=336)
    done = run(app, ["features", "--folder", str(data), "--tower", CLIP_VIT_L14_336])
    assert done.exception is None
    monkeypatch.setattr(export.fit_head, "__kwdefaults__", {**export.fit_head.__kwdefaults__, "least": 4})
    asked = ["--out", str(tmp_path), "--version", "9", "--recipe", '{"blocks": [2, 3], "strength": 0.01, "topics": 1}']
    done = run(app, ["head", "--folder", str(data), "--tower", CLIP_VIT_L14_336, *asked])
    assert done.exception is None
    head = tmp_path / "semantic-tower.safetensors"
    assert read_notes(head)["tower"] == CLIP_VIT_L14_336

    declaration = loads((Path(semantic.__file__).parent / "tellsign.json").read_text(), Declaration)
    detector = SemanticDetector(declaration, {"strength": "tower", "tower": CLIP_VIT_L14_336, "head": str(head)})
    runtime = DeviceRuntime("cpu")
    detector.setup(runtime)
    views = [semantic_view(Picture(pixels=picture(rng, made)), key=f"{made}") for made in (0, 1)]
    (real,), (made,) = detector.detect(views, runtime)
    assert isinstance(real, ScoreEvidence)
    assert made.logit > real.logit
    assert runtime.counters.forwards == {f"{CLIP_VIT_L14_336}/semantic": 2}
    # The head that ships was trained on another tower, whose width is another.
    other = SemanticDetector(declaration, {"strength": "tower", "tower": CLIP_VIT_L14_336, "head": str(HEAD)})
    with pytest.raises(WeightsError, match="takes a tower of width 768"):
        other.detect(views, DeviceRuntime("cpu"))
