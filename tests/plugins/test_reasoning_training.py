"""ReAlign's losses, a step, and what is left of a run, on a tiny tower."""

import json
import math
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch.nn import functional as F

from tellsign.data.balance import folds
from tellsign.data.squares import Squares
from tellsign.errors import SettingError
from tellsign.plugins.reasoning.bank import PRECISION, Bank
from tellsign.plugins.reasoning.model import qkv_updates
from tellsign.plugins.reasoning.training import ablation, crossfit, diagnostics, export, finish, small, tokens
from tellsign.plugins.reasoning.training import train as training
from tellsign.plugins.reasoning.training.facts import Facts
from tellsign.plugins.reasoning.training.losses import contrastive, total
from tellsign.plugins.reasoning.training.lowrank import class_token, freeze
from tellsign.plugins.reasoning.training.precision import halves, least_threshold_for, make_bank, measure
from tellsign.plugins.reasoning.training.statements import STATEMENTS, Statement
from tellsign.plugins.reasoning.training.text import MiniLm, TextEncoder
from tellsign.plugins.reasoning.training.tokens import Shown, TokenStore
from tellsign.plugins.reasoning.training.train import Inputs, Lesson, Recipe, apply, facts_of, lesson, train
from tellsign.plugins.reasoning.weights_files import load_bank, load_student, load_tower_model
from tellsign.towers import ClipTower, SemanticPass, run_blocks
from tellsign.towers.lite import FEATURES, LiteTrunk
from tellsign.weights.files import declare

# -- losses -----------------------------------------------------------------------------------------------------------


def test_the_golden_contrastive_loss():
    v = torch.eye(2)
    t = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), dim=1)
    assert contrastive(v, t).item() == pytest.approx(0.491157, abs=1e-6)
    i2t = F.cross_entropy(v @ t.T, torch.arange(2)).item()
    assert i2t == pytest.approx(0.479110, abs=1e-6)
    assert 2 * 0.491157 - i2t == pytest.approx(0.503204, abs=2e-6)


def test_three_by_hand():
    rng = np.random.default_rng(0)
    v, t = (rng.normal(size=(3, 4)) for _ in range(2))
    s = v @ t.T
    rows = [-s[i, i] + math.log(np.exp(s[i]).sum()) for i in range(3)]
    columns = [-s[i, i] + math.log(np.exp(s[:, i]).sum()) for i in range(3)]
    want = (np.mean(rows) + np.mean(columns)) / 2
    assert contrastive(torch.tensor(v), torch.tensor(t)).item() == pytest.approx(want)


@given(st.integers(2, 40), st.floats(0.1, 20))
def test_equal_vectors_give_log_n(n, scale):
    v = F.normalize(torch.ones(n, 5), dim=1)
    assert contrastive(v, v, scale).item() == pytest.approx(math.log(n), abs=1e-4)


def test_it_is_symmetric_and_weighs_the_label_eight_times():
    v, t = (F.normalize(torch.randn(6, 5), dim=1) for _ in range(2))
    assert contrastive(v, t, 3.0).item() == pytest.approx(contrastive(t, v, 3.0).item(), abs=1e-6)
    assert total(torch.tensor(1.5), torch.tensor(0.25)).item() == 3.5
    with pytest.raises(ValueError, match="one shape"):
        contrastive(v, t[:3])


def test_without_a_temperature_unit_vectors_cannot_fall_below_the_simplex():
    n = 32
    simplex = F.normalize(torch.eye(n) - 1 / n, dim=1)
    assert contrastive(simplex, simplex).item() == pytest.approx(2.49, abs=0.01)


def test_equal_texts_may_belong_together():
    v = torch.eye(4)[[0, 0, 1, 2]]
    same = v @ v.T > 1 - 1e-6
    # Two pictures share a text: neither can be told from the other, and log 2 of each is no error.
    assert contrastive(v, v, 50.0).item() == pytest.approx(math.log(2) / 2, abs=1e-4)
    assert contrastive(v, v, 50.0, same).item() == pytest.approx(math.log(2) / 2, abs=1e-4)
    apart = torch.eye(4)[[0, 3, 1, 2]]
    assert contrastive(v, v, 5.0, same) < contrastive(apart, v, 5.0, same)


# -- a tiny store of tokens -------------------------------------------------------------------------------------------


