"""Loading a vision-language model: by folder or name, safetensors only, no code, no download; errors name the file."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tellsign.errors import SettingError, WeightsError
from tellsign.plugin import UnavailableError

pytest.importorskip("transformers", reason="the judge runs through transformers")

from tellsign.towers import vlm as loading
from tellsign.towers.vlm import folder_of, load_vlm


@pytest.fixture
def folder(taught_vlm, tmp_path):
    """A copy to damage."""
    return shutil.copytree(taught_vlm, tmp_path / "model")


def edit(file, **changes):
    content = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in (content | changes).items() if v is not None}))


def drop_tensor(folder):
    file = folder / "model.safetensors"
    state = load_file(file)
    del state[next(name for name in state if name.endswith("layers.1.mlp.up_proj.weight"))]
    save_file(state, file, {"format": "pt"})


def reshape_tensor(folder):
    file = folder / "model.safetensors"
    state = load_file(file)
    state["lm_head.weight"] = state["lm_head.weight"][:, :-1].contiguous()
    save_file(state, file, {"format": "pt"})


def add_tensor(folder):
    file = folder / "model.safetensors"
    save_file(load_file(file) | {"model.language_model.extra": torch.zeros(2)}, file, {"format": "pt"})


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickle_only(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def index_without_shard(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def index_outside(folder):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))


def no_template(folder):
    (folder / "chat_template.jinja").unlink()


def no_image_token(folder):
    """A tokenizer that lost what marks a picture's place."""
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "<|image_pad|>"]
    file.write_text(json.dumps(content))
    edit(folder / "tokenizer_config.json", extra_special_tokens=None, additional_special_tokens=None)


DAMAGES = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: the file is not there"),
    "config of nothing": (lambda f: (f / "config.json").write_text("[]"), "config.json: is no model's configuration"),
    "another model": (
        lambda f: edit(f / "config.json", model_type="llama"),
        "config.json: is of a model of type 'llama'",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: the file is not there"),
    "pickled weights": (pickle_only, "pytorch_model.bin is not read"),
    "cut weights": (cut, "model.safetensors: cannot be read as safetensors"),
    "a tensor less": (drop_tensor, "layers.1.mlp.up_proj.weight is missing"),
    "a tensor more": (add_tensor, "model.language_model.extra is no part of the model"),
    "a tensor of another shape": (reshape_tensor, "lm_head.weight has shape ("),
    "a shard less": (index_without_shard, "model-00002-of-00002.safetensors: the file is not there"),
    "a shard elsewhere": (index_outside, "names a file outside its folder"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: the file is not there"),
    "no image processor": (
        lambda f: (f / "processor_config.json").unlink(),
        "preprocessor_config.json: the file is not there",
    ),
    "no chat template": (no_template, "chat_template.jinja: the file is not there"),
    "no image token": (no_image_token, "tokenizer.json"),
    "another image token": (
        lambda f: edit(f / "config.json", image_token_id=3),
        "tokenizer.json: gives <|image_pad|> the id",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_folder_is_an_error_that_names_the_file(what, folder):
    damage, words = DAMAGES[what]
    damage(folder)
    with pytest.raises(WeightsError) as caught:
        load_vlm(folder)
    assert words in str(caught.value)
    assert folder.name in str(caught.value)


def test_an_adapter_alone_says_what_to_do(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"merge the two first"):
        load_vlm(tmp_path)


def test_shards_load_as_one_file_does(taught_vlm, folder, tmp_path):
    whole = load_vlm(folder)
    whole.model.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    whole.processor.save_pretrained(tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    shards = load_vlm(tmp_path / "shards")
    for (name, a), (_, b) in zip(whole.model.named_parameters(), shards.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_code_that_comes_with_a_model_does_not_run(folder, tmp_path):
    marker = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Evil: pass\n")
    classes = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoProcessor"), "evil.Evil")
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        edit(folder / name, auto_map=classes)
    load_vlm(folder)
    assert not marker.exists()


def test_weights_keep_their_dtype_where_that_is_asked_for(folder):
    load_vlm(folder).model.bfloat16().save_pretrained(folder)
    assert load_vlm(folder, stored_dtype=True).model.dtype == torch.bfloat16
    assert not load_vlm(folder, stored_dtype=True).exact
    assert load_vlm(folder).exact


@pytest.mark.parametrize("vlm", ["nowhere", "./no/such/folder", "a/b/c", "../x/y", "name with space/x"])
def test_what_is_neither_a_folder_nor_a_repository_is_refused(vlm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match=r"^vlm takes a folder that is there, or a repository"):
        folder_of(vlm)


def test_a_name_is_looked_up_on_this_machine_only(monkeypatch, tmp_path):
    asked = []

    def snapshot(**options):
        asked.append(options)
        raise FileNotFoundError("not cached")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnavailableError, match=r"hf download Some/Model.*download=true"):
        folder_of("Some/Model")
    assert [o["local_files_only"] for o in asked] == [True]


def test_a_download_takes_neither_pickles_nor_code(monkeypatch, taught_vlm, tmp_path):
    asked = []

    def snapshot(**options):
        asked.append(options)
        if options.get("local_files_only"):
            raise FileNotFoundError("not cached")
        return str(taught_vlm)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    assert folder_of("Some/Model@abc123", download=True) == taught_vlm
    assert asked[-1]["repo_id"] == "Some/Model"
    assert asked[-1]["revision"] == "abc123"
    from fnmatch import fnmatch

    def taken(name):
        return any(fnmatch(name, p) for p in asked[-1]["allow_patterns"])

    assert not any(map(taken, ("pytorch_model.bin", "model.pt", "modeling_x.py", "weights.pkl", "model.gguf")))
    assert all(map(taken, ("config.json", "model-00001-of-00002.safetensors", "chat_template.jinja", "merges.txt")))


def test_a_download_that_fails_names_the_repository(monkeypatch, tmp_path):
    def snapshot(**options):
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"Some/Model: cannot be had from the hub \(OSError: no route"):
        folder_of("Some/Model", download=True)


def test_the_name_tells_what_spoke(taught_vlm, tmp_path):
    assert load_vlm(taught_vlm).name == "vlm taught"
    assert loading.name_of("Some/Model@main", tmp_path / "0123456789abcdef") == "vlm Some/Model 01234567"


@pytest.mark.parametrize("tokens", [(0, 4), (5, 4)])
def test_a_picture_budget_that_makes_no_sense_is_refused(taught_vlm, tokens):
    with pytest.raises(SettingError, match=r"^tokens takes"):
        load_vlm(taught_vlm, tokens=tokens)


def test_the_layout_in_which_models_are_published_loads_too(taught_vlm, folder, tiny_vlm):
    """Repositories older than transformers 5: a flat config.json, preprocessor_config.json, chat_template.json."""
    from tellsign.plugins.semantic.judge.judge import judge

    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text.pop("model_type")
    config |= text | {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "processor_config.json").unlink()
    published = {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(published))
    (folder / "chat_template.jinja").rename(folder / "x")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": (folder / "x").read_text()}))
    pictures = [tiny_vlm.picture(d, 4) for d in (True, False)]
    old, new = (load_vlm(f, tokens=(4, 16)) for f in (folder, taught_vlm))
    assert judge(old, pictures) == judge(new, pictures)
    assert all(n.startswith(("model.layers", "model.embed", "model.norm", "visual.", "lm_head")) for n in names(folder))


def names(folder):
    return load_file(folder / "model.safetensors")
