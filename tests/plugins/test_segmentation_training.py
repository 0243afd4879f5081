"""Data, augmentation, the training loop, the ablations' configuration and export."""

import csv
import json

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tellsign.errors import SettingError
from tellsign.plugins.segmentation.model import GammaConfig, GammaOutput
from tellsign.plugins.segmentation.training import ablate, calibrate, export, levels
from tellsign.plugins.segmentation.training import train as training
from tellsign.plugins.segmentation.training.alarms import alarmed
from tellsign.plugins.segmentation.training.augment import augment, centre_crop, pad, random_crop
from tellsign.plugins.segmentation.training.data import (
    ForgedRow,
    Sample,
    balanced,
    few,
    hold_out,
    load,
    read_forged,
    without_tools,
)
from tellsign.plugins.segmentation.training.flushing import flushing
from tellsign.plugins.segmentation.training.metrics import Counts
from tellsign.plugins.segmentation.training.recipe import Recipe
from tellsign.plugins.segmentation.training.train import EarlyStopping, Plan, class_of, train, validate
from tellsign.weights.files import declare

TINY = Recipe(
    model=GammaConfig(encoder="mit-b0", width=16, heads=2, residual=0),
    side=64,
    batch=4,
    epochs=2,
    share=0.5,
    validation=0.3,
    patience=0,
    warmup=1,
)


@pytest.fixture
def forged(toys, tmp_path):
    return toys.draw_forged(tmp_path / "forged")


