"""What the pages' trainings want to find, small: folders of pictures, networks of the published shapes, settings."""

import json

import numpy as np
import tiny
from blocks import ROOT
from recipe import Recipe, module_of

THIN = """
import attrs, torch
from safetensors.torch import save_file
from tellsign.weights import SPECS, clip_tower_layout, path_of
spec = attrs.evolve(SPECS["clip-vit-b16"], layout=clip_tower_layout(width=64, layers=12, patch=16, size=224, out=32))
SPECS[spec.name] = spec
made = torch.Generator().manual_seed(0)
tensors = {n: (torch.randn(s, generator=made) * .1 + ("ln_" in n and n.endswith("weight"))).half()
           for n, s in spec.layout.items()}
told = {"name": spec.name, "source": "file", "origin": "random", "tensors_sha256": ""}
path_of(spec.name).parent.mkdir(parents=True, exist_ok=True)
save_file(tensors, path_of(spec.name), {f"tellsign.{k}": v for k, v in told.items()})
"""
"""The CLIP tower with all its blocks, a twelfth of its width and random values: it trains what reads tokens."""

FAMILIES = [
    *((label, f"{'fake' if label else 'real'}{n}", "fit") for label in (0, 1) for n in range(4)),
    *((label, f"{'new' if label else 'other'}{n}", "fuse") for label in (0, 1) for n in range(2)),
    *((label, f"{'last' if label else 'late'}{n}", "test") for label in (0, 1) for n in range(1)),
]
"""As many sources as four folds want, and no more."""


def lite0(file):
    """EfficientNet-lite0 under the names of the package that has its weights, at random."""
    import torch

    from tellsign.towers.lite import LiteTrunk

    torch.manual_seed(0)
    layers = {"expand": ("_expand_conv", "_bn0"), "deep": ("_depthwise_conv", "_bn1"), "out": ("_project_conv", "_bn2")}
    state = {}
    for name, value in LiteTrunk(folded=False).state_dict().items():
        first, *rest, part, kind = name.split(".")
        if first == "blocks":
            number, _, layer = rest
            names = layers[("deep", "out", "")[int(layer)] if number == "0" else ("expand", "deep", "out")[int(layer)]]
            state[f"_blocks.{number}.{names[part == 'norm']}.{kind}"] = value
        else:
            names = {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}[first]
            state[f"{names[part == 'norm']}.{kind}"] = value
    torch.save(state, file)


def hub(folder, repo, commit="0" * 40):
    """The folder of a repository's one commit in the hub's own cache, still empty; `CACHE` says where that is."""
    base = folder / "cache" / ("models--" + repo.replace("/", "--"))
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text(commit)
    (base / "blobs").mkdir()
    out = base / "snapshots" / commit
    out.mkdir(parents=True)
    return out


CACHE = """
import os
os.environ["HF_HUB_CACHE"] = os.path.abspath("cache")
"""
"""Before anything of the hub's is imported."""


# -- artifacts.md -------------------------------------------------------------------------------------------------


def domains(folder):
    """A photograph and a generated picture, one with a line of lettering."""
    from PIL import Image, ImageDraw, ImageFont

    pictures = tiny.labelled(folder / "listed", 1, (420, 300))
    image = Image.open(pictures[1][0])
    font = ImageFont.load_default(40)
    ImageDraw.Draw(image).text((20, 120), "HARNTOPLE", fill="white", stroke_width=2, stroke_fill="black", font=font)
    image.save(pictures[1][0], quality=95)
    columns = {"domain": lambda n, label: ("photo", "generated")[label], "source": lambda n, label: "ab"[label]}
    tiny.table(folder / "pictures.csv", pictures, **columns)


def annotated_and_natural(folder):
    """X-AIGD, and photographs with enough patches for a model of them."""
    tiny.x_aigd(folder / "X-AIGD")
    for n in range(3):
        tiny.picture(folder / "photos" / f"{n}.jpg", n, (900, 700))