class Words(TextEncoder):
    """Counts letters: an encoder that needs no file, with a weight that must not move."""

    joint, name, dim = False, "words", 26

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(26))
        self.freeze()

    def count(self, text):
        return len(text.split())

    def embed(self, texts):
        rows = [[t.lower().count(chr(97 + i)) + 1e-3 for i in range(26)] for t in texts]
        return torch.tensor(rows) * self.scale


@pytest.fixture(scope="module")
def tower(make_tower):
    return ClipTower.from_state_dict(make_tower()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def folder(tower, tmp_path_factory):
    """Stores of fit and fuse: what is made is redder, topics are shapes, eight sources."""
    root, rng = tmp_path_factory.mktemp("work"), np.random.default_rng(0)

    def pictures(split, count):
        for i in range(count):
            y, source = i % 2, f"{i % 2}{(i // 2) % 4}"
            x = rng.integers(0, 120, (64, 64, 3))
            x[..., 0] += 70 * y
            x[(i % 3) * 20 : (i % 3) * 20 + 20] += 60
            kind, region = ("blend", "on the left") if split == "fit" and i % 10 == 9 else ("", "")
            yield Shown(
                square=np.clip(x, 0, 255).astype(np.uint8),
                label=y,
                source=source,
                content="photo" if not y else "generated",
                group=str(i),
                split=split,
                kind=kind,
                region=region,
                share=0.2 if kind else 0.0,
            )

    for name, split, count in (("fit", "fit", 80), ("fuse", "fuse", 48)):
        done = tokens.write(pictures(split, count), count, tower, root / name, keep=(1, 2), batch=7)
        assert done == count
    return root


@pytest.fixture(scope="module")
def bench(folder, tower):
    return ablation.Bench(folder, tower, Words())


SMALL = {"last": 3, "blocks": 1, "epochs": 2, "batch": 16, "hidden": 16, "texts": 2}


def test_the_store_holds_what_the_tower_computes(folder, tower):
    store = TokenStore.read(folder / "fit")
    classes, kept = run_blocks(tower, np.asarray(store.squares[:5]), (1, 2))
    np.testing.assert_allclose(store.classes[:5], classes.half().numpy(), atol=2e-2)
    np.testing.assert_allclose(store.after(2)[:5], kept[2].half().numpy(), atol=2e-2)
    assert set(store.kind) == {"", "blend"}
    facts = facts_of(store)
    assert facts[9] == Facts(fake=True, kind="blend", region="on the left", share=0.2, look=facts[9].look)
    assert facts[0].content == "photo"
    assert facts[1].content == ""


# -- a step -----------------------------------------------------------------------------------------------------------


def run(bench, tower, **changes):
    recipe = Recipe(**(SMALL | changes))
    rows = np.arange(len(bench.fit))
    student, curve = train(tower, bench.fit, rows, bench.lesson(recipe), recipe, weight=bench.weight(rows))
    return recipe, student, curve


def test_only_updates_projection_and_head_change(bench, tower):
    before = {k: v.clone() for k, v in bench.encoder.state_dict().items()}
    base = {k: v.clone() for k, v in tower.state_dict().items()}
    torch.manual_seed(0)
    fresh = training.Student(tower, Recipe(**SMALL), text_dim=26, joint=False)
    _, student, curve = run(bench, tower)
    assert {k: torch.equal(v, before[k]) for k, v in bench.encoder.state_dict().items()} == dict.fromkeys(before, True)
    assert all(p.grad is None for p in bench.encoder.parameters())
    assert all(torch.equal(v, base[k]) for k, v in tower.state_dict().items())
    after = dict(student.named_parameters())
    moved = {n.split(".")[0] for n, p in fresh.named_parameters() if not torch.equal(p, after[n])}
    assert moved == {"lora", "text_projection", "head"}
    assert curve[-1]["bce"] > 0


def test_before_the_first_step_the_model_is_the_tower(bench, tower):
    recipe = Recipe(**SMALL)
    student = training.Student(tower, recipe, text_dim=26, joint=False)
    rows = np.arange(6)
    v, _ = apply(student, Inputs(bench.fit, recipe, tower), rows)
    plain = F.normalize(tower.ln_post(torch.from_numpy(bench.fit.classes[rows, 2]).float()) @ tower.proj, dim=1)
    torch.testing.assert_close(v, plain, atol=3e-2, rtol=3e-2)  # the blocks run in bfloat16


def test_attention_without_the_updated_keys_is_attention_with_them(tower):
    """The quick form of a step gives what the block gives, and the same gradients."""
    block = tower.transformer.resblocks[2]
    x = torch.randn(3, 17, 64)
    grads = []
    for quick in (False, True):
        torch.manual_seed(0)
        lora = qkv_updates(64, 3, 3, rank=2, alpha=4.0)
        with torch.no_grad():
            lora.up["3/attn/in_proj"].normal_()
        out = class_token(block, freeze(block, x), lora, "3") if quick else block.class_token(x, lora, "3")
        out.square().sum().backward()
        grads.append((out.detach(), *(p.grad for p in lora.parameters())))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    plain = class_token(block, freeze(block, x).take(torch.tensor([2, 0])), None, "3")
    torch.testing.assert_close(plain, block.class_token(x[[2, 0]], None, "3"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "moving"),
    [
        ({"mode": "bce"}, {"lora", "head"}),
        ({"mode": "bce", "tuned": "frozen", "blocks": 0, "last": 2}, {"head"}),
        ({"tuned": "full"}, {"blocks", "text_projection", "head"}),
        ({"mode": "sequential"}, {"lora", "text_projection", "head"}),
        ({"blocks": 2}, {"lora", "text_projection", "head"}),
        ({"last": 2, "positives": True}, {"lora", "text_projection", "head"}),
        ({"scale": 0.0}, {"lora", "text_projection", "head", "log_scale"}),
        ({"forged": True, "text": "caption"}, {"lora", "text_projection", "head"}),
    ],
)
def test_every_way_of_training_changes_what_it_should(bench, tower, changes, moving):
    recipe, student, curve = run(bench, tower, **changes)
    torch.manual_seed(0)
    fresh = training.Student(tower, recipe, text_dim=26, joint=False)
    after = dict(student.named_parameters())
    moved = {n.split(".")[0] for n, p in fresh.named_parameters() if not torch.equal(p, after[n])}
    assert moved == moving
    assert all(np.isfinite(list(c.values())).all() for c in curve)
    assert len(curve) == recipe.epochs * (2 if recipe.mode == "sequential" else 1)


def test_sequential_training_leaves_the_image_alone_in_its_second_half(bench, tower):
    _, student, curve = run(bench, tower, mode="sequential", epochs=3)
    tail = [c["contrastive"] for c in curve[3:]]
    assert max(tail) - min(tail) < 0.2
    assert student.head.second.weight.abs().sum() > 0


def test_one_seed_gives_one_model(bench, tower):
    first, second = (run(bench, tower)[1] for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    "wrong",
    [{"text": "poem"}, {"mode": "both"}, {"tuned": "some"}, {"blocks": 9, "last": 8}, {"blocks": 0}],
)
def test_recipes_that_are_none_are_refused(wrong):
    with pytest.raises(SettingError):
        Recipe(**wrong)


def test_texts_teach_what_a_spurious_cue_hides():
    """Joint training beats the label alone where a cue agrees with the label throughout training and never afterwards.

    A picture is the strength of its evidence, from which the label follows, and a cue. Its text tells how strong the
    evidence is, and the embedding has no room for both.
    """
    torch.manual_seed(0)
    evidence = torch.rand(400) * 2 - 1
    evidence = evidence + 0.15 * evidence.sign()
    label = (evidence > 0).float()
    texts = torch.stack([torch.cos(1.3 * evidence), torch.sin(1.3 * evidence)], dim=1)

    def pictures(cue):
        return torch.stack([evidence, cue], dim=1) + 0.1 * torch.randn(400, 2)

    seen, flipped = pictures(2 * label - 1), pictures(1 - 2 * label)
    right = {}
    for joint in (True, False):
        torch.manual_seed(1)
        image = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
        head = torch.nn.Linear(2, 1)
        optimiser = torch.optim.AdamW([*image.parameters(), *head.parameters()], lr=1e-2)
        for _ in range(300):
            part = torch.randint(400, (64,))
            v = F.normalize(image(seen[part]), dim=1)
            bce = F.binary_cross_entropy_with_logits(head(v)[:, 0], label[part])
            loss = total(contrastive(v, texts[part], 30.0), bce) if joint else bce
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.inference_mode():
            said = head(F.normalize(image(flipped), dim=1))[:, 0] > 0
        right[joint] = (said == (label == 1)).float().mean().item()
    assert right[True] > right[False] + 0.2


# -- export -----------------------------------------------------------------------------------------------------------


def shipped(bench, tower, tmp_path, **changes):
    recipe, student, _ = run(bench, tower, **changes)
    model = export.tower_model(student, recipe, tower, slope=2.0, threshold=0.5)
    bank, _ = make_bank(
        STATEMENTS, F.normalize(torch.randn(len(STATEMENTS), model.dim), dim=1), torch.randn(4, model.dim),
        [Facts(fake=True)] * 4, np.array(["a"] * 4),
    )  # fmt: skip
    return student, export.export_tower(model, bank, recipe, tmp_path, version="0.0.1", tower="t")


@pytest.mark.parametrize("last", [2, 3])
def test_what_ships_is_what_was_trained_without_any_text(bench, tower, tmp_path, last, monkeypatch):
    student, file = shipped(bench, tower, tmp_path, last=last)
    with safe_open(file, "pt") as handle:
        names = set(handle.keys())
    assert not [n for n in names if "text" in n]
    assert {n.split(".")[0] for n in names} == {"lora", "head", "mean", "std", "bank"}
    # From here on no tokenizer and no text encoder can be had.
    for gone in ("transformers", "tokenizers", "open_clip"):
        monkeypatch.setitem(__import__("sys").modules, gone, None)
    model = load_tower_model(file)
    rows = np.arange(8)
    inputs = Inputs(bench.fit, Recipe(**(SMALL | {"last": last})), tower)
    v, raw = apply(student, inputs, rows)
    passed = [SemanticPass(torch.zeros(3, 64), torch.from_numpy(t).float()) for t in bench.fit.after(last - 1)[rows]]
    with torch.inference_mode():
        again = model.embed(tower, passed)
        torch.testing.assert_close(again, v, atol=3e-2, rtol=3e-2)
        torch.testing.assert_close(model.head(again), 2.0 * (raw - 0.5), atol=8e-2, rtol=8e-2)


def test_a_run_without_updates_does_not_ship(bench, tower):
    recipe, student, _ = run(bench, tower, tuned="frozen", mode="bce")
    with pytest.raises(ValueError, match="low-rank"):
        export.tower_model(student, recipe, tower, slope=1.0, threshold=0.0)


def test_the_threshold_lets_a_twentieth_of_every_real_source_pass():
    raw = torch.arange(200).float()
    label = np.array([0] * 100 + [1] * 100)
    source = np.array(["a"] * 60 + ["b"] * 40 + ["c"] * 100)
    threshold = export.own_threshold(raw, label, source)
    for name in ("a", "b"):
        assert (raw.numpy()[(label == 0) & (source == name)] > threshold).mean() <= 0.05


def test_hashes_are_declared(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.safetensors").write_bytes(b"abc")
    (tmp_path / "tellsign.json").write_text('{"name": "x", "weights": []}')
    declare([tmp_path / "weights" / "a.safetensors"], tmp_path / "tellsign.json")
    (told,) = json.loads((tmp_path / "tellsign.json").read_text())["weights"]
    assert (told["file"], told["size"]) == ("weights/a.safetensors", 3)
    assert told["sha256"].startswith("ba7816bf")


# -- the small model --------------------------------------------------------------------------------------------------


def test_the_small_model_learns_and_ships(tmp_path):
    rng = np.random.default_rng(0)
    label = np.arange(120) % 2
    x = rng.normal(size=(120, FEATURES)).astype(np.float16)
    x[:, :200] += label[:, None]
    texts = F.normalize(torch.randn(120, 2, 26), dim=2)
    recipe = small.SmallRecipe(dim=16, hidden=8, epochs=10, rate=1e-3, noise=0.1)
    model, projection = small.fit_with_projection(x, label.astype(float), texts, np.ones(120), recipe)
    with torch.inference_mode():
        raw = model.head.raw(model.embed(torch.from_numpy(x).float()))
    assert raw[label == 1].mean() > raw[label == 0].mean() + 0.2
    assert projection.weight.shape == (16, 26)
    again = small.fit_small(x, label.astype(float), texts, np.ones(120), recipe)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    file = export.export_student(LiteTrunk(), model, Bank.empty(16), attrs.asdict(recipe), tmp_path, version="0.0.1")
    assert file.stat().st_size < 12e6
    loaded = load_student(file)
    with torch.inference_mode():
        torch.testing.assert_close(
            loaded.model.embed(torch.from_numpy(x).float()),
            model.embed(torch.from_numpy(x).float()),
            atol=1e-2,
            rtol=1e-2,
        )
    assert len(load_bank(file)) == 0


def test_published_weights_fold_into_the_trunk():
    torch.manual_seed(0)
    plain = LiteTrunk(folded=False)
    published = dict(plain.state_dict()) | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    trunk = small.published_trunk(published)
    squares = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 192, 192, 3), dtype=np.uint8))
    with torch.inference_mode():
        torch.testing.assert_close(trunk.features(squares), plain.eval().features(squares), atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="tensors beside the classifier"):
        small.published_trunk({"a": torch.zeros(1)})