def sample(height=90, width=70, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    mask[20:50, 15:40] = 1
    pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    pixels[..., 0] = 255 * mask
    return Sample(pixels, mask, mask)


# -- reading ------------------------------------------------------------------------------------------------------


def test_what_each_kind_teaches(forged):
    rows = {r.kind: r for r in read_forged(forged)}
    means = {k: tuple(float(m.mean()) for m in (load(r).ai, load(r).manipulation)) for k, r in rows.items()}
    assert means["untouched"] == (0, 0)
    assert means["generated"] == (1, 0)
    assert means["copymove"][0] == 0 < means["copymove"][1] < 1
    assert means["blend"][0] == means["blend"][1] > 0
    # Moved pixels are real ones (GAMMA, Table 1).
    assert {k: r.cls for k, r in rows.items()} == {"untouched": 0, "copymove": 0, "blend": 1, "generated": 1}
    assert [r.kind for r in rows.values() if not r.ma_counts] == ["generated"]
    assert [rows[k].made_by for k in ("untouched", "blend", "generated")] == ["untouched", "blend/blur", "generated"]


def test_a_folder_without_a_manifest_or_with_a_wrong_mask_says_so(forged, tmp_path):
    with pytest.raises(SettingError, match=r"manifest\.csv"):
        read_forged(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.csv").write_text("id,path\n")
    with pytest.raises(SettingError, match="ai_mask"):
        read_forged(other)
    rows = read_forged(forged)
    wrong = attrs.evolve(rows[0], ai_mask=forged / "masks" / "tiny.png")
    from PIL import Image

    Image.new("L", (3, 3)).save(wrong.ai_mask)
    with pytest.raises(SettingError, match="mask"):
        load(wrong)


def row(kind="blend", tool="t", group="g", source="s", **more):
    told = {"id": "1", "path": "p", "cls": 1, "ai_mask": "", "ma_mask": "", "ai_counts": True, "ma_counts": True}
    return ForgedRow(**{**told, "kind": kind, "tool": tool, "group": group, "source": source, **more})


def test_no_group_both_trains_and_validates():
    rows = [row(group=f"g{i % 40}") for i in range(200)]
    fit, validation = hold_out(rows, 0.3)
    assert len(fit) + len(validation) == 200
    assert 0.1 < len(validation) / 200 < 0.5
    assert not {r.group for r in fit} & {r.group for r in validation}


def test_leaving_a_tool_out():
    rows = [row("blend", "migan"), row("blend", "taef1"), row("generated", "muse"), row("untouched", "")]
    assert [r.tool for r in without_tools(rows, ["migan"])] == ["taef1", "muse", ""]
    assert [r.tool for r in without_tools(rows, ["blend/taef1", "generated"])] == ["migan", ""]


def test_kinds_are_drawn_alike_and_untouched_as_asked():
    rows = [row("untouched", "")] * 7 + [row("blend", "a")] * 90 + [row("blend", "b")] * 10 + [row("splice", "c")] * 5
    p = balanced(rows, 0.4)
    assert p.sum() == pytest.approx(1)
    assert p[:7].sum() == pytest.approx(0.4)
    assert p[7:107].sum() == pytest.approx(0.3)
    assert p[7:97].sum() == pytest.approx(p[97:107].sum())


def test_an_emphasis_makes_a_kind_more_frequent_and_untouched_stay_as_asked():
    rows = [row("untouched", "")] * 7 + [row("blend", "a")] * 90 + [row("splice", "c")] * 5
    p = balanced(rows, 0.4, {"blend": 3.0})
    assert p[:7].sum() == pytest.approx(0.4)
    assert p[7:97].sum() == pytest.approx(3 * p[97:].sum())


def test_a_few_of_each_kind_and_tool():
    rows = [row("blend", "a")] * 9 + [row("blend", "b")] * 2 + [row("untouched", "")] * 5
    assert [r.tool for r in few(rows, 3)] == ["a"] * 3 + ["b"] * 2 + [""] * 3
    assert few(rows, 0) == rows


@pytest.mark.parametrize(
    ("kind", "moved", "expected"), [("copymove", (0, 1), 0.0), ("splice", (0, 1), 1.0), ("copymove", (1, 0), 1.0)]
)
def test_the_class_of_moved_pictures_is_the_recipes(kind, moved, expected):
    recipe = attrs.evolve(TINY, moved_cls=moved)
    ones = np.ones((8, 8), np.uint8)
    assert class_of(row(kind, cls=0), Sample(np.zeros((8, 8, 3), np.uint8), 0 * ones, ones), recipe) == expected


def test_a_crop_beside_the_region_is_no_example_of_the_class():
    nothing, some = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    some[:8, :8] = 1
    pixels = np.zeros((64, 64, 3), np.uint8)
    assert class_of(row(), Sample(pixels, nothing, nothing), TINY) == 0
    assert class_of(row(), Sample(pixels, some, some), TINY) == 1
    assert class_of(row("untouched", cls=0), Sample(pixels, nothing, nothing), TINY) == 0


# -- crops --------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(40, 130), st.integers(40, 130))
def test_masks_follow_their_pictures(seed, height, width):
    """The picture's red channel is its mask; wherever crops and flips go, they go together."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 3 : 2 * width // 3] = 1
    pixels = np.repeat(255 * mask[..., None], 3, axis=2)
    out = augment(random_crop(Sample(pixels, mask, mask), 64, rng), rng)
    assert out.pixels.shape == (64, 64, 3)
    assert out.ai.shape == out.manipulation.shape == (64, 64)
    assert (out.ai == out.manipulation).all()
    if 0.02 < out.ai.mean() < 0.98:
        bright = out.pixels.mean(axis=2)
        assert bright[out.ai > 0].mean() > bright[out.ai == 0].mean() + 60


def test_the_same_seed_gives_the_same_crop():
    one, other = (
        augment(random_crop(sample(), 48, r), r) for r in (np.random.default_rng(3), np.random.default_rng(3))
    )
    assert (one.pixels == other.pixels).all()
    assert (one.ai == other.ai).all()


@pytest.mark.parametrize("side", [48, 100])
def test_a_native_lossless_crop_is_a_piece_of_the_picture(side):
    ys, xs = np.mgrid[:110, :120]
    pixels = np.stack([ys, xs, ys * 0], axis=-1).astype(np.uint8)
    mask = (xs > 60).astype(np.uint8)
    whole = Sample(pixels, mask, mask)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        out = augment(random_crop(whole, side, rng, native=1.0), rng, strength=0.0, lossless=1.0)
        assert out.pixels.shape == (side, side, 3)
        # Each pixel tells where it came from; the margin is mirrored.
        assert (np.abs(np.diff(out.pixels[..., 0].astype(int), axis=0)) <= 1).all()
        assert (out.ai == (out.pixels[..., 1] > 60)).all()


def test_crops_of_edited_pictures_mostly_show_the_edit():
    mask = np.zeros((400, 400), np.uint8)
    mask[10:40, 10:40] = 1
    big = Sample(np.zeros((400, 400, 3), np.uint8), mask, mask)
    shown = [random_crop(big, 64, np.random.default_rng(i)).ai.any() for i in range(60)]
    assert 0.7 < np.mean(shown) < 1


def test_a_small_picture_is_scaled_up_and_padded_by_one_pixel_only():
    """600 x 400 at 512, as GAMMA evaluates: the short side becomes 512, and what is cut off is the margin."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (400, 600, 3)).astype(np.uint8)
    mask = np.zeros((400, 600), np.uint8)
    mask[:200] = 1
    out = centre_crop(Sample(pixels, mask, mask), 512)
    assert out.pixels.shape == (512, 512, 3)
    assert out.ai.mean() == pytest.approx(0.5, abs=0.01)
    # Nothing is mirrored: rows one apart differ, which at the edge of a mirror they do not.
    assert (out.pixels[0] != out.pixels[1]).any()


def test_padding_is_one_pixel_and_more_where_a_picture_is_short():
    assert pad(sample(), 64).pixels.shape == (92, 72, 3)
    padded = pad(sample(30, 70), 64)
    assert padded.pixels.shape[0] >= 64
    assert padded.ai.shape == padded.pixels.shape[:2]


# -- stopping and recipes -----------------------------------------------------------------------------------------


def test_early_stopping_wants_more_than_delta_within_patience():
    stopping = EarlyStopping(delta=0.01, patience=2)
    assert [stopping.update(v) for v in (0.5, 0.509, 0.52, 0.525, 0.53)] == [False, False, False, False, True]
    assert stopping.best == 0.52
    never = EarlyStopping(delta=0.01, patience=0)
    assert not any(never.update(0.1) for _ in range(50))


def test_a_recipe_survives_json_and_refuses_what_it_does_not_know():
    recipe = Recipe.parse('{"rate": 0.001, "model": {"width": 32}, "weights": [2, 3, 1]}')
    assert (recipe.rate, recipe.model.width, recipe.loss_weights["ai"]) == (0.001, 32, 3)
    assert Recipe.parse(recipe.dump()) == recipe
    assert Recipe().loss_weights == {"cls": 2.0, "ai": 2.0, "manipulation": 1.0}
    for text in ('{"speed": 1}', '{"model": {"depth": 1}}', '{"monitor": "mood"}', '{"share": 0}', '{"parts": ["x"]}'):
        with pytest.raises(SettingError):
            Recipe.parse(text)


@pytest.mark.parametrize("config", [ablate.CONFIG, ablate.SMALL])
def test_every_row_of_the_ablations_is_a_recipe(config):
    told = ablate.recipes(config)
    assert {table for table, _ in told} == {"heads", "labels", "data", "loss", "attention"}
    assert told["attention", "none"].model.attention == "none"
    assert told["loss", "2-3-1"].loss_weights == {"cls": 2, "ai": 3, "manipulation": 1}
    assert told["labels", "copy-move 0, splicing 1"].moved_cls == (0, 1)
    assert set(ablate.recipes(config, "heads")) < set(told)
    with pytest.raises(SettingError, match="only"):
        ablate.recipes(config, "colours")


def test_the_small_ablations_train_every_row_for_as_many_steps():
    assert {(r.steps, r.epochs) for r in ablate.recipes(ablate.SMALL).values()} == {(60, 1)}


def test_rows_with_one_recipe_share_a_run_and_only_what_is_trained_is_told(toys, forged, tmp_path, monkeypatch):
    runs = []

    def trained(recipe, folders, out, imagenet=None):
        runs.append(out.name)
        assert folders == [forged]
        out.mkdir(parents=True)
        save_file(toys.tiny_model().state_dict(), out / "run.safetensors")
        return out / "run.safetensors"

    monkeypatch.setattr(ablate, "train", trained)
    monkeypatch.setattr(ablate, "build", lambda recipe, imagenet, initialise: toys.tiny_model())
    tables = {"heads": {"class": {"parts": ["cls"]}, "all": {}}, "loss": {"2-2-1": {"weights": [2, 2, 1]}}}
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"seeds": [0, 1], "crops": 2, "base": {"side": 64, "batch": 3}, "tables": tables}))
    told = ablate.ablate(config, [forged], forged, tmp_path / "out")
    assert runs == ["heads-class-0", "heads-class-1", "heads-all-0", "heads-all-1"]
    assert list(told) == ["heads: class", "heads: all", "loss: 2-2-1"]
    assert told["heads: class"]["AI AUC"] is None
    assert told["heads: all"] == told["loss: 2-2-1"]
    assert 0 < told["heads: all"]["manipulation AUC"]["mean"] < 1
    ablate.ablate(config, [forged], forged, tmp_path / "out")
    assert len(runs) == 4


