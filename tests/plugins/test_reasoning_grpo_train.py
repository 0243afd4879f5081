"""AIGI-R1's recipe end to end on a tiny model: trl's loss against ours, the prompt, and a reward that rises."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tellsign.data.labelled import LabelledPicture
from tellsign.errors import SettingError

pytest.importorskip("transformers", reason="AIGI-R1 is a model of transformers'")
pytest.importorskip("trl", reason="training AIGI-R1 needs the extra train-vlm")
pytest.importorskip("peft", reason="training AIGI-R1 needs the extra train-vlm")

from typer.testing import CliRunner

from tellsign.plugins.reasoning.training.grpo import train as training
from tellsign.plugins.reasoning.training.grpo.__main__ import app
from tellsign.plugins.reasoning.training.grpo.loss import grpo_loss
from tellsign.plugins.reasoning.training.grpo.prompt import QUESTION, SYSTEM, messages
from tellsign.plugins.reasoning.training.grpo.train import GrpoRecipe, make_trainer, make_views, train
from tellsign.towers.vlm import load_vlm
from tellsign.towers.vlm_adapter import merge_adapter
from tellsign.towers.vlm_training import read_pixels

FAKE = "<think>six</think><answer>fake</answer>"
REAL = "<think>five</think><answer>real</answer>"
RECIPE = {"group": 8, "pictures": 2, "accumulate": 1, "new_tokens": 12, "checkpointing": False}


@pytest.fixture(scope="module")
def unsure(tiny_vlm, tmp_path_factory):
    """Folder of a model that answers in the right form, and as often as not wrongly: right two times in three."""
    tok = tiny_vlm.tokenizer([FAKE, REAL, SYSTEM, QUESTION, "system user assistant"] * 3)
    tok.add_tokens(["<think>", "</think>", "<answer>", "</answer>"])
    proc, net = tiny_vlm.processor(tok), tiny_vlm.model(tok)
    conversation = [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]},
    ]
    prompt = proc.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    said = [(True, FAKE), (True, FAKE), (True, REAL), (False, REAL), (False, REAL), (False, FAKE)]
    examples = [(tiny_vlm.picture(dark, seed), answer) for seed, (dark, answer) in enumerate(said)]
    tiny_vlm.teach(net, proc, examples, steps=120, rate=5e-3, prompt=prompt)
    return tiny_vlm.save(tmp_path_factory.mktemp("vlm") / "unsure", net, proc)


@pytest.fixture
def views(tiny_vlm, tmp_path):
    out = []
    for dark in (True, False):
        file = tmp_path / f"{dark}.png"
        Image.fromarray(tiny_vlm.picture(dark, 10, (56, 56))).save(file)
        out.append(LabelledPicture(path=file, fake=dark, group=""))
    return out


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(training, "load_vlm", lambda *a, **k: load_vlm(*a, **k, tokens=(4, 4)))


def trainer_for(folder, views, out, **changes):
    return make_trainer(load_vlm(folder, tokens=(4, 4)), views, GrpoRecipe(**(RECIPE | changes)), out)


def test_the_recipe_is_the_reported_one(unsure, views, tmp_path):
    trainer = make_trainer(load_vlm(unsure, tokens=(4, 4)), views, GrpoRecipe(), tmp_path)
    args = trainer.args
    assert (args.learning_rate, args.beta, args.epsilon) == (1e-6, 0.04, 0.2)
    assert (args.loss_type, args.scale_rewards) == ("grpo", "group")
    assert (args.num_generations, args.temperature, args.max_completion_length) == (8, 1.0, 512)
    assert [f.__name__ for f in trainer.reward_funcs] == ["detection_reward", "format_reward"]
    assert trainer.reward_weights.tolist() == [1, 1]
    learning = {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert learning
    assert all("lora_" in n and "language_model" in n for n in learning)


def test_the_question_is_the_papers():
    system, user = messages()
    assert user["content"] == "Is this image AI-generated or camera-captured? Please analyze and provide a judgment"
    assert all(tag in system["content"] for tag in ("<think>", "</think>", "<answer>", "</answer>"))


def scored(trainer):
    """One batch of answers as trl prepares it."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    batch = next(iter(trainer.get_train_dataloader()))
    return trainer._prepare_inputs(batch)


def test_trls_loss_is_ours(unsure, views, tmp_path):
    """On one batch of drawn answers, with updates that are something so that the reference differs."""
    trainer = trainer_for(unsure, views, tmp_path)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in trainer.model.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
    inputs = scored(trainer)
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    length = inputs["completion_ids"].shape[1]
    pictures = {k: inputs[k] for k in ("pixel_values", "image_grid_thw", "mm_token_type_ids")}

    def log_p():
        logits = trainer.model(input_ids=ids, attention_mask=attention, **pictures).logits[:, -length - 1 : -1]
        return logits.log_softmax(-1).gather(2, inputs["completion_ids"][..., None])[..., 0]

    with torch.no_grad():
        theirs = trainer.compute_loss(trainer.model, inputs).item()
        new = log_p()
        with trainer.model.disable_adapter():
            reference = log_p()
    assert (new - reference).abs().max() > 0.01
    ours = grpo_loss(new, new, reference, inputs["advantages"], inputs["completion_mask"])
    assert ours.item() == pytest.approx(theirs, abs=1e-5)