def test_from_tokens_to_both_files(bench, folder, tower, tmp_path, monkeypatch):
    """Thresholds, bank and report of both models on the tiny store."""
    monkeypatch.setattr(export, "LEAST", 3)
    recipe = Recipe(**SMALL)
    file, report = finish.tower(bench, recipe, folder, tmp_path, version="0.0.1")
    assert 0 <= report["auc"] <= 1
    assert all(line["above"] <= max(1, 0.05 * line["of"]) for line in report["accused"])
    assert {s["name"] for s in report["statements"]} == {s.name for s in STATEMENTS}
    assert len(load_bank(file)) == sum(s["speaks"] for s in report["statements"])
    teacher = load_tower_model(file)
    said = finish.teach(bench, teacher)
    assert said.shape == (len(bench.fit),)
    # What is taught parts the pictures evenly, wherever the tower model's own zero lies.
    target = finish.soft_targets(bench.fit.label, said + 5, small.SmallRecipe())
    assert np.median(target) == pytest.approx(0.5)
    mixed = finish.soft_targets(bench.fit.label, said, small.SmallRecipe(labels=1.0))
    np.testing.assert_array_equal(mixed, bench.fit.label)
    torch.manual_seed(0)
    torch.save(LiteTrunk(folded=False).state_dict() | {"_fc.weight": torch.zeros(2)}, tmp_path / "lite.pth")
    chosen = small.SmallRecipe(dim=8, hidden=4, epochs=2)
    work = tmp_path / "work"
    work.mkdir()
    out, told = finish.student(bench, chosen, work, tmp_path / "lite.pth", teacher, tmp_path, version="0.0.1")
    assert (work / "pooled-fit.npy").is_file()
    assert told["auc"] >= 0
    assert load_student(out).model.head.slope > 0


