"""Blocks that need files of the reader's own, run word for word on small files of the names that they use.

README.md, artifacts.md, audit.md, cost.md, data.md, evaluation.md, forge.md, pixel.md, plugins.md, provenance.md,
reasoning.md, results.md, segmentation.md, semantic.md, tuning.md, vlm.md: a block with the mark `run by` has a recipe
here or in `trainings.py`, which makes what the block wants to find in its folder.
"""

import importlib.util
import os
import subprocess
import sys

import attrs
import numpy as np
import pytest
import tiny
import trainings
from blocks import ROOT, blocks, every_block
from driver import run
from recipe import Recipe, module_of

HERE = "tests/documents/test_commands.py"


def nothing(folder):
    """The block wants no files."""


def data(folder):
    pictures = tiny.labelled(folder / "DATA", 3)
    tiny.scores(folder / "scores.csv", pictures)
    peer = "def score(pictures):\n    return [float(p.pixels.mean()) / 255 for p in pictures]\n"
    (folder / "my_module.py").write_text(peer)


def two_reports(folder):
    """What a run of all detectors wrote, and a run of one."""
    tiny.labelled(folder / "DATA", 3)
    return TWO_RUNS


TWO_RUNS = """
from typer.testing import CliRunner
from tellsign.cli.app import app
for name, more in (("first.json", []), ("second.json", ["--plugin", "pixel"])):
    done = CliRunner().invoke(app, ["eval", "DATA", "--no-stability", "--json", name, *more])
    assert done.exit_code in (0, 1), done.output
"""


def audited(folder):
    tiny.table(folder / "labelled.csv", tiny.labelled(folder / "audited", 2, (340, 330)))
    tiny.autoencoder(folder / "WEIGHTS")


def listed(folder):
    tiny.table(folder / "pictures.csv", tiny.labelled(folder / "mine", 3, (330, 340)))


def own_domain(folder):
    """Just enough pictures to tune on; nothing tells the classes apart."""
    pictures = tiny.labelled(folder / "my-pictures", 21, (224, 224))
    columns = {"scene": lambda n, label: n, "generator": lambda n, label: ("", "ab"[n % 2])[label]}
    tiny.table(folder / "my.csv", pictures, **columns)
    tiny.picture(folder / "photo.jpg", 5)
    return VERDICTS


VERDICTS = """
from typer.testing import CliRunner
from tellsign.cli.app import app
done = CliRunner().invoke(app, ["detect", "my-pictures/real", "--json", "--no-stability"])
open("verdicts.jsonl", "w").write(done.stdout)
"""


def to_remember(folder):
    pictures = tiny.labelled(folder / "remembered", 2)
    tiny.table(folder / "training.csv", pictures, split=lambda n, label: "fit")


def photos(folder):
    for n in range(3):
        tiny.picture(folder / "photos" / f"{n}.jpg", n, (420, 400))


def photos_and_networks(folder):
    photos(folder)
    for n in range(2):
        tiny.picture(folder / "made" / f"{n}.png", 50 + n, (420, 400))
    tiny.migan(folder / "migan_pipeline_v2.onnx")
    tiny.autoencoder(folder / "taesd")


def photos_and_a_doubler(folder):
    photos(folder)
    tiny.doubler(folder / "real_esrgan_x2.onnx")


def table_of_scores(folder):
    """Of six pictures, at random."""
    names = ["pixel.tower", "pixel.bundled", "pixel.residual", "semantic.tower", "semantic.student"]
    rng = np.random.default_rng(0)
    lines = [",".join(["label", "source", "group", *names])]
    for n in range(12):
        lines.append(",".join([str(n % 2), "ab"[n % 2], f"g{n}", *(f"{x:.3f}" for x in rng.normal(size=len(names)))]))
    (folder / "WORK").mkdir()
    (folder / "WORK" / "fuse.csv").write_text("\n".join(lines) + "\n")


def annotated(folder):
    tiny.x_aigd(folder / "X-AIGD")
    for n in range(2):
        tiny.picture(folder / "photos" / f"{n}.jpg", n)


def file_and_anchors(folder):
    tiny.picture(folder / "photo.jpg", 1)
    (folder / "anchors.pem").write_bytes(module_of(FILES).Authority().pem)