def annotated_to_train(folder):
    """X-AIGD's two splits, and in the hub's cache the encoder that it starts from."""
    from safetensors.torch import save_file

    tiny.x_aigd(folder / "X-AIGD")
    there = folder / "X-AIGD" / "labeled_test-00000-of-00001.parquet"
    there.with_name(there.name.replace("test", "train")).write_bytes(there.read_bytes())
    for n in range(6):
        tiny.picture(folder / "photos" / f"{n}.jpg", n)
    import timm
    import torch

    torch.manual_seed(0)
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    save_file(net.state_dict(), hub(folder, "timm/tf_efficientnet_lite0.in1k") / "model.safetensors")
    takes = "from tellsign.plugins.segmentation.training.artifacts.recipe import Recipe\n"
    small = {"steps": 2, "side": 64, "batch": 2, "width": 8, "validation": 0.3}
    return f"{CACHE}{takes}Recipe.__init__.__kwdefaults__.update({small!r})\n"


# -- tuning.md ----------------------------------------------------------------------------------------------------


def user_and_test(folder):
    """Just enough pictures of `user` to tune on, and a few of `test`."""
    tiny.shared(folder / "SHARED", [(0, "own", "user"), (1, "new", "user")], each=14, size=(340, 330))
    there = folder / "SHARED" / "data"
    rest = tiny.shared(folder / "REST", [(0, "pets", "test"), (1, "dalle", "test")], each=3, size=(340, 330)) / "data"
    for source in (rest / "crop").iterdir():
        source.rename(there / "crop" / source.name)
    lines = (rest / "manifest.csv").read_text().splitlines(keepends=True)[1:]
    with (there / "manifest.csv").open("a") as file:
        file.writelines(lines)
    splits = [json.loads((x / "splits.json").read_text()) for x in (there, rest)]
    (there / "splits.json").write_text(json.dumps({k: splits[k == "test"][k] for k in splits[0]}))
    tiny.whole(folder / "FULL")


def scores_of_fuse(folder):
    """The score table of a fusion's training: one of the domains, and other sources beside it; two lines a picture."""
    (folder / "WORK").mkdir()
    names = ["pixel.tower", "pixel.residual", "reasoning.tower", "semantic.tower"]
    rng = np.random.default_rng(0)
    lines = [",".join(["label", "source", "group", *names])]
    sources = {"real_picsum_unsplash": 0, "muse": 1, "phone": 0, "scans": 0, "sdxl": 1, "flux": 1}
    for source, label in sources.items():
        for n in range(36 if source in ("real_picsum_unsplash", "muse") else 24):
            values = rng.normal(label, 1.5, len(names))
            lines += [",".join([str(label), source, f"{source}/{n}", *(f"{x:.3f}" for x in values)])] * 2
    (folder / "WORK" / "fuse.csv").write_text("\n".join(lines) + "\n")


# -- vlm.md -------------------------------------------------------------------------------------------------------


def tiny_qwen(folder):
    """A model of the class, of random weights, under the published one's name in the hub's cache."""
    tiny_vlm = module_of("tests/plugins/tiny_vlm.py")
    tok = tiny_vlm.tokenizer(tiny_vlm.corpus())
    tiny_vlm.save(hub(folder, "Qwen/Qwen2.5-VL-7B-Instruct"), tiny_vlm.model(tok), tiny_vlm.processor(tok))
    tiny.picture(folder / "photo.jpg", 5)
    return CACHE


# -- provenance.md ------------------------------------------------------------------------------------------------


def index_of_extras(folder):
    """A package index with what the extras want and this environment has not: empty packages of those names."""
    import tomllib
    import zipfile
    from importlib import metadata

    from packaging.requirements import Requirement

    (folder / "index").mkdir()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for wanted in map(Requirement, extras["provenance"] + extras["trustmark"]):
        (least,) = wanted.specifier
        try:
            metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            info = f"{wanted.name.replace('-', '_')}-{least.version}"
            about = {
                "METADATA": f"Metadata-Version: 2.1\nName: {wanted.name}\nVersion: {least.version}\n",
                "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                "RECORD": "",
            }
            with zipfile.ZipFile(folder / "index" / f"{info}-py3-none-any.whl", "w") as wheel:
                for file, text in about.items():
                    wheel.writestr(f"{info}.dist-info/{file}", text)


