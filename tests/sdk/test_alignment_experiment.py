"""The experiment on alignment: who takes part, what is learned, what is written, and going on after a stop."""

import json

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from tellsign.alignment.experiment.__main__ import command
from tellsign.alignment.experiment.cues import CUES
from tellsign.alignment.experiment.model import Reader, pooled
from tellsign.alignment.experiment.pictures import FIT, SEEN, TEST, choose, window
from tellsign.alignment.experiment.report import NONE, markdown, table
from tellsign.alignment.experiment.setting import Arm, Setting
from tellsign.alignment.experiment.train import ON, Answers, Inputs, answer, fit
from tellsign.alignment.saliency import salient
from tellsign.errors import SettingError
from tellsign.forge.manifest import FIELDS, ForgedRow, line
from tellsign.towers import ClipTower

SIDE = 32


def forged(folder, count=8, twins=False):
    """Untouched pictures and two inpainters' blends; every base is used once, or by all three with `twins`."""
    (folder / "pictures").mkdir(parents=True)
    (folder / "masks").mkdir()
    rng = np.random.default_rng(0)
    text = ",".join(FIELDS) + "\n"
    for n in range(3 * count):
        kind, tool = (("untouched", ""), ("blend", "one"), ("blend", "two"))[n % 3]
        pixels = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
        mask = np.zeros((40, 48), np.uint8)
        if tool:
            mask[10:24, 12:30] = 255
            pixels[mask > 0] = 128
        Image.fromarray(pixels).save(folder / "pictures" / f"{n}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{n}.png")
        row = ForgedRow(
            id=str(n),
            path=f"pictures/{n}.png",
            cls=int(bool(tool)),
            kind=kind,
            tool=tool,
            ai_mask=f"masks/{n}.png" if tool else "",
            ma_mask="",
            ai_loss=1,
            ma_loss=1,
            base=f"{n}.jpg",
            donor="",
            group=str(n // 3 if twins else n),
            source="mine",
            seed=0,
            share=float((mask > 0).mean()),
        )
        text += line(row)
    (folder / "manifest.csv").write_text(text)
    return folder


def small(**changes):
    return Setting(
        **{
            "fit_tools": ("one",),
            "held_out": ("two",),
            "fit": 3,
            "test": 3,
            "seen": 2,
            "side": SIDE,
            "block": 1,
            "pool": 2,
            "width": 16,
            "heads": 2,
            "depth": 1,
            "epochs": 1,
            "seeds": 2,
            "lambdas": (0.4,),
            "betas": (),
            **changes,
        }
    )


# -- pictures -----------------------------------------------------------------------------------------------------


def test_no_photograph_is_in_the_fit_and_the_test(tmp_path):
    samples = choose([forged(tmp_path / "f", count=12, twins=True)], small())
    groups = {part: {s.row.group for s in samples if s.part == part} for part in (FIT, TEST, SEEN)}
    assert not groups[FIT] & (groups[TEST] | groups[SEEN])
    tools = {part: {s.row.tool for s in samples if s.part == part and s.fake} for part in (FIT, TEST, SEEN)}
    assert tools == {FIT: {"one"}, TEST: {"two"}, SEEN: {"one"}}
    counts = [(s.part, s.fake) for s in samples]
    assert {c: counts.count(c) for c in counts} == {
        (FIT, True): 3, (FIT, False): 3, (TEST, True): 3, (TEST, False): 3, (SEEN, True): 2,
    }  # fmt: skip
    assert samples == choose([tmp_path / "f"], small())


def test_too_few_pictures_are_told(tmp_path):
    with pytest.raises(SettingError, match="3 more pictures with a region by three for the test"):
        choose([forged(tmp_path / "f")], small(held_out=("three",)))


def test_windows_hold_the_region_and_only_forged_ones_have_one(tmp_path):
    for sample in choose([forged(tmp_path / "f")], small()):
        pixels, region = window(sample, SIDE)
        assert pixels.shape == (SIDE, SIDE, 3)
        assert region.shape == (SIDE, SIDE)
        assert region.any() == sample.fake
        assert (pixels[region] == 128).all()
        assert np.array_equal(window(sample, SIDE)[0], pixels)
    with pytest.raises(SettingError, match="at most 40"):
        window(sample, 41)


@pytest.mark.parametrize("name", CUES)
def test_a_cue_changes_the_whole_picture(name):
    pixels = np.random.default_rng(1).integers(20, 200, (32, 32, 3), dtype=np.uint8)
    off, on = (CUES[name](pixels, flag) for flag in (False, True))
    assert off.shape == on.shape == pixels.shape
    assert off.dtype == on.dtype == np.uint8
    assert (off != on).any(axis=2).mean() > 0.9


def test_salient_is_what_stands_out():
    pixels = np.full((128, 128, 3), 60, np.uint8)
    pixels += np.random.default_rng(0).integers(0, 4, pixels.shape, dtype=np.uint8)
    pixels[80:96, 24:40] = 230
    seen = salient(pixels)
    assert seen[72:104, 16:48].sum() > 0.8 * seen.sum() > 0
    assert not salient(np.full((50, 70, 3), 9, np.uint8)).any()
    with pytest.raises(ValueError, match="uint8"):
        salient(np.zeros((4, 4), np.uint8))


# -- network ------------------------------------------------------------------------------------------------------


def test_pooling_averages_squares_and_keeps_the_class_token():
    tokens = torch.arange(17.0)[None, :, None].expand(1, 17, 3)
    out = pooled(tokens, 2)
    assert out.shape == (1, 5, 3)
    # Patches 1 2 / 5 6, 3 4 / 7 8, 9 10 / 13 14, 11 12 / 15 16.
    assert out[0, :, 0].tolist() == [0, 3.5, 5.5, 11.5, 13.5]
    assert pooled(tokens, 1) is tokens
    with pytest.raises(ValueError, match="16 patches"):
        pooled(tokens, 3)


def toy(n=160, seed=0):
    """A weak artifact in one of 16 patches, and a strong cue in all of them."""
    rng = np.random.default_rng(seed)
    fake = np.arange(n) % 2 == 0
    tokens = rng.normal(0, 0.5, (n, 2, 17, 24)).astype(np.float32)
    tokens[:, 1, :, 0] += 1.5
    region = np.zeros((n, 32, 32), bool)
    for k in np.flatnonzero(fake):
        at = int(rng.integers(16))
        tokens[k, :, 1 + at, 1] += 3
        region[k, 8 * (at // 4) : 8 * (at // 4) + 8, 8 * (at % 4) : 8 * (at % 4) + 8] = True
    return Inputs(tokens=torch.from_numpy(tokens), region=region, salient=region[:, ::-1], fake=fake)


@pytest.mark.slow
def test_alignment_moves_attention_to_the_artifact_and_helps_when_the_cue_flips():
    setting = small(width=24, depth=2, epochs=20, agreement=0.95, rate=3e-3)
    test, found = toy(seed=1), {}
    for arm in (Arm(beta=0.0), Arm(benign=0.4, beta=5.0)):
        found[arm.name] = [answer(fit(toy(), setting, arm, seed), test) for seed in range(2)]
    held_out = np.ones(len(test.fake), bool)
    rows = table(found, test.fake, held_out, draws=50)
    aligned = rows["artifact, lambda 0.4, beta 5"]
    assert aligned["mass"]["value"] > rows[NONE]["mass"]["value"] + 0.1
    assert aligned["iou"]["value"] > rows[NONE]["iou"]["value"]
    assert aligned["accuracy_flipped"]["value"] > rows[NONE]["accuracy_flipped"]["value"] + 0.1


def test_the_same_seed_gives_the_same_run_and_alignment_changes_it():
    inputs, setting = toy(16), small(epochs=2)
    first, again = (answer(fit(inputs, setting, Arm(), 3), inputs) for _ in range(2))
    np.testing.assert_array_equal(first.logit, again.logit)
    other = answer(fit(inputs, setting, Arm(beta=0.0), 3), inputs)
    assert not np.array_equal(first.logit, other.logit)
    assert np.isnan(first.mass[~inputs.fake]).all()
    assert (first.hits[~inputs.fake] == -1).all()


def test_the_control_is_given_no_region_of_untouched_pictures():
    inputs = toy(8)
    inputs = attrs.evolve(inputs, salient=np.ones_like(inputs.region))
    target = inputs.target("salient")
    assert (target[torch.from_numpy(inputs.fake)] == 1).all()
    assert (target[torch.from_numpy(~inputs.fake)] == 0).all()
    assert inputs.target("artifact").sum(dim=1)[torch.from_numpy(inputs.fake)].tolist() == [1.0] * 4


def test_the_reader_answers_off_its_class_token():
    torch.manual_seed(0)
    model = Reader(8, width=16, heads=2, depth=2).eval()
    tokens = torch.randn(3, 5, 8)
    out = model(tokens)
    assert out.shape == (3,)
    shuffled = tokens[:, [0, 3, 1, 4, 2]]
    torch.testing.assert_close(model(shuffled), out)


# -- table --------------------------------------------------------------------------------------------------------


def runs(right, mass):
    """Two pictures of each kind: inpainted by held-out tools, untouched, inpainted by tools of the fit."""
    fake = np.array([1, 1, 0, 0, 1, 1], bool)
    sign = np.where(fake, 1.0, -1.0)[:, None]
    logit = np.repeat(sign, 2, axis=1)
    logit[~np.array(right)] *= -1
    hits = np.tile(np.array([1, 1, 2]), (6, 2, 1))
    hits[~fake] = -1
    masses = np.full((6, 2), np.nan)
    masses[fake] = mass
    return Answers(logit=logit.astype(np.float32), mass=masses.astype(np.float32), hits=hits, explained=2 * hits)


def test_the_table_by_hand():
    fake = np.array([1, 1, 0, 0, 1, 1], bool)
    held_out = np.array([1, 1, 1, 1, 0, 0], bool)
    all_right = runs([True] * 6, 0.5)
    half = runs([True, False, True, True, False, False], 0.25)
    out = table({NONE: [half, half], "aligned": [all_right, all_right]}, fake, held_out, draws=200)
    assert out["aligned"]["accuracy_flipped"]["value"] == 1
    assert out[NONE]["accuracy_flipped"]["value"] == 0.75
    assert out[NONE]["accuracy_seen_flipped"]["value"] == 0.5
    assert out[NONE]["iou"]["value"] == out[NONE]["iou_relevance"]["value"] == 0.25
    assert out["aligned"]["mass"]["difference"] == 0.25
    assert out["aligned"]["mass"]["difference_interval"] == [0.25, 0.25]
    low, high = out["aligned"]["accuracy_flipped"]["difference_interval"]
    assert 0 <= low <= 0.25 <= high <= 0.5
    assert out[NONE]["auc_flipped"]["difference"] == 0
    assert out[NONE]["auc_flipped"]["value"] == 0.75
    assert out[NONE]["empty"]["value"] == 0
    text = markdown(out, small(), {"n_fit": 6, "n_test": 4, "n_seen": 2, "share": 0.1, "seeds": 2})
    assert "| aligned | 0.500 (0.500 to 0.500)" in text
    assert "+0.250 (+0.250 to +0.250)" in text


def test_maps_that_are_empty_are_counted_and_have_no_mass():
    fake = np.array([1, 1, 0, 0, 1, 1], bool)
    some, none = runs([True] * 6, 0.5), runs([True] * 6, np.nan)
    some.mass[0] = np.nan
    out = table({NONE: [some, none]}, fake, np.array([1, 1, 1, 1, 0, 0], bool), draws=30)[NONE]
    assert out["mass"]["value"] == 0.5
    assert out["empty"]["value"] == 0.75
    dead = table({NONE: [none]}, fake, np.array([1, 1, 1, 1, 0, 0], bool), draws=30)[NONE]
    assert dead["mass"]["value"] is dead["mass"]["interval"] is None


def test_a_cue_that_is_all_a_model_knows_turns_against_it():
    fake = np.array([1, 1, 0, 0, 1, 1], bool)
    blind = runs([True] * 6, 0.5)
    blind.logit[:, 0], blind.logit[:, ON] = -1, 1
    out = table({NONE: [blind]}, fake, np.array([1, 1, 1, 1, 0, 0], bool), draws=10)[NONE]
    assert out["accuracy_with_cue"]["value"] == 1
    assert out["accuracy_flipped"]["value"] == 0
    assert out["auc_flipped"]["value"] == 0


# -- command ------------------------------------------------------------------------------------------------------


def tiny_tower(file):
    torch.manual_seed(0)
    tower = ClipTower(depth=1, width=64, patch=8, size=SIDE, projection=4)
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.1)
    save_file(tower.state_dict(), file)
    return file


def test_the_command_writes_the_table_and_goes_on(tmp_path):
    import typer

    app = typer.Typer()
    app.command()(command)
    changes = attrs.asdict(small(seeds=1))
    arguments = ["--forged", str(forged(tmp_path / "f")), "--tower", str(tiny_tower(tmp_path / "t.safetensors"))]
    arguments += ["--out", str(tmp_path / "out"), "--setting"]
    first = CliRunner().invoke(app, [*arguments, json.dumps(changes)])
    assert first.exit_code == 0, first.output
    report = json.loads((tmp_path / "out" / "table.json").read_text())
    assert set(report["arms"]) == {
        NONE,
        "artifact, lambda 0.4, beta 5",
        "artifact, lambda 0.4, beta 5, own maximum",
        "salient, lambda 0.4, beta 5",
    }
    assert report["facts"]["seeds"] == 1
    done = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.npz")}
    second = CliRunner().invoke(app, [*arguments, json.dumps(changes | {"seeds": 2})])
    assert second.exit_code == 0, second.output
    assert all(p.stat().st_mtime_ns == when for p, when in done.items())
    assert json.loads((tmp_path / "out" / "table.json").read_text())["facts"]["seeds"] == 2
    missing = [a if a != str(tmp_path / "t.safetensors") else str(tmp_path / "no.safetensors") for a in arguments]
    none = CliRunner().invoke(app, [*missing, json.dumps(changes)])
    assert none.exit_code == 2
    assert "does not hold a CLIP image tower" in none.output
    bad = CliRunner().invoke(app, [*arguments, '{"smell": 1}'])
    assert bad.exit_code == 2
    assert "--setting takes" in bad.output
    late = CliRunner().invoke(app, [*arguments, json.dumps(changes | {"epochs": 2}), "--minutes", "0"])
    assert late.exit_code == 1
    assert "no seed is complete" in late.output


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cue": "smell"}, "tone, jpeg"),
        ({"held_out": ("one",)}, "tools that are not among"),
        ({"agreement": 0.2}, "a share in"),
        ({"seeds": 0}, "at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(SettingError, match=words):
        small(**changes)


def test_arms_are_the_grid():
    names = [a.name for a in Setting().arms()]
    assert names[0] == NONE
    assert len(set(names)) == len(names) == 11
    assert "artifact, lambda 0.4, beta 0.1" in names
    assert names[-1] == "salient, lambda 0.4, beta 5"