def with_files_that_speak(folder):
    """Real pictures of both parts, one with a camera's EXIF, and generated ones with parameters."""
    files = module_of(FILES)
    camera = files.exif({files.MAKE: "Canon", files.MODEL: "Canon EOS R5"})
    out, rows = folder / "files", []
    out.mkdir()
    for n in range(4):
        (out / f"real{n}.jpg").write_bytes(files.saved("JPEG", files.scene(620, 560, seed=n), exif=camera))
        rows.append((out / f"real{n}.jpg", 0))
        (out / f"made{n}.png").write_bytes(
            files.png({"parameters": files.INFOTEXT.format("")}, files.scene(seed=10 + n))
        )
        rows.append((out / f"made{n}.png", 1))
    tiny.table(folder / "PICTURES.csv", rows, split=lambda n, label: ("fit", "test")[n // 2 % 2])


def projects(folder):
    kinds = [(0, "pets", "test"), (0, "phone", "test"), (1, "dalle", "test"), (1, "flux", "test")]
    tiny.shared(folder / "SHARED", kinds, each=1, size=(400, 390))
    tiny.whole(folder / "WHOLE")
    return TOWER


TOWER = """
import torch
from safetensors.torch import save_file
from tellsign.weights import SPECS, path_of
spec, made = SPECS["clip-vit-b16"], torch.Generator().manual_seed(0)
def draw(name, shape):
    return (torch.randn(shape, generator=made) * .02 + ("ln_" in name and name.endswith("weight"))).half()
told = {"name": spec.name, "source": "file", "origin": "random", "tensors_sha256": ""}
if not path_of(spec.name).is_file():
    path_of(spec.name).parent.mkdir(parents=True, exist_ok=True)
    tensors = {n: draw(n, s) for n, s in spec.layout.items()}
    save_file(tensors, path_of(spec.name), {f"tellsign.{k}": v for k, v in told.items()})
"""
"""A tower of the right shape with random values: it lets everything run and knows nothing."""


def with_and_without(folder):
    """One picture of each class, to be looked at with and without a plugin."""
    pictures = tiny.labelled(folder / "tested", 1, (330, 320))
    columns = {"source": lambda n, label: "ab"[label], "generator": lambda n, label: ("", "b")[label]}
    tiny.table(folder / "TEST.csv", pictures, **columns)
    return TOWER


def already_forged(folder):
    photos(folder)
    return FORGED


FORGED = """
from typer.testing import CliRunner
from tellsign.cli.app import app
done = CliRunner().invoke(app, ["forge", "photos", "--out", "FORGED_TEST", "--kinds", "untouched,copymove"])
assert done.exit_code == 0, done.output
"""


ENHANCED = FORGED.replace("FORGED_TEST", "ENHANCED").replace("untouched,copymove", "untouched,enhanced")


def enhanced(folder):
    """Photographs with their enhanced selves, and a table of those left alone."""
    photos(folder)
    tiny.table(folder / "PHOTOS.csv", [(folder / "photos" / f"{n}.jpg", 0) for n in range(3)])
    return ENHANCED


def table_of_maps(folder):
    head = "label,source,group,tampered,segmentation.manipulation_top"
    (folder / "FUSE.csv").write_text(f"{head}\n0,phone,a,0,0.4\n0,phone,b,1,0.97\n1,sdxl,c,-1,0.5\n")


def asked_without(folder):
    tiny.table(folder / "labelled.csv", tiny.labelled(folder / "asked", 2, (340, 330)))


def forged_for_alignment(folder):
    """The forgeries and the tower of the experiment's own tests, and settings that fit their size."""
    module = module_of("tests/sdk/test_alignment_experiment.py")
    module.forged(folder / "forged" / "nets")
    module.forged(folder / "forged" / "cheap")
    module.tiny_tower(folder / "clip-vit-b16.safetensors")
    small = attrs.asdict(module.small(seeds=1))
    takes = "from tellsign.alignment.experiment.setting import Setting\n"
    return f"{takes}Setting.__init__.__kwdefaults__.update({small!r})\n"


def tiny_judges(folder):
    """A vision-language model of random weights, labelled pictures, and a labeller that says what a large one would."""
    tiny_vlm = module_of("tests/plugins/tiny_vlm.py")
    tok = tiny_vlm.tokenizer(tiny_vlm.corpus())
    for name in ("MODEL", "LABELLER"):
        tiny_vlm.save(folder / name, tiny_vlm.model(tok), tiny_vlm.processor(tok))
    tiny.table(folder / "labelled.csv", tiny.labelled(folder / "judged", 2))
    tiny.picture(folder / "photo.jpg", 5)
    return SAYS


SAYS = """
from tellsign.plugins.semantic.training.dpo import labeller
said = {"This image is fake.": "The hand has six fingers.", "This image is real.": "The shadows fall to one side."}
labeller.vlm_labeller = lambda model, **more: lambda images, sentences: [said[s] for s in sentences]
"""

TRAIN_VLM = ("transformers", "trl", "peft", "datasets")
PROVENANCE = ("c2pa", "cryptography")
FILES = "tests/plugins/provenance_files.py"
ANY = {"eval": (0, 1)}
"""No AUC is an exit status of its own, and six random pictures may all be uncertain."""

RECIPES = [
    Recipe("evaluation.md", "tellsign eval DATA --json", data, allowed=ANY, wrote=("numbers.json", "report.html")),
    Recipe("evaluation.md", "tellsign eval DATA --peer", data, allowed=ANY),
    Recipe("evaluation.md", "tellsign compare", two_reports),
    Recipe("data.md", "tellsign eval pictures.csv", listed, allowed=ANY, wrote=("numbers.json",)),
    Recipe("audit.md", "tellsign audit", audited, wrote=("audit.html", "audit.json")),
    Recipe(
        "forge.md", "tellsign forge photos/ --out forged/ --kinds untouched", photos, wrote=("forged/manifest.csv",)
    ),
    Recipe("forge.md", "tellsign forge photos/ --out forged/ --kinds inpaint", photos_and_networks),
    Recipe("forge.md", "tellsign forge photos/ --out before/", photos_and_a_doubler, wrote=("after/manifest.csv",)),
    Recipe("audit.md", "python -m tellsign.audit WORK/fuse.csv", table_of_scores),
    Recipe("artifacts.md", "python -m tellsign.artifacts X-AIGD/", annotated, wrote=("report.json",)),
    Recipe("tuning.md", "tellsign tune my-pictures/", own_domain),
    Recipe(
        "tuning.md",
        "tellsign tune my.csv",
        own_domain,
        allowed={"monitor": (0, 1), "fusion diff": (0, 1)},
        wrote=("my-fusion/report.html",),
    ),
    Recipe("tuning.md", "python -m tellsign.tuning.known", to_remember, wrote=("trained_on.safetensors",)),
    Recipe("provenance.md", "tellsign detect photo.jpg", file_and_anchors, needs=PROVENANCE),
    Recipe("provenance.md", "python -m tellsign.plugins.provenance.measure claims", with_files_that_speak),
    Recipe("provenance.md", "python -m tellsign.plugins.provenance.measure watermarks", with_files_that_speak),
    Recipe(
        "provenance.md",
        "python -m tellsign.plugins.provenance.measure survival",
        with_files_that_speak,
        needs=("imwatermark",),
    ),
    Recipe("provenance.md", "python -m tellsign.plugins.provenance.measure camera", with_files_that_speak),
    Recipe(
        "provenance.md",
        "python -m tellsign.plugins.provenance.measure trustmark",
        with_files_that_speak,
        allowed={"-m": (0, 1)},  # 1 where the weights are not here, which is nearly everywhere
    ),
    Recipe("segmentation.md", "python -m tellsign.plugins.segmentation.training evaluate", already_forged),
    Recipe("segmentation.md", "python -m tellsign.plugins.segmentation.training alarms", table_of_maps),
    Recipe("segmentation.md", "python -m tellsign.plugins.segmentation.training lattice", enhanced),
    Recipe("segmentation.md", "python -m tellsign.forge.accusations", enhanced, wrote=("ANSWERS.jsonl",)),
    Recipe("evaluation.md", "tellsign eval labelled.csv --without", asked_without, allowed=ANY),
    Recipe(
        "artifacts.md",
        "python -m tellsign.alignment.experiment",
        forged_for_alignment,
        wrote=("experiment/table.md",),
    ),
    Recipe(
        "vlm.md",
        'pip install "tellsign[train-vlm]"\npython',
        tiny_judges,
        needs=TRAIN_VLM,
        wrote=("PAIRS/pairs.jsonl", "TAUGHT/model.safetensors"),
        slow=True,
    ),
    Recipe(
        "vlm.md",
        "python -m tellsign.plugins.reasoning.training.grpo",
        tiny_judges,
        needs=TRAIN_VLM,
        wrote=("REASONER/model.safetensors",),
        slow=True,
    ),
    Recipe(
        "cost.md",
        "tellsign bench --only start",
        nothing,
        # A busy machine may well miss a limit, which is exit status 1.
        allowed={"bench": (0, 1)},
        more={"tellsign bench": "--quick --pairs 3 --plugin semantic"},
        says=(
            "first verdict",
            "host over forward",
            "over the sum of parts",
            "memory:",
            "stability probe",
            "12 megapixels",
        ),
    ),
    Recipe("results.md", "python -m tellsign.data.manifest", projects, allowed=ANY, wrote=("TEST.csv",)),
    Recipe("semantic.md", "tellsign eval TEST.csv --normalise", with_and_without, allowed=ANY, home="results.md"),
    *trainings.RECIPES,
]


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """One home for each page: what was scored once need not be scored again."""
    made = {}

    def home(page):
        if page not in made:
            made[page] = tmp_path_factory.mktemp("home")
        return made[page]

    return home


def parameter(recipe):
    name = f"{recipe.page}: {recipe.first[-30:].splitlines()[0]}"
    return pytest.param(recipe, id=name, marks=[pytest.mark.slow] if recipe.slow else [])


@pytest.mark.parametrize("recipe", [parameter(r) for r in RECIPES])
def test_the_block_runs(recipe, tmp_path, homes):
    for module in recipe.needs:
        # Looked for and not imported: pip's and setuptools' own modules want to be first.
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the block needs {module}")
    folder = tmp_path / "there"
    folder.mkdir()
    before = recipe.make(folder) or ""
    home = homes(recipe.home or recipe.page)
    said = run([recipe.block], folder, home, before=before, allowed=recipe.allowed, more=recipe.more)
    for name in recipe.wrote:
        assert (folder / name).stat().st_size, f"{name} is empty"
    for words in recipe.says:
        assert words in said, said


def test_every_block_that_names_this_file_has_a_recipe():
    named = {b.name for b in every_block() if b.marks.get("run by") == HERE}
    own = {r.block.name for r in RECIPES} | {b.name for b in PARTS}
    assert named == own, named ^ own


# -- Python that is a part of something ---------------------------------------------------------------------------


def part(first):
    (found,) = [b for b in blocks(ROOT / "docs" / "plugins.md") if b.code.startswith(first)]
    return found


PARTS = (part("with runtime.use("), part("pytest_plugins = "))


def test_a_model_is_used_as_the_page_says():
    torch = pytest.importorskip("torch")
    from tellsign.runtime import DeviceRuntime

    space = {"runtime": DeviceRuntime("cpu"), "build": lambda: torch.nn.Linear(2, 2)}
    exec(PARTS[0].code, space)
    assert isinstance(space["net"], torch.nn.Linear)
    assert not space["net"].training


def test_the_checks_run_as_a_fixture_as_the_page_says(tmp_path):
    """On the detector of the same page."""
    for block in blocks(ROOT / "docs" / "plugins.md"):
        if "file" in block.marks:
            path = tmp_path / block.marks["file"]
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.code)
    info = tmp_path / "tellsign_smudge-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tellsign-smudge\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[tellsign.detectors]\nsmudge = tellsign_smudge\n")
    (tmp_path / "pyproject.toml").unlink()
    (tmp_path / "test_smudge.py").write_text(PARTS[1].code)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    env.pop("TELLSIGN_PLUGINS", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_smudge.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    from tellsign.devkit import CHECKS

    assert f"{len(CHECKS)} passed" in done.stdout, done.stdout + done.stderr