# -- README.md ----------------------------------------------------------------------------------------------------


def tower_on_an_index(folder):
    """A package index of one wheel with a tower of the entry's kind, and the registry's pins for that one."""
    made = module_of("tests/sdk/test_weights.py")
    (folder / "index").mkdir()
    data, _, _ = made.quantised_onnx(made.tower())
    made.wheel(folder / "index", data)
    return f"""
import os, attrs
from tellsign.weights import registry
os.environ |= {{"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "index", "PIP_CONFIG_FILE": os.devnull}}
spec = registry.SPECS["clip-vit-b16"]
pins = {{"package": "tinytower", "version": "1.0", "member": {made.MEMBER!r}, "sha256": None, "tensors_sha256": None}}
layout = registry.clip_tower_layout(width=8, layers={made.LAYERS}, patch=4, size=8, out=6)
registry.SPECS[spec.name] = attrs.evolve(spec, layout=layout, index=attrs.evolve(spec.index, **pins))
"""


def plugin_and_reports(folder):
    """Pictures to tune on, the pictures and the reports of the README, and the plugin of the block before."""
    tiny.labelled(folder / "my-pictures", 21, (224, 224))
    tiny.picture(folder / "photo.jpg", 5)
    tiny.labelled(folder / "labelled", 2, (340, 330))
    return """
from typer.testing import CliRunner
from tellsign.cli.app import app
for words in (
    ["plugins", "new", "smudge"],
    ["eval", "labelled", "--no-stability", "--plugin", "reasoning", "--json", "before.json"],
    ["eval", "labelled", "--no-stability", "--plugin", "semantic", "--json", "after.json"],
):
    done = CliRunner().invoke(app, words)
    assert done.exit_code in (0, 1), done.output
"""


# -- segmentation.md ----------------------------------------------------------------------------------------------


def photos_to_forge(folder):
    """Pictures of two splits, the networks that forge, and settings that let a network train in a moment."""
    for split, first in (("FIT", 0), ("FUSE", 100)):
        pictures = tiny.labelled(folder / split.lower(), 3, (440, 420), first)
        tiny.table(folder / f"{split}.csv", pictures, source=lambda n, label: f"{label}{n}")
    tiny.migan(folder / "migan_pipeline_v2.onnx")
    tiny.autoencoder(folder / "taesd")
    tiny.doubler(folder / "real_esrgan_x2.onnx")
    lite0(folder / "LITE0.pth")
    return """
import attrs
from tellsign.plugins.segmentation.training.recipe import Recipe
whole = Recipe.parse.__func__
small = {"side": 64, "batch": 2, "epochs": 1, "share": .1, "validation": .3, "validation_crops": 1, "validate_every": 1}
Recipe.parse = classmethod(lambda cls, *told: attrs.evolve(whole(cls, *told), **small))
"""


def forged_and_quiet(folder):
    draw = module_of("tests/plugins/segmentation_toys.py").draw_forged
    draw(folder / "FORGED_FUSE", side=256)
    draw(folder / "QUIET_FUSE", count=1, side=256, seed=1)


# -- semantic.md, reasoning.md, pixel.md --------------------------------------------------------------------------


def the_projects(folder, each=2, size=(340, 330)):
    """SHARED and WHOLE, with as many sources as the trainings' folds want."""
    tiny.shared(folder / "SHARED", FAMILIES, each=each, size=size)
    tiny.whole(folder / "WHOLE")


FEW = """
from tellsign.plugins.semantic.training import export, lite
for makes in (export.fit_head, lite.calibration):
    makes.__kwdefaults__["least"] = 2
"""
"""Two pictures of a source have a say in the threshold; it takes twenty elsewhere."""