def test_crops_are_measured_without_a_cut(forged):
    class Red(torch.nn.Module):
        """Marks what the toy forgeries are made of: it knows the truth of the rows in their order."""

        def __init__(self, truths):
            super().__init__()
            self.truths = iter(truths)

        def forward(self, pictures):
            ai, manipulation, cls = zip(*(next(self.truths) for _ in pictures), strict=True)
            both = [torch.from_numpy(np.stack(m).astype(np.float32))[:, None] * 0.01 - 9 for m in (ai, manipulation)]
            return GammaOutput(torch.tensor(cls, dtype=torch.float32)[:, None] - 9, *both)

    rows = read_forged(forged)
    crops = [centre_crop(load(r), 64) for r in rows]
    model = Red([(c.ai, 1 - c.manipulation, r.cls) for c, r in zip(crops, rows, strict=True)])
    told = ablate.on_crops(model, rows, attrs.evolve(TINY, batch=3))
    assert told == {"class AUC": 1.0, "AI AUC": 1.0, "manipulation AUC": 0.0}


def test_an_epoch_has_as_many_steps_as_asked(forged):
    rows = read_forged(forged)
    assert Plan(attrs.evolve(TINY, steps=7), rows).steps == 7
    assert Plan(TINY, rows).steps == max(1, round(0.5 * len(Plan(TINY, rows).fit) / 4))


