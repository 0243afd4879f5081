"""The pixel plugin's experiments: each on made-up features, tiny pictures and a tiny tower."""

import csv
import json
from types import SimpleNamespace

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score
from torch import nn
from typer.testing import CliRunner

from tellsign.data.autoencoders import Autoencoder
from tellsign.data.normalise import WINDOW
from tellsign.plugins.pixel.training.balance import Balance, Rows
from tellsign.plugins.pixel.training.experiments import (
    balancing,
    compared,
    decoders,
    looks,
    lowrank,
    pairing,
    stem,
    zoo,
)
from tellsign.plugins.pixel.training.experiments.__main__ import app
from tellsign.plugins.pixel.training.experiments.compared import Compared
from tellsign.plugins.pixel.training.experiments.kept import kept_rows
from tellsign.plugins.pixel.training.experiments.study import Study, auc, source_table
from tellsign.plugins.pixel.training.probe import Probe
from tellsign.plugins.pixel.training.train import Windows, half_precision
from tellsign.towers import ClipTower


def scene(seed, side=64):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 216, (6, 6, 3), dtype=np.uint8))
    out = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), float)
    return np.clip(out + rng.normal(0, 4, out.shape), 0, 255).astype(np.uint8)


# -- the ruler ----------------------------------------------------------------------------------------------------


def made_up(seed=0, *, blocks=2, each=12, planted=1.0, width=6):
    """Eight sources a class in `fit`, two in `fuse`, there in both conditions; the first column carries the class."""
    rng = np.random.default_rng(seed)
    spec = [("fit", "native", y, f"{y}{k}") for y in (0, 1) for k in range(8) for _ in range(each)]
    fuse = [
        ("fuse", c, y, f"fuse{y}{k}") for c in ("native", "jpeg90") for y in (0, 1) for k in (0, 1) for _ in range(each)
    ]
    split, condition, label, source = (np.array(v) for v in zip(*spec, *fuse, strict=True))
    label = label.astype(np.int64)
    x = rng.normal(size=(len(label), blocks, width)).astype(np.float32)
    x[:, :, 0] += planted * label[:, None]
    groups = np.array([f"g{i // 2}" for i in range(len(label))])
    return Study(x, Rows(label, source, np.full(len(label), "photo")), groups, split, condition)


def test_the_area_is_sklearns_with_ties():
    rng = np.random.default_rng(0)
    labels, scores = np.repeat([0, 1], 30), rng.integers(0, 5, 60).astype(float)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert auc(labels, -scores) == pytest.approx(1 - roc_auc_score(labels, scores))


def test_each_generator_counts_alike_in_a_sources_area():
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    sources = np.array(["a", "a", "b", "x", "x", "x", "y"])
    rows = Rows(labels, sources, np.full(7, "photo"))
    scores = np.array([0.0, 2.0, 5.0, 1.0, 1.0, 3.0, 2.0])
    # a against x: (1 + 1 + 2) of 6, against y: 1.5 of 2; b against both: 0
    assert source_table(rows, scores) == pytest.approx({"a": (4 / 6 + 3 / 4) / 2, "b": 0.0})


def test_a_study_scores_pictures_by_models_that_did_not_see_their_source():
    study = made_up()
    seen = []

    def fitter(x, rows, seed):
        seen.append(set(zip(rows.labels.tolist(), rows.sources.tolist(), strict=True)))
        return lambda new: new[:, 0].astype(float) * len(seen)

    scores = study.evaluate(fitter, seeds=(3,))
    assert len(seen) == 2 * 5  # four folds and the whole of fit, for each block
    fit = study.where("fit")
    assert {s for part in seen for s in part} == set(
        zip(study.rows.labels[fit].tolist(), study.rows.sources[fit].tolist(), strict=True)
    )
    assert all(len(part) == 12 for k, part in enumerate(seen) if k % 5 < 4)
    line = study.line(scores)
    assert set(line) == {
        "fit", "fit by source", "fit worst source", "fuse native", "fuse native by source", "fuse jpeg90",
        "fuse jpeg90 by source", "fuse: fuse00", "fuse: fuse01", "fit sd",
    }  # fmt: skip
    assert 0.6 < line["fuse native"] < 0.99
    assert line["fit worst source"] < line["fit by source"]
    native = study.where("fuse")
    assert line["fuse native"] == pytest.approx(roc_auc_score(study.rows.labels[native], scores.every[0][native]))


def test_a_gain_has_an_interval_and_none_over_itself():
    study = made_up(planted=0.5)
    good = study.evaluate(lambda x, rows, seed: lambda new: new[:, 0].astype(float), seeds=(0, 1))
    bad = study.evaluate(lambda x, rows, seed: lambda new: new[:, 1].astype(float), seeds=(0, 1))
    gain = study.gain(good, bad, draws=40)
    assert set(gain) == {"fit", "fit by source", "fuse", "fuse by source"}
    for name, (found, low, high) in gain.items():
        assert low < found < high, name
    assert gain["fit"][1] > 0
    assert study.gain(good, good, draws=5)["fuse"] == [0.0, 0.0, 0.0]
    assert study.gain(good, bad, draws=40) == gain