# -- scores of heads that did not see the source -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def squares(bench, folder):
    """The stores as the semantic plugin's prepared folder: pictures of `test` lie between."""
    parts = [bench.fit, bench.fuse, bench.fuse]
    split = np.repeat(["fit", "fuse", "test"], [len(p) for p in parts])

    def joined(field):
        return np.concatenate([getattr(p, field) for p in parts])

    made = Squares(
        pixels=joined("squares")[:, None],
        label=joined("label"),
        source=joined("source"),
        content=joined("content"),
        group=joined("group"),
        split=split,
        path=np.array([f"/pictures/{i}.png" for i in range(len(split))]),
    )
    classes = joined("classes").copy()
    # Topics are read off the last block: here they say nothing of the class, lest a fold have none with both.
    classes[:, -1] = np.random.default_rng(1).normal(size=classes[:, -1].shape)
    return made, classes


def test_cross_fitted_scores_are_those_of_heads_without_the_source(squares, tower):
    made, classes = squares
    fit = np.flatnonzero(made.split == "fit")
    pooled = np.random.default_rng(0).normal(size=(len(fit), 12)).astype(np.float16)
    pooled[:, 0] += 4 * made.label[fit]
    recipe = attrs.evolve(crossfit.RECIPE, last=2, hidden=8, rate=1e-3)
    student = attrs.evolve(crossfit.STUDENT, dim=8, hidden=4, epochs=5, noise=0.0)
    options = {"recipe": recipe, "student": student, "count": 40, "seeds": (0,)}
    lines = crossfit.cross_fitted(made, classes, tower, pooled, **options)
    assert list(lines) == [(str(Path(made.path[i]).resolve()), 0) for i in fit]
    fold = folds(made.label[fit], made.source[fit], seed=0)

    def column(found, name):
        return np.array([line[name] for line in found.values()])

    # What a source's own pictures look like teaches its scores nothing.
    other = classes.copy()
    other[fit[fold == 0], 1] = 1.0
    again = crossfit.cross_fitted(made, other, tower, pooled, **options)
    assert np.ptp(column(again, "reasoning.tower")[fold == 0]) == pytest.approx(0, abs=1e-5)
    assert np.ptp(column(lines, "reasoning.tower")[fold == 0]) > 0
    blank = pooled.copy()
    blank[fold == 0] = 0
    changed = crossfit.cross_fitted(made, classes, tower, blank, **options)
    np.testing.assert_array_equal(column(changed, "reasoning.tower"), column(lines, "reasoning.tower"))
    assert np.ptp(column(changed, "reasoning.student")[fold == 0]) == pytest.approx(0, abs=1e-5)
    # Pictures of `test` lie in the folder and count for nothing.
    test = classes.copy()
    test[made.split == "test"] = 3.0
    untouched = crossfit.cross_fitted(made, test, tower, None, **options)
    np.testing.assert_array_equal(column(untouched, "reasoning.tower"), column(lines, "reasoning.tower"))
    assert all(set(line) == {"reasoning.tower"} for line in untouched.values())