def test_the_whole_picture_and_the_whole_prompt_reach_the_model(unsure, views, tmp_path):
    trainer = trainer_for(unsure, views, tmp_path)
    inputs = scored(trainer)
    processor = trainer.processing_class
    text = processor.tokenizer.decode(inputs["prompt_ids"][0][inputs["prompt_mask"][0].bool()])
    assert SYSTEM in text
    assert QUESTION in text
    assert text.endswith("assistant\n")
    places = (inputs["prompt_ids"] == processor.image_token_id).sum(dim=1)
    assert places.tolist() == [4] * len(inputs["prompt_ids"])


@pytest.fixture(scope="module")
def trained(unsure, tiny_vlm, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    rows = []
    for dark in (True, False):
        (out / "views").mkdir(exist_ok=True)
        # What make_views would write, smaller: it keeps what is there.
        file = out / "views" / f"{len(rows):06d}.png"
        Image.fromarray(tiny_vlm.picture(dark, 10, (56, 56))).save(file)
        rows.append(LabelledPicture(path=file, fake=dark, group=""))
    recipe = GrpoRecipe(**(RECIPE | {"rate": 4e-3, "epochs": 14, "group": 12}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "load_vlm", lambda *a, **k: load_vlm(*a, **k, tokens=(4, 4)))
        assert train(unsure, rows, out, recipe, read=None) == []
    return out


@pytest.mark.slow
def test_the_reward_rises(trained):
    log = [line for line in json.loads((trained / "log.json").read_text()) if "reward" in line]
    assert len(log) == 14
    right = [line["rewards/detection_reward/mean"] for line in log]
    assert np.mean(right[-4:]) > np.mean(right[:2]) + 0.1
    assert log[0]["kl"] == pytest.approx(0, abs=1e-6)  # the updates start at nothing
    assert log[-1]["kl"] > 0
    for line in log:
        both = line["rewards/detection_reward/mean"] + line["rewards/format_reward/mean"]
        assert line["reward"] == pytest.approx(both, abs=1e-4)


@pytest.mark.slow
def test_what_was_learned_can_be_merged_and_loaded(trained, unsure, tmp_path):
    assert {p.suffix for p in (trained / "adapter").iterdir()} <= {".safetensors", ".json", ".md"}  # no pickle
    merged = load_vlm(merge_adapter(unsure, trained / "adapter", tmp_path / "merged"))
    before = load_vlm(unsure)
    changed = [n for (n, a), (_, b) in zip(*(m.model.named_parameters() for m in (before, merged)), strict=True)
               if not torch.equal(a, b)]  # fmt: skip
    assert changed
    assert all("self_attn" in n and "language_model" in n for n in changed)


def test_views_are_made_once_and_what_cannot_be_read_is_told(tmp_path):
    Image.fromarray(np.full((90, 120, 3), 200, np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    rows = [LabelledPicture(path=tmp_path / n, fake=f, group=n) for n, f in (("a.png", True), ("b.png", False))]
    views, unreadable = make_views(rows, tmp_path / "views", read=read_pixels)
    assert [v.fake for v in views] == [True]
    assert Image.open(views[0].path).size == (448, 336)
    assert len(unreadable) == 1
    assert "b.png" in unreadable[0]

    def never(path):
        raise AssertionError("it is there already")

    assert make_views(rows[:1], tmp_path / "views", read=never)[0] == views


def test_one_label_alone_and_a_folder_of_another_run_are_refused(tmp_path):
    Image.fromarray(np.zeros((90, 120, 3), np.uint8)).save(tmp_path / "a.png")
    rows = [LabelledPicture(path=tmp_path / "a.png", fake=True, group="a")]
    with pytest.raises(SettingError, match="1 that can be read, of one label"):
        train("no/model", rows, tmp_path / "out", GrpoRecipe(), read=read_pixels)
    (tmp_path / "out" / "recipe.json").write_text("{}")
    with pytest.raises(SettingError, match="same recipe, model and pictures"):
        train("no/model", rows, tmp_path / "out", GrpoRecipe(), read=read_pixels)


@pytest.mark.parametrize("text", ["[1]", "{", '{"learning_rate": 1}'])
def test_a_recipe_that_is_none_is_refused(text):
    with pytest.raises(SettingError, match="recipe takes a JSON object with some of rate, rank, alpha"):
        GrpoRecipe.parse(text)


def test_the_command_tells_what_is_missing(tmp_path):
    arguments = ["train", "--pictures", str(tmp_path / "no.csv"), "--vlm", "no/model", "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "pictures takes a CSV file" in str(done.exception)