# -- where the manipulation map is cut ------------------------------------------------------------------------------


def counted(level, source, edited=False, condition="native", seed=0):
    """A map of some level in log-odds, in which an edited quarter stands 4 higher."""
    heat = np.random.default_rng(seed).normal(level, 0.5, (24, 24))
    truth = np.zeros(heat.shape, bool)
    if edited:
        truth[:12, :12] = True
        heat[truth] += 4
    return levels.count(heat, truth, condition=condition, source=source, edited=edited)


def test_a_rule_is_judged_by_hand():
    still = levels.Rule(raised=0.5)
    judged = levels.judge(still, [counted(-3, "a", edited=True), counted(2, "a"), counted(-3, "b")])
    assert judged.p95 == {("native", "a"): pytest.approx(1, abs=0.02), ("native", "b"): 0}
    assert judged.median == pytest.approx(0.5, abs=0.02)
    right, marked, true = judged.counts["native", "a"]
    assert right == marked
    assert true == 144
    assert judged.f1("native", ["a", "b"]) == pytest.approx(2 * right / (marked + true))
    assert str(still) == "0.5"
    assert str(levels.Rule(0, 0.6, -1.75, 3)) == "3 x (quantile 0.6 +1.75)"


def test_a_cut_that_follows_the_level_finds_more_than_one_cut_for_all():
    maps = [counted(-3, "quiet", edited=True, seed=i) for i in range(4)]
    maps += [counted(-3, "quiet", seed=i) for i in range(4)] + [counted(0.5, "loud", seed=i) for i in range(4)]
    best = {}
    for name, rules in levels.FAMILIES.items():
        judged = {rule: levels.judge(rule, maps) for rule in rules}
        rule = levels.pick(judged, ["quiet", "loud"], ["native"], 0.05)
        best[name] = judged[rule].f1("native", ["quiet"])
        assert judged[rule].loudest("native", ["loud"]) <= 0.05
    assert best["own cut"] > best["one cut"]
    told = levels.compared(maps, ["native"]).splitlines()
    assert told[2].startswith("| as it was | - | 0 |")
    assert {line.split(" | ")[0] for line in told[3:]} == {"| one cut", "| own cut"}