def to_train_semantics(folder):
    the_projects(folder)
    (folder / "SKIPPED").write_text("path,why\n")
    lite0(folder / "LITE0")
    pairs(folder / "PAIRS")
    declared(folder, "semantic")
    return THIN + FEW


def declared(folder, plugin):
    """The plugin's declaration where the repository has it, for hashes that are written into it."""
    there = folder / "plugins" / plugin / "tellsign.json"
    there.parent.mkdir(parents=True)
    there.write_bytes((ROOT / "plugins" / plugin / "tellsign.json").read_bytes())


def pairs(folder):
    """What the pixel plugin's `prepare` writes of pairs, and nobody tagged."""
    folder.mkdir()
    real = np.random.default_rng(0).integers(0, 256, (6, 256, 256, 3), dtype=np.uint8)
    np.save(folder / "pairs_real.npy", real)
    np.save(folder / "pairs_fake.npy", real // 2)


def minilm(folder):
    """A sentence encoder of MiniLM's classes with random weights and a vocabulary of a few words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "this", "is", "a", "real", "fake", "image", "camera", "network", "."]
    raw = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)


SQUARES = """
from typer.testing import CliRunner
from tellsign.plugins.reasoning.training import export
from tellsign.plugins.semantic.training.__main__ import app
export.LEAST = 2
for line in ("prepare --shared SHARED --full WHOLE --out SEMANTIC", "features --folder SEMANTIC"):
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 0, done.output
"""


def to_train_reasons(folder):
    the_projects(folder, each=3)
    (folder / "SKIPPED").write_text("path,why\n")
    lite0(folder / "LITE0")
    minilm(folder / "MINILM")
    draw = module_of("tests/plugins/segmentation_toys.py").draw_forged
    for seed, name in enumerate(("FORGED_A", "FORGED_B", "FORGED_FUSE")):
        draw(folder / name, side=256, seed=seed)
    declared(folder, "reasoning")
    return THIN + SQUARES


SCORED_WITH_THE_TOWER = """
import pathlib, shutil
import numpy as np
from tellsign.data.forged import read_forged
from tellsign.data.rows import read_rows
from tellsign.data import scoring
scoring.VERSIONS = 1
shutil.copy(path_of(spec.name), "TOWER")
rows = [r for r in read_rows(pathlib.Path("SHARED/data")) if r.split == "fuse"]
rows += [r for r in read_forged(pathlib.Path("FORGED_FUSE"), "fuse-forged") if r.label == 0]
rng = np.random.default_rng(0)
for plugin in ("pixel", "reasoning", "semantic"):
    lines = {scoring.key_of(r, 0): {f"{plugin}.tower": float(rng.normal(r.label))} for r in rows}
    scoring.write_scores(pathlib.Path(f"SCORES/scores-{plugin}-tower.jsonl"), lines)
"""
"""What a machine with the tower has scored already, at random; what a machine without it says is left to score."""


def to_train_pixels(folder):
    the_projects(folder, each={"fit": 2, "fuse": 5, "test": 1}, size=(400, 390))
    for name in ("taesd", "taesdxl", "taesd3", "taef1", "taef2"):
        tiny.autoencoder(folder / "SHARED" / "weights" / "taesd", name)
    module_of("tests/plugins/segmentation_toys.py").draw_forged(folder / "FORGED_FUSE", side=256)
    declared(folder, "pixel")
    return THIN + SCORED_WITH_THE_TOWER


# -- the blocks ---------------------------------------------------------------------------------------------------

SEGMENTATION, SEMANTIC, REASONING, PIXEL = (
    f"python -m tellsign.plugins.{name}.training" for name in ("segmentation", "semantic", "reasoning", "pixel")
)

RECIPES = [
    Recipe("README.md", "tellsign models fetch", tower_on_an_index, needs=("onnx", "pip"), says=("tinytower",)),
    Recipe(
        "README.md",
        "tellsign tune my-pictures/",
        plugin_and_reports,
        needs=("pip", "setuptools"),
        more={"tellsign bench": "--quick --pairs 3 --only floor"},
        wrote=("my-fusion/manifest.json", "audit.html"),
        says=("17 passed, of 17 checks", "host's floor"),
        home="tuning.md",
    ),
    Recipe(
        "artifacts.md",
        "python -m tellsign.plugins.artifacts.measure look",
        domains,
        needs=("rapidocr", "wordfreq"),
        wrote=("seen.jsonl", "table.json"),
        says=("Fires on: generated/b 1 of 1",),
    ),
    Recipe("artifacts.md", "python -m tellsign.artifacts.niqe", annotated_and_natural, wrote=("quality.csv",)),
    Recipe(
        "artifacts.md",
        'R="python -m tellsign.plugins.segmentation.training.artifacts"',
        annotated_to_train,
        wrote=tuple(f"runs/{mode}/run.safetensors" for mode in ("pad", "transfer", "both")),
    ),
    Recipe(
        "tuning.md",
        "python -m tellsign.tuning.experiment",
        user_and_test,
        more={"python -m tellsign.tuning.experiment run": "--draws 1 --sizes 20"},
        wrote=("offline.csv", "offline.json"),
        says=("| 20 | off | 1 of 1 |",),
    ),
    Recipe(
        "tuning.md",
        "python -m tellsign.tuning.ways",
        scores_of_fuse,
        more={"python -m tellsign.tuning.ways": "--draws 1 --size 20"},
        wrote=("bases/stock/manifest.json",),
        says=("chosen by inner folds |",),
    ),
    Recipe("vlm.md", "hf download", tiny_qwen),
    Recipe("provenance.md", 'pip install "tellsign[provenance]"', index_of_extras, needs=("pip", "c2pa", "defusedxml")),
    Recipe(
        "segmentation.md",
        "python -m tellsign.plugins.segmentation.training speed",
        lambda folder: None,
        more={f"{SEGMENTATION} speed": "--sizes 320x240"},
        says=("| 320x240 |",),
    ),
    Recipe(
        "segmentation.md",
        "tellsign forge FIT.csv",
        photos_to_forge,
        needs=("onnx", "onnxruntime"),
        more={
            "tellsign forge": "--scenes 2 --quiet",
            f"{SEGMENTATION} pretrain": "--steps 2",
            f"{SEGMENTATION} merge": "--limit 1",
            f"{SEGMENTATION} calibrate": "--limit 1 --conditions native",
        },
        wrote=("BOTH/shift.json", "plugins/segmentation/weights/gamma.safetensors"),
    ),
    Recipe(
        "segmentation.md",
        "python -m tellsign.plugins.segmentation.training levels",
        forged_and_quiet,
        more={f"{SEGMENTATION} levels": "--limit 1"},
        says=("own cut",),
    ),
    Recipe(
        "semantic.md",
        "python -m tellsign.plugins.semantic.training prepare",
        to_train_semantics,
        more={f"{SEMANTIC} transfer": "--count 4", f"{SEMANTIC} lora": "--seeds 0,1"},
        wrote=("plugins/semantic/weights/semantic-student.safetensors", "LORA/table.json", "WORK/transfer.json"),
    ),
    Recipe(
        "reasoning.md",
        "python -m tellsign.plugins.reasoning.training tokens",
        to_train_reasons,
        more={f"{REASONING} ablation": "--rows 'label only;sequential, LoRA'"},
        wrote=("plugins/reasoning/weights/reasoning-student.safetensors", "ABLATION/table.json"),
    ),
    Recipe(
        "pixel.md",
        "python -m tellsign.plugins.pixel.training prepare",
        to_train_pixels,
        more={f"{PIXEL} prepare": "--count 8", "python -m tellsign.data.default_fusion": "--as-is 1"},
        wrote=("plugins/pixel/weights/pixel-tower.safetensors", "fusion/default/manifest.json"),
    ),
]
"""Run by `test_commands.py`, as its own."""