def test_cross_fitting_takes_a_frozen_tower_and_a_row_for_each_picture(squares, tower):
    made, classes = squares
    with pytest.raises(ValueError, match="pooled takes a row for each of the"):
        crossfit.cross_fitted(made, classes, tower, np.zeros((3, 12), np.float16))
    with pytest.raises(ValueError, match="recipe takes a frozen tower"):
        crossfit.cross_fitted(made, classes, tower, None, recipe=Recipe(**SMALL))


# -- precision of statements ------------------------------------------------------------------------------------------


def world(n=400, spread=0.15, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 2 == 1
    source = np.array([f"{int(t)}{i % 6}" for i, t in enumerate(truth)])
    facts = [Facts(fake=bool(t)) for t in truth]
    near = truth * 0.5 + rng.normal(0, spread, n)
    return truth, source, facts, near


STATEMENT = Statement(name="s", text="It was made.", holds=lambda f: f.fake)


def test_a_statement_that_is_right_speaks_and_one_that_guesses_is_silent():
    _, source, facts, near = world()
    good = measure(STATEMENT, near, facts, source)
    assert good.speaks
    assert good.precision >= PRECISION
    assert good.known == 400
    assert good.true == 200
    guess = measure(STATEMENT, np.random.default_rng(1).normal(size=400), facts, source)
    assert not guess.speaks


def test_one_that_is_right_of_a_single_large_source_only_is_silent():
    """Pictures of one generator that are many do not carry a statement that is wrong of the others."""
    truth, source, facts, _ = world(600)
    source[truth] = np.where(np.arange(truth.sum()) < 250, "big", source[truth])
    rng = np.random.default_rng(0)
    near = rng.normal(0, 0.05, 600) + (source == "big") * 1.0
    reals = np.isin(source, ["00", "02", "04"])
    near[reals] += 0.97
    assert not measure(STATEMENT, near, facts, source).speaks


def test_what_is_not_known_does_not_count():
    _, source, facts, near = world()
    unknown = Statement(name="u", text="?", holds=lambda f: None)
    found = measure(unknown, near, facts, source)
    assert (found.known, found.retrieved, found.speaks) == (0, 0, False)
    always = Statement(name="a", text="!", holds=lambda f: True)
    assert not measure(always, near, facts, source).speaks


def test_halves_share_no_source_and_thresholds_keep_their_target():
    truth, source, _, near = world()
    half = halves(truth, source)
    assert not set(source[half == 0]) & set(source[half == 1])
    assert set(half[truth]) == set(half[~truth]) == {0, 1}
    threshold = least_threshold_for(near, truth, source, target=0.95)
    assert truth[near >= threshold].mean() >= 0.95
    assert least_threshold_for(np.zeros(400), truth, source) == math.inf


def test_the_bank_keeps_what_was_measured():
    truth, source, facts, _ = world()
    images = F.normalize(torch.from_numpy(np.c_[truth * 2.0 - 1, np.full(400, 0.1)]).float(), dim=1)
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    bank, found = make_bank(
        (STATEMENT, attrs.evolve(STATEMENT, name="t", text="Other.")), vectors, images, facts, source
    )
    assert [m.speaks for m in found] == [True, False]
    assert [e.text for e in bank.entries] == ["It was made."]
    assert bank.entries[0].precision == 1.0


# -- ablations and diagnostics ----------------------------------------------------------------------------------------


def test_the_configuration_that_ships_names_the_papers_rows():
    told = ablation.Configuration.read()
    assert len(told.seeds) == 3
    recipes = [told.recipe(r, 0) for r in told.rows]
    assert {r.text for r in recipes} == set(ablation.TEXT_KINDS)
    assert {(r.mode, r.tuned) for r in recipes} >= {
        ("joint", "lora"), ("joint", "full"), ("sequential", "lora"), ("sequential", "full"), ("bce", "lora"),
        ("bce", "frozen"),
    }  # fmt: skip


@pytest.mark.parametrize("text", ["{", "[]", '{"seeds": [0], "base": {}, "rows": [{"name": "x", "recipe": {"a": 1}}]}'])
def test_a_configuration_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(SettingError, match="config"):
        ablation.Configuration.read(tmp_path / "c.json")


def test_rows_are_run_once_and_told_as_a_table(bench, tmp_path):
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"seeds": [0, 1], "base": SMALL, "rows": [{"name": "plain"}, {"name": "b", "recipe": {"mode": "bce"}}]}))  # fmt: skip  # noqa: E501
    heard = []
    told = ablation.Configuration.read(file)
    lines = ablation.run(bench, told, tmp_path / "j.jsonl", tell=heard.append)
    assert len(heard) == 4
    again = ablation.run(bench, told, tmp_path / "j.jsonl", tell=heard.append)
    assert json.dumps(again) == json.dumps(lines)  # NaN, for topics of one class, equals itself in words only
    assert len(heard) == 4
    text = ablation.table(lines)
    assert text.count("\n") == 3
    assert "plain" in text
    assert 0 <= lines[0]["fuse auc"] <= 1