def test_maps_are_counted_with_what_was_moved(forged):
    def forward(batch):
        shape = (len(batch), batch.shape[1] // 4, batch.shape[2] // 4, 2)
        return np.zeros(len(batch), np.float32), np.full(shape, 0.5, np.float32)

    maps = levels.counted(read_forged(forged), forward, ["native", "half"])
    assert {(m.condition, m.edited) for m in maps} == {(c, e) for c in ("native", "half") for e in (False, True)}
    zero = levels.Rule()
    assert all(m.marked[m.at(zero)] == (1 if not m.edited else m.marked[0]) for m in maps)
    assert all(0 < m.true < m.marked[0] for m in maps if m.edited)


# -- the loop -----------------------------------------------------------------------------------------------------


def run(toys, recipe, forged, out, seed=0):
    return train(recipe, [forged], out, model=toys.tiny_model(seed).train())


@pytest.fixture(autouse=True)
def judged_by_a_tiny_network(toys, monkeypatch):
    """What validates is built from the recipe; here it must be the tiny network."""
    monkeypatch.setattr(training, "GammaModel", lambda config: toys.tiny_model())


def test_each_epoch_draws_anew_and_the_same_for_the_same_seed(forged):
    plan, again = (Plan(TINY, read_forged(forged)) for _ in range(2))
    one, other = plan.batch(0, 0), again.batch(0, 0)
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    assert any((plan.batch(1, 0).pixels != one.pixels).ravel())
    assert not {r.group for r in plan.fit} & {r.group for r in plan.validation}


def test_a_recipe_that_leaves_nothing_is_refused(forged):
    everything = ("untouched", "blend", "copymove", "generated")
    with pytest.raises(SettingError, match="recipe"):
        Plan(attrs.evolve(TINY, without=everything), read_forged(forged))


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(toys, forged, tmp_path):
    whole = load_file(run(toys, TINY, forged, tmp_path / "whole"))
    cut = tmp_path / "cut"

    class StopError(Exception):
        pass

    original = training._Run._epoch

    def once(self):
        if self.epoch == 1:
            raise StopError
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training._Run, "_epoch", once)
        with pytest.raises(StopError):
            run(toys, TINY, forged, cut)
    resumed = load_file(run(toys, TINY, forged, cut, seed=9))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, msg=name)
    lines = list(csv.DictReader((cut / "curve.csv").open()))
    assert [line["epoch"] for line in lines] == ["1", "2"]
    assert all(line["accuracy"] for line in lines)


def test_early_stopping_ends_a_run_and_keeps_the_best(toys, forged, tmp_path, monkeypatch):
    told = iter([0.5, 0.9, 0.6, 0.6, 0.6, 0.6])
    names = ("accuracy", "f1_ai", "f1_manipulation", "score")
    monkeypatch.setattr(training, "validate", lambda *a: dict.fromkeys(names, next(told)))
    recipe = attrs.evolve(TINY, epochs=6, patience=2, share=0.3)
    done = run(toys, recipe, forged, tmp_path / "run")
    assert done.is_file()
    assert [line["accuracy"][:3] for line in csv.DictReader((tmp_path / "run" / "curve.csv").open())] == [
        "0.5",
        "0.9",
        "0.6",
        "0.6",
    ]
    # Called again, a run that has ended does nothing more.
    before = done.read_bytes()
    run(toys, recipe, forged, tmp_path / "run")
    assert len(list(csv.DictReader((tmp_path / "run" / "curve.csv").open()))) == 4
    assert done.read_bytes() == before


