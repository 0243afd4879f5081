"""The recipe end to end on a tiny model: trl's loss against ours, updates that start at nothing, merging."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tellsign.data.purity import tag
from tellsign.errors import SettingError
from tellsign.schemas import Task

pytest.importorskip("transformers", reason="the judge runs through transformers")
pytest.importorskip("trl", reason="training the judge needs the extra train-vlm")
pytest.importorskip("peft", reason="training the judge needs the extra train-vlm")

from typer.testing import CliRunner

from tellsign.data.labelled import LabelledPicture
from tellsign.plugins.semantic.judge.judge import judge
from tellsign.plugins.semantic.training.dpo import train as training
from tellsign.plugins.semantic.training.dpo.__main__ import app
from tellsign.plugins.semantic.training.dpo.loss import answer_log_p, dpo_loss
from tellsign.plugins.semantic.training.dpo.pairs import make_pairs, read_pairs
from tellsign.plugins.semantic.training.dpo.train import DpoRecipe, make_trainer, preference_rows, train
from tellsign.towers.vlm import load_vlm
from tellsign.towers.vlm_adapter import merge_adapter

REASONS = {"This image is fake.": "The hand has six fingers.", "This image is real.": "The shadows fall to one side."}
RECIPE = {"accumulate": 1, "checkpointing": False, "batch": 2, "save_every": 1000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_vlm):
    """Pairs that contradict what the taught model says: here the dark pictures are the real ones."""
    out = tmp_path_factory.mktemp("pairs")
    make_pairs(
        [LabelledPicture(path=f"{i}", fake=bool(i % 2), group=str(i)) for i in range(4)],
        lambda images, sentences: [REASONS[s] for s in sentences],
        out,
        read=lambda path: tiny_vlm.picture(int(path) % 2 == 0, int(path), (96, 96)),
    )
    for file in out.glob("*.png"):  # the scrambler brings them to 336 px: more patches than a test needs
        Image.open(file).resize((56, 56)).save(file)
    return out


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(training, "load_vlm", lambda *a, **k: load_vlm(*a, **k, tokens=(4, 16)))


def trainer_for(taught_vlm, folder, tmp_path, **changes):
    vlm = load_vlm(taught_vlm, tokens=(4, 16))
    recipe = DpoRecipe(**(RECIPE | changes))
    return vlm, make_trainer(vlm, folder, read_pairs(folder), recipe, tmp_path)


def test_the_recipe_is_the_reported_one(taught_vlm, folder, tmp_path):
    _, trainer = trainer_for(taught_vlm, folder, tmp_path)
    config = trainer.model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (16, 32, 0.05)
    assert (trainer.args.learning_rate, trainer.args.beta, trainer.args.num_train_epochs) == (1e-6, 0.05, 1)
    assert (trainer.args.loss_type, trainer.args.max_length) == (["sigmoid"], None)
    learning = {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert learning
    assert all("lora_" in n and "language_model" in n and "self_attn" in n for n in learning)
    assert {n.split(".lora_")[0].rsplit(".", 1)[1] for n in learning} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_training_shows_the_prompt_that_the_judge_uses(taught_vlm, folder, tmp_path):
    from tellsign.plugins.semantic.judge.inputs import render

    vlm, trainer = trainer_for(taught_vlm, folder, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    text = vlm.processor.tokenizer.decode(batch["input_ids"][0])
    place = vlm.processor.image_token
    while place * 2 in text:
        text = text.replace(place * 2, place)
    assert text.startswith(render(vlm.processor, answer="This image is"))
    answers = [
        vlm.processor.tokenizer.decode(row[mask.bool()])
        for row, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
    ]
    assert all(a.endswith("<|im_end|>") for a in answers)
    # Chosen first, then rejected, and all of each answer: nothing was cut.
    assert {a.removesuffix("<|im_end|>") for a in answers} == {f"{s} {r}" for s, r in REASONS.items()}
    assert all(a.split(".")[0] != b.split(".")[0] for a, b in zip(answers[:2], answers[2:], strict=True))


def log_p(model, batch):
    inputs = {k: v for k, v in batch.items() if k != "completion_mask"}
    return answer_log_p(model(**inputs).logits, batch["input_ids"], batch["completion_mask"])


def test_updates_start_at_nothing_and_the_loss_at_log_two(taught_vlm, folder, tmp_path):
    plain = load_vlm(taught_vlm, tokens=(4, 16))
    _, trainer = trainer_for(taught_vlm, folder, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = {k: v for k, v in batch.items() if k != "completion_mask"}
    trainer.model.eval()
    with torch.no_grad():
        assert torch.equal(trainer.model(**inputs).logits, plain.model(**inputs).logits)
    trainer.model.train()  # the updates' own dropout changes nothing while they are nothing
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(0.693147, abs=1e-6)


def test_trls_loss_is_ours(taught_vlm, folder, tmp_path):
    """With updates that are something, on the same batch, from logits that we read ourselves."""
    _, trainer = trainer_for(taught_vlm, folder, tmp_path)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in trainer.model.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.2)
    trainer.model.eval()
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        theirs = trainer.compute_loss(trainer.model, batch).item()
        now = log_p(trainer.model, batch).chunk(2)
        with trainer.model.disable_adapter():
            before = log_p(trainer.model, batch).chunk(2)
    assert abs(theirs - 0.693147) > 1e-3
    assert dpo_loss(*now, *before).item() == pytest.approx(theirs, abs=1e-5)


def test_merged_equals_unmerged(taught_vlm, folder, tmp_path):
    _, trainer = trainer_for(taught_vlm, folder, tmp_path)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in trainer.model.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.2)
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = {k: v for k, v in batch.items() if k != "completion_mask"}
    trainer.model.save_pretrained(str(tmp_path / "adapter"))
    merged = load_vlm(merge_adapter(taught_vlm, tmp_path / "adapter", tmp_path / "merged"), tokens=(4, 16))
    plain = load_vlm(taught_vlm, tokens=(4, 16))
    trainer.model.eval()
    with torch.no_grad():
        unmerged = trainer.model(**inputs).logits
        torch.testing.assert_close(merged.model(**inputs).logits, unmerged, atol=1e-5, rtol=1e-5)
        assert (plain.model(**inputs).logits - unmerged).abs().max() > 0.1


@pytest.fixture(scope="module")
def trained(taught_vlm, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    recipe = DpoRecipe(**(RECIPE | {"rate": 5e-3, "epochs": 20, "batch": 4}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "load_vlm", lambda *a, **k: load_vlm(*a, **k, tokens=(4, 16)))
        train(taught_vlm, folder, out, recipe)
        merge_adapter(taught_vlm, out / "adapter", out / "merged")
    return out


@pytest.mark.slow
def test_it_learns_to_prefer_the_chosen_answers(trained, taught_vlm, tiny_vlm):
    log = [line for line in json.loads((trained / "log.json").read_text()) if "rewards/margins" in line]
    assert log[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert log[-1]["loss"] < 0.5
    assert log[-1]["rewards/accuracies"] == 1
    # And the verdict moves: what was taught as dark = fake is turned round by the pairs.
    before, after = load_vlm(taught_vlm, tokens=(4, 16)), load_vlm(trained / "merged", tokens=(4, 16))
    for dark in (True, False):
        picture = tiny_vlm.picture(dark, 77)
        (old,), (new,) = (judge(v, [picture], rationale=False, least_mass=0) for v in (before, after))
        assert (old.logit > 0) == dark
        assert (new.logit > old.logit) == (not dark)


@pytest.mark.slow
def test_the_run_says_what_it_was(trained, taught_vlm):
    told = json.loads((trained / "recipe.json").read_text())
    assert (told["rank"], told["alpha"], told["beta"], told["pairs"]) == (16, 32, 0.05, 4)
    assert told["vlm"] == str(taught_vlm)
    assert (trained / "adapter" / "adapter_model.safetensors").is_file()
    assert {p.suffix for p in (trained / "adapter").iterdir()} <= {".safetensors", ".json", ".md"}  # no pickle


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on(taught_vlm, folder, tmp_path, monkeypatch):
    recipe = DpoRecipe(**(RECIPE | {"epochs": 2, "save_every": 1, "rate": 1e-3}))
    whole = train(taught_vlm, folder, tmp_path / "whole", recipe)

    class StopError(Exception):
        pass

    def stopping(*arguments):
        from transformers import TrainerCallback

        class Stop(TrainerCallback):
            def on_save(self, args, state, control, **_):
                if state.global_step == 2:
                    raise StopError

        trainer = make_trainer(*arguments)
        trainer.add_callback(Stop())
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(training, "make_trainer", stopping)
        with pytest.raises(StopError):
            train(taught_vlm, folder, tmp_path / "cut", recipe)
    cut = train(taught_vlm, folder, tmp_path / "cut", recipe)
    from safetensors.torch import load_file

    one, other = (load_file(f / "adapter_model.safetensors") for f in (whole, cut))
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, atol=1e-6, rtol=1e-4)
    with pytest.raises(SettingError, match="same recipe"):
        train(taught_vlm, folder, tmp_path / "cut", DpoRecipe(rank=2))


def test_pictures_reach_the_trainer_as_they_were_stored(taught_vlm, folder):
    vlm = load_vlm(taught_vlm, tokens=(4, 16))
    pairs = read_pairs(folder)
    rows = preference_rows(vlm, folder, pairs)
    for row, pair in zip(rows, pairs, strict=True):
        assert np.array_equal(np.asarray(row["images"][0]), np.asarray(Image.open(folder / pair.image)))


@pytest.mark.parametrize("text", ["[1]", "{", '{"learning_rate": 1}', "3"])
def test_a_recipe_that_is_none_is_refused(text):
    with pytest.raises(SettingError, match="recipe takes a JSON object with some of rate, rank, alpha"):
        DpoRecipe.parse(text)


def test_impure_pairs_stop_the_command_before_a_model_is_loaded(folder, tmp_path):
    impure = tmp_path / "pairs"
    impure.mkdir()
    tag(impure, Task.PIXEL)
    done = CliRunner().invoke(
        app, ["train", "--folder", str(impure), "--vlm", "no/model", "--out", str(tmp_path / "o")]
    )
    assert done.exit_code == 1
    assert "pixel task" in str(done.exception)


def test_merging_refuses_what_is_no_adapter_and_a_folder_that_is_taken(taught_vlm, tmp_path):
    with pytest.raises(SettingError, match=r"adapter takes a folder with adapter_model\.safetensors"):
        merge_adapter(taught_vlm, tmp_path, tmp_path / "out")
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(SettingError, match="out takes a new folder"):
        merge_adapter(taught_vlm, tmp_path, tmp_path)