def test_the_three_properties_are_numbers(bench):
    found = ablation.text_space(bench)
    assert found["label"]["separation"] == 1.0
    assert found["caption"]["separation"] == pytest.approx(0.5, abs=0.35)
    assert set(found["errors"]) == {c.value for c in diagnostics.Category}
    assert all(0 <= v <= 1 for v in found["errors"].values())


def test_a_probe_tells_domains_apart_only_where_they_are():
    rng = np.random.default_rng(0)
    source = np.array([f"s{i % 4}" for i in range(80)])
    apart = torch.from_numpy(np.eye(4)[np.arange(80) % 4] + rng.normal(0, 0.05, (80, 4))).float()
    accuracy, chance = diagnostics.domain_accuracy(apart, source)
    assert (accuracy, chance) == (1.0, 0.25)
    mixed, _ = diagnostics.domain_accuracy(torch.from_numpy(rng.normal(size=(80, 4))).float(), source)
    assert mixed < 0.6
    assert diagnostics.coral(apart, apart) == 0
    assert diagnostics.coral(apart, 3 * apart) > 0
    assert math.isnan(diagnostics.domain_accuracy(apart, np.array(["one"] * 80))[0])


# -- MiniLM's class with random weights -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "this", "is", "a", "real", "fake", "image", "."])}  # fmt: skip  # noqa: E501
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    folder = tmp_path_factory.mktemp("minilm")
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=11, **sizes)).save_pretrained(folder)
    return folder


def test_minilm_embeds_and_its_weights_stay(minilm, bench, tower):
    encoder = MiniLm(Path(minilm))
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    first = encoder.encode([("This is a fake image.", ""), ("This is a real image.", "")])
    # A text's vector does not depend on what it is padded with.
    alone = encoder.encode([("This is a fake image.", "")])
    beside = encoder.encode([("This is a fake image.", ""), ("", "this is a real image " * 8)])
    torch.testing.assert_close(alone[0], first[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(beside[0], first[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(first[0], first[1], atol=1e-4)
    recipe = Recipe(**SMALL)
    taught = lesson(bench.facts, encoder, "label", texts=1, long="split", seed=0)
    assert isinstance(taught, Lesson)
    rows = np.arange(len(bench.fit))
    train(tower, bench.fit, rows, taught, attrs.evolve(recipe, text="label", texts=1))
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert all(p.grad is None for p in encoder.parameters())