@pytest.mark.slow
def test_eight_pictures_can_be_learned_by_heart(toys, tmp_path):
    """IoU above .9 and every class right, on the pictures themselves."""
    folder = toys.draw_forged(tmp_path / "forged", side=96, seed=2)
    rows = read_forged(folder)
    samples = [centre_crop(load(r), 96) for r in rows]
    batch = training.stack(rows, samples, TINY)
    torch.manual_seed(0)
    model = toys.tiny_model().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    pixels, *targets = training.tensors(batch, torch.device("cpu"))
    told = {}
    for step in range(600):
        parts = training.gamma_loss(model(pixels), *targets)
        optimiser.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        optimiser.step()
        if step % 50 == 49:
            told = validate(model, [batch], torch.device("cpu"))
            f1 = min(told["f1_ai"], told["f1_manipulation"])
            if f1 / (2 - f1) > 0.9 and told["accuracy"] == 1:
                break
    assert told["accuracy"] == 1
    for name in ("f1_ai", "f1_manipulation"):
        assert told[name] / (2 - told[name]) > 0.9, told


# -- export -------------------------------------------------------------------------------------------------------


def test_export_is_half_precision_with_its_recipe_and_hash(toys, forged, tmp_path):
    run(toys, attrs.evolve(TINY, epochs=1), forged, tmp_path / "run")
    (tmp_path / "plugin").mkdir()
    declaration = tmp_path / "plugin" / "tellsign.json"
    declaration.write_text('{"weights": []}')
    file = export.export(tmp_path / "run", tmp_path / "plugin" / "weights", version="1.2.3")
    declare([file], declaration)
    (told,) = json.loads(declaration.read_text())["weights"]
    assert (told["file"], told["size"]) == ("weights/gamma.safetensors", file.stat().st_size)
    from safetensors import safe_open

    with safe_open(file, "pt") as handle:
        notes = handle.metadata()
    assert notes["version"] == "1.2.3"
    assert json.loads(notes["recipe"])["side"] == 64
    assert {v.dtype for v in load_file(file).values()} <= {torch.float16, torch.int64}


def test_a_network_too_large_to_ship_is_refused(tmp_path, monkeypatch, toys, forged):
    run(toys, attrs.evolve(TINY, epochs=1), forged, tmp_path / "run")
    monkeypatch.setattr(export, "LARGEST", 1000)
    with pytest.raises(SettingError, match="half precision"):
        export.export(tmp_path / "run", tmp_path, version="1")


# -- where masks are cut ------------------------------------------------------------------------------------------


def test_the_cut_is_the_best_among_the_quiet_ones():
    cuts = calibrate.LOGITS
    counts = [[Counts(8, 2, 2) if x == -1 else Counts(6, 4, 4) if x == 1 else Counts(1, 9, 9) for x in cuts]]
    quiet = np.zeros((3, len(cuts)))
    assert calibrate.best(counts, quiet)["shift"] == 1
    # At -1 every untouched picture is marked all over, so the next best cut is taken.
    loud = np.array([[1.0 if x <= -1 else 0.0 for x in cuts]] * 3)
    told = calibrate.best(counts, loud)
    assert (told["shift"], told["f1"]) == (-1, pytest.approx(0.6))
    assert calibrate.best(counts, np.ones((3, len(cuts))))["shift"] == -cuts[-1]