def test_whole_views_are_a_study_of_their_own(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["index,label,source,content,group,split,path"]
    for i in range(80):
        split = ("fit", "fit", "fit", "fuse", "test")[i // 2 % 5]
        lines.append(f"{i},{i % 2},{split}{i % 2}{i // 10 % 4},photo,g{i},{split},{i}.png")
    (tmp_path / "squares.csv").write_text("\n".join(lines) + "\n")
    np.save(tmp_path / "squares.npy", np.zeros((80, 1), np.uint8))
    tokens = rng.normal(size=(80, 12, 4)).astype(np.float16)
    tokens[1::2, 6, 0] += 4
    tokens[0] = 0  # not extracted
    np.save(tmp_path / "tokens-overview.npy", tokens)
    study = Study.whole_views(tmp_path, blocks=(7, 8))
    assert set(study.split) == {"fit", "fuse"}
    assert len(study.x) == 80 // 5 * 4 - 1
    line = study.line(study.evaluate(balancing.balanced(1e-3, Balance()), seeds=(0,)))
    assert min(line["fit"], line["fuse native"]) > 0.8
    assert "fuse jpeg90" not in line


# -- weights ------------------------------------------------------------------------------------------------------


def test_group_dro_looks_after_the_source_that_does_worst():
    """One generator's trace is another column than the others': plain fits neglect it, GroupDRO does not."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    sources = np.array(["real"] * 200 + ["common"] * 185 + ["rare"] * 15)
    x = rng.normal(size=(400, 5)).astype(np.float32)
    x[sources == "common", 0] += 2
    x[sources == "rare", 1] += 2
    rows = Rows(labels, sources, np.full(400, "photo"))
    areas = {}
    for rate in (0.0, 1.0):
        score = balancing.group_dro(1e-2, rate=rate, balance=Balance(power=1.0))(x, rows, 0)(x)
        areas[rate] = [auc(labels[m], score[m]) for s in ("common", "rare") for m in [(labels == 0) | (sources == s)]]
    assert areas[1.0][1] > areas[0.0][1] + 0.03
    plain = Probe(1e-2, 0, Balance(power=1.0)).fit_rows(x, rows).score(x)
    standing = balancing.group_dro(1e-2, rate=0.0, balance=Balance(power=1.0))(x, rows, 0)(x)
    assert np.corrcoef(plain, standing)[0, 1] > 0.999  # a rate of nothing is the plain fit


def test_the_rows_on_weights_begin_with_what_they_are_compared_with():
    first, *others = balancing.ROWS
    assert first.startswith("0.2.0")
    assert len(set(others)) == len(others) > 8
    study = made_up(each=4)
    assert study.line(study.evaluate(balancing.ROWS[first], seeds=(0,)))["fit"] > 0.5


# -- decoders and the zoo -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", decoders.UPSAMPLERS)
def test_a_small_decoder_learns_and_keeps_shape_and_range(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(decoders, "BATCH", 2)
    monkeypatch.setattr(decoders, "PATCH", 16)
    pictures = np.stack([scene(i, 32) for i in range(4)])
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    errors = []
    for steps in (1, 40):
        model = decoders.load_decoder(decoders.train_decoder(kind, pictures, tmp_path / f"{steps}", steps=steps))
        out = model(x)
        assert out.shape == x.shape
        assert 0 <= out.min() <= out.max() <= 1
        errors.append((out - x).abs().mean().item())
    assert errors[1] < 0.8 * errors[0]
    assert not any(p.requires_grad for p in model.parameters())


@pytest.fixture(autouse=True)
def folders(tmp_path):
    for name in ("1", "40"):
        (tmp_path / name).mkdir()


class CutOffError(Exception):
    pass


def test_a_decoders_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(decoders, "BATCH", 2)
    monkeypatch.setattr(decoders, "PATCH", 16)
    pictures = np.stack([scene(i, 32) for i in range(4)])
    whole = decoders.train_decoder("nearest", pictures, tmp_path / "1", steps=6, every=2).read_bytes()
    patches, calls = decoders._patches, []

    def cut(pictures, rng):
        calls.append(1)
        if len(calls) == 6:
            raise CutOffError
        return patches(pictures, rng)

    monkeypatch.setattr(decoders, "_patches", cut)
    with pytest.raises(CutOffError):
        decoders.train_decoder("nearest", pictures, tmp_path / "40", steps=6, every=2)
    done = decoders.train_decoder("nearest", pictures, tmp_path / "40", steps=6, every=2)
    assert done.read_bytes() == whole
    assert len(calls) == 6 + 2  # from the checkpoint after step 4
    decoders.train_decoder("nearest", pictures, tmp_path / "40", steps=6)
    assert len(calls) == 8  # finished is finished


def test_a_decoder_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"kind takes one of nearest, .*, got 'bicubic'"):
        decoders.SmallAutoencoder("bicubic")


def test_a_code_book_gives_codes_and_a_gradient_to_the_encoder():
    model = decoders.SmallAutoencoder("vector_quantised")
    x = torch.rand(1, 3, 16, 16)
    latents = model.encoder(x)
    out, loss = model.quantise(latents)
    codes = out.detach().movedim(1, -1).reshape(-1, decoders.LATENTS)
    distance = torch.cdist(codes, model.codes.weight.detach()).min(dim=1).values
    assert distance.max() < 1e-3
    (out.sum() + loss).backward()
    assert model.encoder[0].weight.grad.abs().max() > 0
    assert model.codes.weight.grad.abs().max() > 0
    plain = decoders.SmallAutoencoder("nearest")
    latents = plain.encoder(x)
    assert plain.quantise(latents) == (latents, torch.zeros(()))


def tiny_autoencoder(name="taesd"):
    torch.manual_seed(0)
    encoder = nn.Conv2d(3, 4, 8, 8)
    decoder = nn.Sequential(nn.Upsample(scale_factor=8), nn.Conv2d(4, 3, 3, padding=1))
    return Autoencoder(encoder, decoder, name).requires_grad_(False)


def test_variants_disturb_the_trip_and_leave_the_model():
    model = tiny_autoencoder()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    bases = [scene(i, 32) for i in range(3)]
    plain = zoo.round_trips(bases, model.encode, model.decode)
    for kind in zoo.VARIANTS:
        trips = zoo.round_trips(bases, *zoo.variant(kind, model, 5))
        again = zoo.round_trips(bases, *zoo.variant(kind, model, 5))
        assert all(np.array_equal(a, b) for a, b in zip(trips, again, strict=True))
        assert [(t.shape, t.dtype) for t in trips] == [((32, 32, 3), np.uint8)] * 3
        assert any(not np.array_equal(a, b) for a, b in zip(trips, plain, strict=True)), kind
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    encode, _ = zoo.variant("mixed", model, 0)
    one, other = (torch.rand(1, 3, 16, 16) for _ in range(2))
    encode(one)
    want = 0.85 * model.encode(other) + 0.15 * model.encode(one)
    torch.testing.assert_close(encode(other), want)
    with pytest.raises(ValueError, match="perturbed, noised, mixed"):
        zoo.variant("turned", model, 0)


@pytest.fixture
def forged(tmp_path):
    """Three scenes: a forgery low on the right in a scene of 300 px, one without its untouched scene, one too small."""
    out = tmp_path / "forged"
    out.mkdir()
    rows = []
    for name, side, share in (("0", 300, 0.3), ("1", 300, 0.9), ("2", 100, 0.5)):
        pixels, mask = scene(int(name), side), np.zeros((side, side), np.uint8)
        mask[side // 2 :, side // 2 :] = 255
        painted = np.where(mask[..., None] > 0, 255 - pixels, pixels)
        for kind, tool, picture in (("untouched", "", pixels), ("blend", "migan", painted), ("blend", "other", pixels)):
            if (name, kind) == ("1", "untouched"):
                continue
            Image.fromarray(picture).save(out / f"{name}-{kind}{tool}.png")
            rows.append(
                {
                    "id": f"{name}-{kind}",
                    "path": f"{name}-{kind}{tool}.png",
                    "kind": kind,
                    "tool": tool,
                    "ai_mask": "mask.png" if tool else "",
                    "share": share,
                    "source": f"s{name}",
                }
            )
        if name == "0":
            Image.fromarray(mask).save(out / "mask.png")
    with (out / "manifest.csv").open("w", newline="") as handle:
        table = csv.DictWriter(handle, rows[0])
        table.writeheader()
        table.writerows(rows)
    return out


def test_a_forgerys_pair_is_the_window_around_its_mask(forged):
    ((real, fake, source),) = zoo.forged_pairs(forged, "blend", "migan", count=5)
    assert source == "s0"
    whole = scene(0, 300)
    assert np.array_equal(real, whole[76:, 76:])  # 224 px around the middle of the mask, kept inside the scene
    changed = (real != fake).any(axis=2)
    assert changed[74:, 74:].mean() > 0.95
    assert not changed[:74].any()
    assert list(zoo.forged_pairs(forged, "blend", "migan", count=0)) == []


def test_the_zoo_is_made_once_and_no_base_serves_two_families(tmp_path, forged, monkeypatch):
    monkeypatch.setattr(Autoencoder, "load", lambda folder, name: tiny_autoencoder(name))
    monkeypatch.setattr(decoders, "PATCH", 16)
    monkeypatch.setattr(zoo, "UPSAMPLERS", ("nearest",))
    monkeypatch.setattr(zoo, "FAMILIES", (*zoo.NAMES, *zoo.VARIANTS, "nearest", *zoo.FORGED))
    folder, out = tmp_path / "prepared", tmp_path / "zoo"
    folder.mkdir()
    n = 40
    reals = np.stack([scene(i, 32) for i in range(n)])
    np.save(folder / "pairs_real.npy", reals)
    np.save(folder / "pairs_fake.npy", 255 - reals)
    names = [zoo.NAMES[i % 5] for i in range(n)]
    (folder / "pairs.csv").write_text("source,autoencoder\n" + "".join(f"s{i % 3},{m}\n" for i, m in enumerate(names)))
    zoo.make(folder, tmp_path, out, forged=forged, count=3, steps=2)
    found = {f.stem: np.load(f) for f in out.glob("*.npz")}
    assert set(found) == {*zoo.NAMES, *zoo.VARIANTS, "nearest", "inpainting GAN"}  # the up-scaler forged nothing
    place = {r.tobytes(): i for i, r in enumerate(reals)}
    used = [place[r.tobytes()] for name, pairs in found.items() if name not in zoo.FORGED for r in pairs["real"]]
    assert len(set(used)) == len(used)
    for name, pairs in found.items():
        if name in zoo.FORGED:
            continue
        assert len(pairs["real"]) == 3
        own = [place[r.tobytes()] for r in pairs["real"]]
        assert pairs["source"].tolist() == [f"s{i % 3}" for i in own]
        if name in zoo.NAMES:
            assert {names[i] for i in own} == {name}
            assert np.array_equal(pairs["fake"], 255 - pairs["real"])
    before = {f.name: f.stat().st_mtime_ns for f in out.iterdir()}
    zoo.make(folder, tmp_path, out, forged=forged, count=3, steps=2)
    assert {f.name: f.stat().st_mtime_ns for f in out.iterdir()} == before | {}


def test_both_members_are_shown_alike(tmp_path):
    same = np.stack([scene(i, 224) for i in range(3)])
    np.savez(tmp_path / "one.npz", real=same, fake=same, source=np.array(["a"] * 3))
    shown = []

    def compute(crops):
        shown.append(crops)
        return crops.mean(axis=(1, 2)).astype(np.float32)

    zoo.features(tmp_path, compute, count=2, name="mean")
    assert [c.shape for c in shown] == [(2, 224, 224, 3)] * 2
    assert all(np.array_equal(*c) for c in shown)  # equal members stay equal
    assert not np.array_equal(shown[0], shown[1])
    assert np.load(tmp_path / "one.mean.npy").shape == (2, 2, 3)
    zoo.features(tmp_path, compute, name="mean")
    assert len(shown) == 2  # done is done


def test_the_gate_speaks_of_every_family(tmp_path):
    real = np.stack([scene(i, 64) for i in range(24)])
    blurred = np.stack([np.asarray(Image.fromarray(p).resize((40, 40)).resize((64, 64))) for p in real])
    for name, fake in (("turned", real[:, ::-1]), ("blurred", blurred)):
        np.savez(tmp_path / f"{name}.npz", real=real, fake=fake, source=np.array(["a"] * 24))
    told = zoo.gate(tmp_path)
    assert told["blurred"]["radial spectrum"] > 0.9
    assert max(told["turned"].values()) <= 0.6


# -- pairs --------------------------------------------------------------------------------------------------------


def made_up_zoo(study, *, column, families=("f", "g", "h"), each=24):
    """Pairs of `fit`'s collections whose fake members are higher in one column."""
    rng = np.random.default_rng(7)
    n = each * len(families)
    x = np.repeat(rng.normal(size=(n, 1, *study.x.shape[1:])), 2, axis=1).astype(np.float32)
    x[:, 1, :, column] += 3
    return pairing.Zoo(x, np.repeat(families, each), np.array([f"0{i % 8}" for i in range(n)]))


def test_a_family_is_judged_by_probes_on_the_others():
    study = made_up()
    pairs = made_up_zoo(study, column=1)
    table = pairing.one_family_out(pairs, pairs)
    assert set(table) == {"f", "g", "h"}
    assert min(table.values()) > 0.9
    # A family whose trace is another is not recognised.
    pairs.x[pairs.family == "f", 1, :, 1] -= 3
    pairs.x[pairs.family == "f", 1, :, 2] += 3
    table = pairing.one_family_out(pairs, pairs)
    assert table["f"] < 0.7 < 0.9 < table["g"]


def test_probes_learn_from_families_that_the_gate_let_pass():
    pairs = made_up_zoo(made_up(each=2), column=1)
    passed = pairs.past({"f": {"blockiness": 0.6, "radial spectrum": 0.5}, "g": {"blockiness": 0.4, "other": 0.61}})
    assert set(passed.family) == {"f"}  # h was not asked about
    assert len(passed.x) == len(passed.source) == 24
    assert set(pairing.one_family_out(pairs, pairs.past({f: {"any": 0.5} for f in "fg"}))) == {"f", "g", "h"}


def test_without_pairs_the_row_is_what_ships():
    study = made_up()
    pairs = made_up_zoo(study, column=1)
    got = pairing.with_pairs(study, pairs, generated=1.0, seeds=(0,))
    want = study.evaluate(balancing.balanced(pairing.STRENGTH, pairing.SHIPPED), seeds=(0,))
    np.testing.assert_allclose(got.held[0], want.held[0], rtol=1e-6)
    np.testing.assert_allclose(got.every[0], want.every[0], rtol=1e-6)


@pytest.mark.parametrize("bases", [True, False])
def test_pairs_teach_their_trace_by_the_share_that_they_have(bases):
    study = made_up(planted=2.0)
    traces = {column: made_up_zoo(study, column=column) for column in (0, 1)}
    area = {
        (column, share): study.line(pairing.with_pairs(study, z, generated=share, seeds=(0,), bases=bases))[
            "fuse native"
        ]
        for column, z in traces.items()
        for share in (0.0, 0.8)
    }
    assert area[0, 0.0] > 0.85  # the pairs' trace is the generators'
    assert area[1, 0.0] < 0.7  # and here it is not
    assert area[1, 0.8] > area[1, 0.0] + 0.1


def test_pairs_of_held_out_collections_are_left_out(monkeypatch):
    study = made_up(each=4)
    pairs = made_up_zoo(study, column=1)
    fitted = []
    fit_rows = Probe.fit_rows

    def watched(self, x, rows, weights=None):
        fitted.append(set(rows.sources.tolist()))
        return fit_rows(self, x, rows, weights)

    monkeypatch.setattr(Probe, "fit_rows", watched)
    pairing.with_pairs(study, pairs, generated=0.5, seeds=(0,))
    for names in fitted:
        collections = {n for n in names if n.startswith("0")}
        assert {n.removeprefix("zoo/") for n in names if n.startswith("zoo/")} <= collections
        assert len(collections) in (6, 8)


# -- looks --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Windows of pictures that lie beside them; generated ones are striped."""
    out = tmp_path_factory.mktemp("prepared")
    spec = [
        (label, f"{label}{k}", split) for split in ("fit", "fuse") for label in (0, 1) for k in range(4) for _ in (0, 1)
    ]
    store = np.zeros((len(spec), WINDOW, WINDOW, 3), np.uint8)
    lines = ["index,side,label,source,content,group,split,path,hash"]
    for i, (label, source, split) in enumerate(spec):
        pixels = scene(i, WINDOW)
        if label:
            pixels[::2] = np.clip(pixels[::2].astype(int) + 40, 0, 255)
        store[i] = pixels
        Image.fromarray(pixels).save(out / f"{i}.png")
        lines.append(f"{i},{WINDOW},{label},{split}{source},photo,g{i},{split},{out}/{i}.png,{i}")
    np.save(out / "windows.npy", store)
    (out / "windows.csv").write_text("\n".join(lines) + "\n")
    return out


@pytest.fixture(scope="module")
def featured(prepared, tmp_path_factory):
    """The same with made-up features, as `features` writes them."""
    folder = tmp_path_factory.mktemp("featured")
    for name in ("windows.npy", "windows.csv"):
        (folder / name).symlink_to(prepared / name)
    rng = np.random.default_rng(1)
    windows = Windows(folder)
    index = sorted({r["path"]: i for i, r in reversed(list(enumerate(windows.rows)))}.values())
    jobs = [(i, "native") for i in index] + [(i, "jpeg90") for i in index if windows.rows[i]["split"] == "fuse"]
    for name, shape, dtype in (("tower", (12, 2, 6), np.float16), ("residuals", (20,), np.float32)):
        np.save(folder / f"{name}.npy", rng.normal(size=(len(jobs), *shape)).astype(dtype))
        lines = ["row,index,condition", *(f"{k},{i},{c}" for k, (i, c) in enumerate(jobs))]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_pictures_are_drawn_from_both_classes_once(prepared):
    windows = Windows(prepared)
    index = looks.drawn(windows, "fit", 8)
    assert len(set(index)) == 8
    assert {windows.rows[i]["split"] for i in index} == {"fit"}
    assert sum(int(windows.rows[i]["label"]) for i in index) == 4
    assert index == looks.drawn(windows, "fit", 8)
    assert [int(windows.rows[i]["label"]) for i in index] == [0, 1] * 4
    assert looks.drawn(windows, "fit", 12)[:8] == index
    assert looks.in_turn([1, 2, 3], [4]) == [1, 4, 2, 3]
    assert len(looks.drawn(windows, "fuse", 1000)) == 16


def test_crops_are_where_the_texture_is_and_where_it_is_not():
    pixels = np.full((900, 900, 3), 128, np.uint8)
    rng = np.random.default_rng(0)
    pixels[:, 450:] = rng.integers(0, 256, (900, 450, 3))
    order = [[looks.texture(c) for c in looks.crops_of(pixels, seed)] for seed in range(3)]
    for values in order:
        assert len(values) == len(looks.KINDS)
        assert values[0] > 1.5 * values[1]
    small = looks.crops_of(scene(0, 200), 0)
    assert [c.shape for c in small] == [(224, 224, 3)] * len(looks.KINDS)


def test_crops_of_one_picture_pass_the_pipeline_with_the_same_draws():
    """A picture as small as a window has one window: its crops differ by nothing, and saved again by a little."""
    crops = looks.crops_of(scene(3, WINDOW), 7)
    for other in crops[1:5]:
        np.testing.assert_array_equal(other, crops[0])
    change = np.abs(crops[5].astype(int) - crops[2]).mean()
    assert 0 < change < 8


def test_crops_are_kept_and_go_on(prepared, tmp_path):
    seen = []

    def compute(crops):
        seen.append(len(crops))
        return crops[:, :2, 0, 0].astype(np.float32)

    windows = Windows(prepared)
    crops, sides = looks.crop_features(windows, range(6), compute, tmp_path)
    assert crops.shape == (6, len(looks.KINDS), 2)
    assert sides.tolist() == [WINDOW] * 6
    assert len(seen) == 6
    again, _ = looks.crop_features(windows, range(6), compute, tmp_path)
    np.testing.assert_array_equal(again, crops)
    assert len(seen) == 6


def test_kept_rows_go_on_and_begin_anew_for_others(tmp_path):
    asked, broken = [], [5]

    def kept(items, **told):
        def compute(some):
            asked.extend(some)
            if broken and broken[0] in some:
                broken.clear()
                raise KeyboardInterrupt
            return np.array([[i, i * i] for i in some])

        asked.clear()
        return kept_rows(tmp_path, "a", items, compute, told=told, batch=2)

    with pytest.raises(KeyboardInterrupt):
        kept(range(8), k=(1, 2))
    rows = kept(range(8), k=(1, 2))
    assert asked == [4, 5, 6, 7]
    assert rows.tolist() == [[i, i * i] for i in range(8)]
    assert kept(range(4), k=(1, 2)).tolist() == rows[:4].tolist()
    assert asked == []
    longer = kept(range(11), k=(1, 2))
    assert asked == [8, 9, 10]
    assert longer.tolist() == [[i, i * i] for i in range(11)]
    assert kept([0, 2], k=(1, 2)).tolist() == [[0, 0], [2, 4]]
    assert asked == [0, 2]
    kept([0, 2], k=3)
    assert asked == [0, 2]


def test_aggregations_by_hand():
    scores = np.array([[5.0, 1.0, 2.0, 4.0, 3.0, 2.5]])
    want = {
        "one random crop": 2, "the crop with most texture": 5, "the smoothest crop": 1,
        "one random crop at half scale": 3, "the random crop, saved again": 2.5,
        "mean of the random crop and of it saved again": 2.25, "mean of three crops": 8 / 3,
        "median of three crops": 2, "largest of three crops": 5, "smallest of three crops": 1,
        "mean of three crops and the random one saved again": 10.5 / 4,
        "mean of the crop with most texture and a random one": 3.5,
        "mean of the random crops of both scales": 2.5, "mean of both scales without the smoothest": 3.5,
        "mean of both scales": 3,
        "trimmed mean of both scales": 3, "median of both scales": 3, "largest of both scales": 5,
        "mean of the largest two": 4.5, "largest mean of a scale": 3.5,
    }  # fmt: skip
    assert {name: f(scores)[0] for name, f in looks.AGGREGATIONS.items()} == pytest.approx(want)


def made_up_scores(gap, *, seeds=2):
    """Scores of 64 pictures: a column of noise, one that knows the label by `gap`, and that again."""
    rng = np.random.default_rng(3)
    labels = np.tile([0, 1], 32)
    split = np.repeat(["fit", "fuse"], 32)
    sources = np.array([f"{s}{y}{k % 4}" for s, y, k in zip(split, labels, np.arange(64) // 2, strict=True)])
    rows = Rows.plain(labels, sources.tolist())
    noise = [rng.normal(size=64) for _ in range(seeds)]
    fold = np.where(split == "fit", np.arange(64) // 2 % 4, -1)
    scores = [np.stack([n, n + gap * labels, n + gap * labels], axis=1) for n in noise]
    return Compared(rows, np.array([f"g{i}" for i in range(64)]), split, [fold] * seeds, scores)


def test_columns_are_compared_with_the_first(monkeypatch):
    monkeypatch.setattr(compared, "DRAWS", 60)
    columns = {"noise": lambda s: s[:, 0], "better": lambda s: s[:, 1], "noise again": lambda s: 2 * s[:, 0]}
    table = made_up_scores(3.0).table(columns)
    assert set(table["noise"]) == {"fit", "fuse", "fuse by source", "fit sd"}
    assert table["better"]["fuse"] > 0.9
    for name in ("fit", "fuse", "fuse by source"):
        value, low, high = table["better"][f"gain on {name}"]
        assert value == pytest.approx(table["better"][name] - table["noise"][name])
        assert 0 < low <= value <= high
        assert table["noise again"][f"gain on {name}"] == [0, 0, 0]


def test_pictures_that_were_trained_on_do_not_count():
    every = made_up_scores(3.0, seeds=1)
    held = attrs.evolve(every, fold=[np.where(every.fold[0] == 0, 0, -1)])
    column = {"one": lambda s: s[:, 0]}
    wrong = attrs.evolve(held, scores=[held.scores[0].copy()])
    wrong.scores[0][(every.split == "fit") & (every.fold[0] != 0)] = 100.0 * np.random.default_rng(0).normal(
        size=(24, 1)
    )
    assert wrong.table(column) == held.table(column)
    large = np.arange(64) % 16 < 12
    assert len(every.only(large).rows.labels) == 48


def test_crops_are_scored_by_probes_that_did_not_see_their_source(tmp_path):
    study = made_up(planted=2.0)
    known = [
        {
            "label": y,
            "source": f"{'' if split == 'fit' else 'fuse'}{y}{k}",
            "content": "photo",
            "split": split,
            "group": f"{y}{k}",
        }
        for split, count in (("fit", 8), ("fuse", 2))
        for y in (0, 1)
        for k in range(count)
    ]
    windows = SimpleNamespace(rows=known)
    x = np.random.default_rng(1).normal(size=(len(known), 5, 2, 6))
    x[..., 0] += 2 * np.array([r["label"] for r in known])[:, None, None]
    found = looks.look(study, windows, x, np.arange(len(known)), seeds=(0,), out=tmp_path)
    fold, scores = found.fold[0], found.scores[0]
    assert (fold[16:] == -1).all()
    assert set(fold[:16]) == {0, 1, 2, 3}
    fit = study.where("fit")
    inside = study.fold(0) != fold[0]
    want = np.zeros(5)
    for block in range(2):
        z = study.x[fit][:, block]
        probe = Probe(pairing.STRENGTH, 0, pairing.SHIPPED).fit_rows(z[inside], study.rows[fit][inside])
        want += probe.score(x[0, :, block].astype(np.float32)) / probe.score(z).std()
    np.testing.assert_allclose(scores[0], want, rtol=1e-5)
    line = found.line(looks.AGGREGATIONS["mean of both scales"])
    assert line["fuse"] > 0.9
    assert set(line) == {"fit", "fuse", "fuse by source", "fit sd"}
    assert set(looks.encoded_twice(study)) == {"fuse", "fuse by source", "fuse alone", "fuse, JPEG 90 alone"}


def test_what_a_decoder_can_write_is_told_from_what_it_cannot(prepared, tmp_path):
    """An autoencoder that knows no stripes: generated pictures, which are striped here, come back worse."""
    windows = Windows(prepared)
    index = list(range(32))
    names, errors = looks.reconstruction_errors(windows, index, [tiny_autoencoder("one")], tmp_path)
    assert names == ("texture", "one")
    table = looks.error_lines(windows, np.array(index), names, errors, seeds=(0, 1))
    assert set(table) == {"small texture", "small one", "all errors", "all errors and texture"}
    assert table["small texture"]["fuse"] < 0.2
    assert table["all errors and texture"]["fuse"] > 0.8


# -- low-rank updates ---------------------------------------------------------------------------------------------

TINY = lowrank.Recipe(frozen=1, blocks=(2, 3), rank=2, alpha=2.0, rate=3e-3, head_rate=1e-3, epochs=6, batch=4)


@pytest.fixture
def kept(prepared, make_tower, tmp_path):
    tower = half_precision(ClipTower.from_state_dict(make_tower()).eval())
    return tower, lowrank.keep_tokens(Windows(prepared), range(32), tower, 1, tmp_path)


def test_tokens_are_kept_once(prepared, kept, tmp_path):
    tower, tokens = kept
    assert tokens.shape[0] == 32
    assert tokens.dtype == np.float16
    assert np.abs(tokens[-1].astype(float)).max() > 0
    before = (tmp_path / "tokens.npy").stat().st_mtime_ns
    lowrank.keep_tokens(Windows(prepared), range(32), tower, 1, tmp_path)
    assert (tmp_path / "tokens.npy").stat().st_mtime_ns == before


def test_updates_start_as_the_frozen_probe_and_learn(prepared, kept, tmp_path):
    windows, (tower, tokens) = Windows(prepared), kept

    def compare(seed, **recipe):
        return lowrank.compare(windows, range(32), tokens, tower, attrs.evolve(TINY, seeds=(seed,), **recipe), tmp_path)

    still = compare(0, rate=0.0, head_rate=0.0)
    np.testing.assert_allclose(still.scores[0][:, 1], still.scores[0][:, 0], rtol=1e-5)
    found = compare(1)
    with np.load(tmp_path / "lora-1.npz") as saved:
        losses = saved["losses"]
    assert losses[-3:].mean() < losses[:3].mean()
    shown = (found.split == "fuse") | (found.fold[0] == 0)
    assert (found.scores[0][~shown] == 0).all()
    assert (found.scores[0][shown] != 0).all()
    assert set(found.fold[0].tolist()) == {0, -1}
    before = (tmp_path / "lora-1.npz").stat().st_mtime_ns
    other = lowrank.compare(windows, range(32), tokens, tower, attrs.evolve(TINY, seeds=(1, 0)), tmp_path)
    np.testing.assert_array_equal(other.scores[0], found.scores[0])
    assert (tmp_path / "lora-1.npz").stat().st_mtime_ns == before
    compare(1, epochs=1)  # another recipe is another run
    assert (tmp_path / "lora-1.npz").stat().st_mtime_ns != before


def test_an_interrupted_run_of_updates_ends_alike(prepared, kept, tmp_path, monkeypatch):
    windows, (tower, tokens) = Windows(prepared), kept
    recipe = attrs.evolve(TINY, seeds=(2,), epochs=2)
    whole = lowrank.compare(windows, range(32), tokens, tower, recipe, tmp_path)
    (tmp_path / "lora-2.npz").unlink()
    monkeypatch.setattr(lowrank, "EVERY", 2)
    steps = []

    def stop(*args, **kwargs):
        steps.append(0)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return binary(*args, **kwargs)

    binary = lowrank.F.binary_cross_entropy_with_logits
    monkeypatch.setattr(lowrank.F, "binary_cross_entropy_with_logits", stop)
    with pytest.raises(KeyboardInterrupt):
        lowrank.compare(windows, range(32), tokens, tower, recipe, tmp_path)
    assert (tmp_path / "lora-2.pt").is_file()
    again = lowrank.compare(windows, range(32), tokens, tower, recipe, tmp_path)
    np.testing.assert_allclose(again.scores[0], whole.scores[0], rtol=1e-5)
    assert not (tmp_path / "lora-2.pt").exists()


def test_a_recipe_is_read_from_json():
    assert lowrank.Recipe.parse('{"rank": 4, "blocks": [7, 8]}') == lowrank.Recipe(rank=4, blocks=(7, 8))
    with pytest.raises(TypeError, match="ranks"):
        lowrank.Recipe.parse('{"ranks": 4}')


# -- a network from scratch ---------------------------------------------------------------------------------------

SMALL = stem.Recipe(side=64, widths=(4, 8), steps=40, batch=8, rate=1e-2, seeds=(0,))


def test_the_stem_keeps_its_stride_and_its_filters():
    model = stem.Stem((4, 8)).eval()
    assert [m.stride for m in model.body if isinstance(m, nn.Conv2d)] == [(1, 1), (1, 1), (2, 2), (1, 1)]
    assert "filters" not in dict(model.named_parameters())
    crops = torch.full((2, 32, 32, 3), 77, dtype=torch.uint8)
    seen = []
    model.body[0].register_forward_hook(lambda _, given, __: seen.append(given[0]))
    assert model(crops).shape == (2,)
    assert seen[0].shape == (2, 13, 32, 32)
    assert seen[0][:, 3:].abs().max() < 1e-3  # a flat crop has no residuals
    assert stem.Stem((4, 8), residuals=False).body[0].in_channels == 3
    assert sum(p.numel() for p in stem.Stem(stem.Recipe().widths).parameters()) in range(300_000, 400_000)


def test_the_network_learns_stripes_from_families_that_it_is_not_scored_on(featured, tmp_path):
    windows = Windows(featured)
    index = looks.in_turn(looks.drawn(windows, "fit", 16), looks.drawn(windows, "fuse", 16))
    found = stem.compare(windows, featured, index, SMALL, tmp_path)
    shown = (found.split == "fuse") | (found.fold[0] == 0)
    assert (found.scores[0][~shown] == 0).all()
    assert set(found.fold[0].tolist()) == {0, -1}
    table = found.table(stem.COLUMNS)
    assert table["stem of stride 1"]["fuse"] > 0.8
    assert np.isfinite(table["tower's probes, residuals and stem"]["fit"])
    before = (tmp_path / "stem-0.npz").stat().st_mtime_ns
    stem.compare(windows, featured, index, SMALL, tmp_path)
    assert (tmp_path / "stem-0.npz").stat().st_mtime_ns == before


def test_the_network_sees_no_source_of_the_fold_that_is_held_out(featured, tmp_path, monkeypatch):
    windows, taught = Windows(featured), []
    monkeypatch.setattr(
        stem, "train", lambda windows, sides, *_: (taught.extend(sides), stem.Stem((4,)).eval(), [])[1:]
    )
    index = looks.drawn(windows, "fit", 16) + looks.drawn(windows, "fuse", 8)
    found = stem.compare(windows, featured, index, SMALL, tmp_path)
    held = {(int(y), s) for y, s, f in zip(found.rows.labels, found.rows.sources, found.fold[0], strict=True) if f == 0}
    used = {(label, windows.rows[i]["source"]) for label, (side, _) in enumerate(taught) for i in side}
    assert len(held) == 2
    assert not held & used
    assert len(used) == 6
    assert {windows.rows[i]["split"] for side, _ in taught for i in side} == {"fit"}
    assert [p.sum() for _, p in taught] == pytest.approx([1, 1])


def test_an_interrupted_network_ends_alike(featured, tmp_path, monkeypatch):
    windows = Windows(featured)
    sides = [windows.balanced("fit", label) for label in (0, 1)]
    recipe = attrs.evolve(SMALL, steps=12, side=32)
    whole, losses = stem.train(windows, sides, recipe, 0, tmp_path / "a.pt", "told")
    batch = stem.batch

    def stop(*args):
        if args[-1] == 11:
            raise KeyboardInterrupt
        return batch(*args)

    monkeypatch.setattr(stem, "batch", stop)
    with pytest.raises(KeyboardInterrupt):
        stem.train(windows, sides, recipe, 0, tmp_path / "b.pt", "told")
    monkeypatch.setattr(stem, "batch", batch)
    again, later = stem.train(windows, sides, recipe, 0, tmp_path / "b.pt", "told")
    np.testing.assert_allclose(later, losses, rtol=1e-4)
    for mine, other in zip(again.state_dict().values(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


# -- the commands -------------------------------------------------------------------------------------------------


def test_the_commands_say_what_they_want():
    for name in ("balance", "pairs", "zoo", "looks", "lora", "stem", "views"):
        done = CliRunner().invoke(app, [name])
        assert done.exit_code == 2
    done = CliRunner().invoke(app, ["--help"])
    assert all(name in done.stdout for name in ("balance", "pairs", "zoo", "looks", "lora", "stem", "views"))


def test_lora_compares_three_seeds(prepared, make_tower, tmp_path):
    tower = tmp_path / "tower.safetensors"
    save_file({k: v.half() for k, v in make_tower().items()}, tower)
    recipe = json.dumps(attrs.asdict(attrs.evolve(TINY, frozen=0, epochs=1)))
    words = ["lora", "--folder", prepared, "--tower", tower, "--out", tmp_path / "out", "--fit", 16, "--fuse", 8]
    done = CliRunner().invoke(app, [str(w) for w in [*words, "--recipe", recipe]], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    table = json.loads((tmp_path / "out" / "lora.json").read_text())
    assert list(table) == ["frozen probe", "updated", "mean of both"]
    assert "gain on fuse by source" in done.stdout
    assert sorted(p.name for p in (tmp_path / "out").glob("lora-*")) == ["lora-0.npz", "lora-1.npz", "lora-2.npz"]


@pytest.mark.parametrize("large", [WINDOW, 512])
def test_looks_prints_its_table(featured, make_tower, tmp_path, monkeypatch, large):
    """The tiny tower has three blocks where the command reads the seventh, eighth and twelfth."""
    monkeypatch.setattr(looks, "LARGE", large)
    monkeypatch.setattr(compared, "DRAWS", 20)
    tower = tmp_path / "tower.safetensors"
    save_file({k: v.half() for k, v in make_tower().items()}, tower)
    rng = np.random.default_rng(0)
    monkeypatch.setattr(
        "tellsign.plugins.pixel.training.probe.tower_extractor",
        lambda tower: lambda crops: rng.normal(size=(len(crops), 12, 2, 6)).astype(np.float16),
    )
    words = ["looks", "--folder", featured, "--tower", tower, "--out", tmp_path / "out", "--count", 16]
    done = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    table = json.loads((tmp_path / "out" / "looks.json").read_text())
    assert set(looks.AGGREGATIONS) < set(table)
    assert "mean of a picture and its JPEG 90" in table
    done = CliRunner().invoke(app, [str(w) for w in [*words, "--skip", 8]], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rest = json.loads((tmp_path / "out" / "looks-after-8.json").read_text())
    assert "mean of a picture and its JPEG 90" not in rest  # it is of all pictures of fuse
    assert rest["one random crop"]["fuse"] != table["one random crop"]["fuse"]
    assert ("one random crop at half scale, short side 320 px" in table) == (large == WINDOW)  # no picture has 512
