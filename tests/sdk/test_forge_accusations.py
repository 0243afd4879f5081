"""Verdicts counted by kind and tool, before and after enhancement."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tellsign.default
from tellsign.forge import Photo, forge
from tellsign.forge.accusations import in_markdown, look, made_by, summary
from tellsign.schemas import Label, PredictionSet, Verdict


def verdict(label, p):
    return Verdict(
        label=label, p_ai=p, prediction_set=PredictionSet(labels=(label,), error_rate=0.1), width=8, height=8
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("accusations")
    rng = np.random.default_rng(0)
    photos = []
    for i in range(4):
        coarse = Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))
        coarse.resize((400, 400), Image.Resampling.BICUBIC).save(base / f"{i}.png")
        photos.append(Photo(path=base / f"{i}.png", name=f"{i}", source="mine", group=f"{i}"))
    forge(photos, base / "forged", ["untouched", "enhanced"], scenes=4)
    return base / "forged"


def test_each_picture_is_looked_at_once_and_told_by_kind(folder):
    seen = []

    def detect(path):
        seen.append(path)
        enhanced = "enhanced" in path.name
        return verdict(Label.AI_GENERATED if enhanced else Label.AUTHENTIC, 0.9 if enhanced else 0.2)

    told = summary(look([folder], detect))
    assert len(seen) == len(set(seen)) == 8
    assert set(told) == {"untouched", "enhanced/denoise"}
    after = told["enhanced/denoise"]
    assert (after["n"], after["ai_generated"], after["authentic"], after["p_ai_half"]) == (4, 1, 0, 1)
    # Scenes may share a photograph; each is held against its own untouched picture.
    assert after["pairs"] == after["newly"] == 4
    assert after["change"] == pytest.approx(0.7)
    assert told["untouched"]["change"] == 0
    assert "| enhanced/denoise | 4 | 0 % | 100 % |" in in_markdown(told)


def test_without_a_probability_nothing_is_made_up():
    records = [{"made_by": "untouched", "scene": "a", "label": "uncertain", "p_ai": None}]
    told = summary(records)["untouched"]
    assert told["p_ai_half"] is None
    assert told["change"] is None
    assert "| - | - | 0 of 0 |" in in_markdown({"untouched": told})


def test_the_command_prints_a_table_and_writes_lines(folder, tmp_path, monkeypatch):
    import typer

    from tellsign.forge import accusations

    monkeypatch.setattr(tellsign.default, "detect", lambda path: verdict(Label.AUTHENTIC, 0.1))
    app = typer.Typer()
    app.command()(accusations.main)
    told = CliRunner().invoke(app, [str(folder), "--out", str(tmp_path / "lines.jsonl")])
    assert told.exit_code == 0
    assert "| untouched | 4 | 100 % |" in told.stdout
    lines = [json.loads(text) for text in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert {line["made_by"] for line in lines} == {"untouched", "enhanced/denoise"}
    wrong = CliRunner().invoke(app, [str(tmp_path)])
    assert wrong.exit_code == 1
    assert "has no manifest.csv" in wrong.output


def test_untouched_has_no_tool(folder):
    from tellsign.forge import read_manifest

    assert {made_by(r) for r in read_manifest(folder)} == {"untouched", "enhanced/denoise"}