def test_a_shift_is_chosen_on_maps_and_moves_the_exported_masks(toys, forged, tmp_path):
    def faint(batch):
        """Marks what is smooth, as the drawn edits are, with probabilities far below .5."""
        grey = batch.astype(float).mean(axis=3)
        rough = np.abs(np.diff(grey, axis=2, append=grey[:, :, -1:]))
        cells = rough.reshape(len(batch), batch.shape[1] // 4, 4, batch.shape[2] // 4, 4).mean(axis=(2, 4))
        p = np.where(cells < 2, 0.2, 0.05)
        return np.zeros(len(batch), np.float32), np.stack([p, p], axis=-1).astype(np.float32)

    told = calibrate.choose(read_forged(forged), faint, ("native",))
    assert 1.5 <= told["ai"]["shift"] <= 2.75
    assert told["ai"]["f1"] > 0.6
    run(toys, attrs.evolve(TINY, epochs=1), forged, tmp_path / "run")
    plain = load_file(export.export(tmp_path / "run", tmp_path / "plain", version="1"))
    (tmp_path / "run" / calibrate.FILE).write_text(json.dumps(told))
    moved = load_file(export.export(tmp_path / "run", tmp_path / "moved", version="1"))
    name = "decoders.ai.mask.bias"
    assert float(moved[name] - plain[name]) == pytest.approx(told["ai"]["shift"], abs=0.01)
    assert all(torch.equal(moved[k], plain[k]) for k in plain if not k.endswith("mask.bias"))


def test_a_path_that_finds_nothing_is_silenced():
    chosen = {"ai": {"shift": -1.5, "f1": 0.02}, "manipulation": {"shift": 0.5, "f1": 0.4}}
    assert calibrate.heard(chosen) == {"ai": calibrate.SILENCE, "manipulation": 0.5}


def test_merging_keeps_both_paths_and_moves_each_by_its_own_shift(tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "run").mkdir()
    biases = {f"decoders.{name}.mask.bias": torch.zeros(1) for name in ("ai", "manipulation")}
    save_file(biases | {"head.weight": torch.ones(2)}, tmp_path / "run" / "run.safetensors")
    save_file(biases | {"trace.steps.0.0.weight": torch.ones(3)}, tmp_path / "trace.safetensors")
    recipe = attrs.evolve(TINY, model=attrs.evolve(TINY.model, trace=12))
    shifts = ({"ai": -30.0, "manipulation": 1.0}, {"ai": 2.0, "manipulation": 3.0})
    export.merge(recipe, tmp_path / "run", tmp_path / "trace.safetensors", tmp_path / "both", shifts)
    told = {k: float(v.mean()) for k, v in load_file(tmp_path / "both" / "run.safetensors").items()}
    assert told == {
        "decoders.ai.mask.bias": -30,
        "decoders.manipulation.mask.bias": 1,
        "traces.decoders.ai.mask.bias": 2,
        "traces.decoders.manipulation.mask.bias": 3,
        "head.weight": 1,
        "traces.trace.steps.0.0.weight": 1,
    }
    assert Recipe.read(tmp_path / "both").model.trace == 12
    # What calibration finds for both together moves both, and `merge` can start from a merged run again.
    assert (
        float(
            export.shifted(biases | {"traces.decoders.ai.mask.bias": torch.ones(1)}, {"ai": 1.0})[
                "traces.decoders.ai.mask.bias"
            ]
        )
        == 2
    )


def test_alarms_are_counted_once_a_picture_and_by_what_it_is(tmp_path):
    table = tmp_path / "fuse.csv"
    table.write_text(
        "segmentation.manipulation_top,label,group,source,tampered\n"
        ".96,0,a,phone,0\n.96,0,a,phone,0\n.2,0,b,phone,0\n.3,0,c,stock,0\n.99,0,b,phone,1\n.95,1,d,sdxl,-1\n,1,e,sdxl,-1\n"
    )
    assert alarmed(table, 0.95) == {
        "phone": (1, 2),
        "photographs, all": (1, 3),
        "stock": (0, 1),
        "tampered with by hand": (1, 1),
        "generated": (1, 1),
    }
    table.write_text("label\n0\n")
    with pytest.raises(ValueError, match="manipulation_top"):
        alarmed(table, 0.95)


def test_numbers_near_zero_are_flushed_for_a_training_and_no_longer():
    least = torch.tensor([torch.finfo(torch.float32).tiny])
    with pytest.raises(KeyError), flushing():
        raise KeyError
    assert (least / 2).item() > 0
