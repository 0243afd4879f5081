"""The house as a whole: what is in the wheel, who imports whom, and that the documents say what is so."""

import ast
import importlib.metadata
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {"sdk": "tellsign", "schemas": "tellsign.schemas", "plugins": "tellsign.plugins", "fusion": "tellsign.fusion"}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEAVY = ("torch", "torchvision", "timm", "open_clip", "transformers", "xgboost", "sklearn")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def git(*arguments):
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if done.returncode:
        pytest.skip(f"not a git clone: {done.stderr.strip()}")
    return done.stdout.split("\0")[:-1]


@pytest.fixture(scope="session")
def tracked():
    """What git tracks, or would if everything new were added."""
    names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return sorted(name for name in set(names) if (ROOT / name).is_file())


@pytest.fixture(scope="session")
def wheel(tracked, tmp_path_factory):
    """The wheel that CI built, or one built here from a copy that holds nothing but what git tracks."""
    if given := os.environ.get("TELLSIGN_WHEEL"):
        return Path(given)
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--wheel-dir", str(out), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def in_empty_folder(code, folder, **environ):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=os.environ | environ
    )


def test_the_wheel_holds_what_git_tracks_in_the_rooms(wheel, tracked):
    expected = set()
    for name in tracked:
        room, _, rest = name.partition("/")
        if room in ROOMS:
            expected.add(f"{ROOMS[room].replace('.', '/')}/{rest}")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {n for n in archive.namelist() if ".dist-info/" not in n and not n.endswith("/")}
    assert shipped == expected
    assert {"tellsign/py.typed", "tellsign/schemas/verdict.schema.json"} <= shipped


def test_the_wheel_stays_small(wheel):
    assert wheel.stat().st_size < 80e6


def test_the_wheel_names_the_command_and_the_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        info = next(n.split("/")[0] for n in archive.namelist() if ".dist-info/" in n)
        assert "tellsign = tellsign.__main__:main" in archive.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in archive.namelist()
        assert "License-Expression: Apache-2.0" in archive.read(f"{info}/METADATA").decode()


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_no_room_is_a_top_level_package(room, tmp_path):
    done = in_empty_folder(f"import {room}", tmp_path)
    assert done.returncode == 1
    assert f"No module named '{room}'" in done.stderr


@pytest.mark.parametrize("code", ["import tellsign", "import tellsign.schemas.codec", "import tellsign.plugin"])
def test_importing_loads_nothing_heavy(code, tmp_path):
    done = in_empty_folder(f"{code}, sys; print([m for m in {HEAVY} if m in sys.modules])", tmp_path)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_help_loads_nothing_heavy(tmp_path):
    code = (
        "import sys; sys.argv = ['tellsign', '--help']\n"
        "from tellsign.__main__ import main\n"
        "try: main()\n"
        f"except SystemExit as end: print(end.code, [m for m in {HEAVY} if m in sys.modules])"
    )
    assert in_empty_folder(code, tmp_path).stdout.strip().endswith("0 []")


# --- who imports whom ------------------------------------------------------------------------------------------------

STANDARD = sys.stdlib_module_names | {"__future__"}
PUBLIC = {"errors", "plugin", "runtime", "towers", "views", "weights"}


def imports_of(path):
    """(module, line) of every import in a file, relative ones made absolute, `from tellsign import x` as tellsign.x."""
    room, *rest = path.relative_to(ROOT).parts
    package = [*ROOMS[room].split("."), *rest[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "tellsign" or (node.level and not node.module):
                yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


def allowed(path, module):
    room, *rest = path.relative_to(ROOT).parts
    top, _, inner = module.partition(".")
    if top in STANDARD:
        return True
    if top != "tellsign":
        bound = {
            "schemas": {"numpy", "attrs"},
            "fusion": {"numpy", "attrs", "xgboost", "sklearn", "scipy", "safetensors"},
        }
        return room not in bound or top in bound[room] or (path.name == "codec.py" and top == "cattrs")
    part, _, deeper = inner.partition(".")
    if room == "schemas":
        return part == "schemas"
    if room == "fusion":
        return part in ("schemas", "fusion")
    if room == "plugins":
        own = part == "plugins" and deeper.split(".")[0] in ("", rest[0])
        training = len(rest) > 2 and rest[1] == "training" and part in ("alignment", "artifacts", "data")
        return own or training or part in {"schemas", *PUBLIC, *public_names()}
    return part != "plugins"  # the sdk finds plugins through their entry points


def public_names():
    import tellsign

    return set(tellsign.__all__)


def sources():
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("room", ROOMS)
def test_every_import_follows_the_arrows(room):
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources()
        if path.relative_to(ROOT).parts[0] == room
        for module, line in imports_of(path)
        if not allowed(path, module)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("schemas/verdict.py", "cattrs"),
        ("schemas/verdict.py", "tellsign.errors"),
        ("schemas/codec.py", "torch"),
        ("fusion/bundle.py", "torch"),
        ("fusion/bundle.py", "tellsign.errors"),
        ("plugins/pixel/model.py", "tellsign.plugins.semantic"),
        ("plugins/pixel/model.py", "tellsign.host"),
        ("plugins/pixel/model.py", "tellsign.fusion"),
        ("plugins/pixel/model.py", "tellsign.data"),
        ("plugins/pixel/model.py", "tellsign.alignment"),
        ("sdk/host.py", "tellsign.plugins.pixel"),
    ],
)
def test_the_arrows_refuse(path, module):
    assert not allowed(ROOT / path, module)


def test_third_parties_are_declared():
    """Every third-party module that is imported comes from a dependency that pyproject.toml names."""
    named = {canonical(line) for line in requirement_lines()}
    # Of an extra that is not installed nothing tells which distribution its modules come from.
    homes = {"imwatermark": ["invisible-watermark"]} | importlib.metadata.packages_distributions()
    wrong = set()
    for path in sources():
        for module, line in imports_of(path):
            top = module.split(".")[0]
            if top in STANDARD or top == "tellsign":
                continue
            if not {canonical(name) for name in homes.get(top, [top])} & named:
                wrong.add(f"{path.relative_to(ROOT)}:{line} imports {top}")
    assert wrong == set()


# --- what the documents say ------------------------------------------------------------------------------------------


def canonical(requirement):
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement)[0]).lower()


def requirement_lines():
    project = PYPROJECT["project"]
    return [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]


def test_every_dependency_has_a_reason_and_a_pin():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pins = {canonical(p) for p in (ROOT / "constraints.txt").read_text().splitlines() if not p.startswith("#")}
    for requirement in requirement_lines():
        if requirement.startswith("tellsign["):
            continue
        lines = [line for line in text.splitlines() if f'"{requirement}"' in line and not line.startswith("requires")]
        assert lines, requirement
        assert all(re.search(r"#\s*\w[^#]{3,}", line) for line in lines), f"{requirement}: what for?"
        assert canonical(requirement) in pins, f"{requirement} is not pinned in constraints.txt"


def test_constraints_pin_plain_versions():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line


def test_the_changelog_tells_of_this_version():
    version = PYPROJECT["project"]["version"]
    headings = re.findall(r"^## \[(.+?)\](?: - ([\d.]+))?", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert next(iter(headings)) in [("Unreleased", version), (version, "")]
    assert importlib.metadata.version("tellsign") == version


def shell_lines(text):
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def command_lines():
    texts = [(ROOT / "README.md").read_text(), *(p.read_text() for p in sorted((ROOT / "docs").glob("*.md")))]
    fenced = [line for text in texts for line in shell_lines(text)]
    inline = [found for text in texts for found in re.findall(r"`(tellsign [a-z][^`]*)`", text)]
    indented = [line.strip() for text in texts for line in text.splitlines() if line.startswith("    tellsign ")]
    return sorted({line for line in fenced + inline + indented if line.startswith("tellsign ")})


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_in_the_documents_exists(line):
    """Its subcommands are there and each option that it gives is in their help."""
    words = [w for w in re.sub(r">.*", "", line).split() if w != "COMMAND"]
    names = []
    for word in words[1:]:
        if not re.fullmatch(r"[a-z]+(\|[a-z]+)*", word) or len(names) == 2 or (names and names[0] not in GROUPS):
            break
        names.append(word.split("|")[0])
    done = subprocess.run([sys.executable, "-m", "tellsign", *names, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for option in (w for w in words if w.startswith("--")):
        assert option in done.stdout, f"{' '.join(names)} has no {option}"


GROUPS = ("plugins", "models", "fusion")


def test_the_readme_has_what_ci_runs():
    blocks = dict(re.findall(r"<!-- ci: (\S+) -->\s*```sh\n(.*?)\n```", README, re.S))
    assert blocks == {
        "install": "pip install .",
        "use": "tellsign detect photo.jpg",
        "install-test": 'pip install ".[test]"',
        "test": "pytest",
    }


def test_the_python_in_the_readme_runs(tmp_path):
    """Offline and in a folder with the pictures that it names; so with the bundled weights and the shipped bundle."""
    photograph = runpy.run_path(str(ROOT / ".ci" / "photo.py"))["photograph"]
    (tmp_path / "holiday").mkdir()
    for number, name in enumerate(("photo.jpg", "holiday/a.jpg", "holiday/b.jpg")):
        photograph(400, 300, seed=number).save(tmp_path / name, quality=90)
    code = "".join(re.findall(r"```python\n(.*?)```", README, re.S))
    assert "sdk.detect(" in code
    assert "detect_many(" in code
    done = in_empty_folder(code, tmp_path, TELLSIGN_HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["holiday/a.jpg", "holiday/b.jpg"]


def test_links_in_the_documents_lead_somewhere(tracked):
    for name in (n for n in tracked if n.endswith(".md")):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if not target.startswith(("http://", "https://")):
                assert (ROOT / name).parent.joinpath(target).exists(), f"{name} links to {target}"


def test_paths_in_the_architecture_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:sdk|schemas|plugins|fusion|tests|\.ci)/[\w./]*)`", text))
    assert len(paths) > 20
    assert [p for p in sorted(paths) if not (ROOT / p).exists()] == []


PLUGIN_FILES = dict(
    re.findall(r"<!-- file: (\S+) -->\s*```\w+\n(.*?)```", (ROOT / "docs" / "plugins.md").read_text(), re.S)
)


def test_the_plugin_in_the_documents_works(tmp_path):
    """Laid out as an installed distribution, found, loaded and asked, by the host that a Detector uses."""
    for name, text in PLUGIN_FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    project = tomllib.loads(PLUGIN_FILES["pyproject.toml"])["project"]
    info = tmp_path / "tellsign_smudge-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    [(group, entries)] = project["entry-points"].items()
    (info / "entry_points.txt").write_text(f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in entries.items()))
    code = """if True:
        import importlib, sys
        import numpy as np
        from tellsign.host import discover
        from tellsign.schemas import Box, PixelView
        from tellsign.schemas.codec import dumps
        [record] = [r for r in discover(environ={}) if r.name == "smudge"]
        assert record.state == "ok", record.reason
        assert "tellsign_smudge.detector" not in sys.modules
        cls = importlib.import_module(record.module).tellsign_detector()
        crop = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) // 6
        full = PixelView(key="a", crops=(crop,), boxes=(Box(0, 0, 4, 4),), kinds=("random",), width=4, height=4)
        tiny = PixelView(key="b", crops=(), boxes=(), kinds=(), width=4, height=4)
        for answer in cls(record.declaration, {}).detect([full, tiny], None):
            print(*map(dumps, answer))
    """
    done = in_empty_folder(code, tmp_path, PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    assert done.returncode == 0, done.stderr
    full, tiny = map(json.loads, done.stdout.splitlines())
    assert (full["kind"], full["plugin"], full["name"]) == ("score", "smudge", "flat")
    assert (tiny["kind"], tiny["reason"]) == ("not_applicable", "the picture is too small")


# --- what must not be in the repository ------------------------------------------------------------------------------

# Written so that this file does not contain what it looks for.
FORBIDDEN = {
    "a package registry's host": re.compile(
        r"(?:\bpypi|\bfiles\.python"
        + r"hosted|download\.pytorch|registry\.npm"
        + r"js)\.(?:org|io)|\b"
        + r"artif"
        + r"actory",
        re.I,
    ),
    "an absolute path of some machine": re.compile(
        r"(?<![\w.~:/-])/(?:" + r"work|home|root|Users|opt|mnt|data)" + r"/[\w.-]+/[\w./-]+"
    ),
    "an index option": re.compile(r"--(?:extra-)?index" + r"-url|--find" + r"-links"),
}
TEXT = {".py", ".md", ".toml", ".txt", ".json", ".html", ".cfg", ".yml", ".yaml", ""}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_tracked_files_name_no(what, tracked):
    found = []
    for name in tracked:
        if Path(name).suffix not in TEXT or name == "LICENSE":
            continue
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
            if FORBIDDEN[what].search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert found == []


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a package registry's host", "https://" + "pypi" + ".org/simple"),
        ("a package registry's host", "https://download" + ".pytorch.org/whl/cpu"),
        ("an absolute path of some machine", 'open("/wo' + 'rk/shared/data/x.csv")'),
        ("an index option", "pip install --index" + "-url x"),
    ],
)
def test_the_search_finds(what, line):
    assert FORBIDDEN[what].search(line)


def test_no_picture_and_no_pickle_is_tracked(tracked):
    banned = {
        ".jpg",
        ".jpeg",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".pkl",
        ".pickle",
        ".pt",
        ".pth",
        ".joblib",
    }
    assert [name for name in tracked if Path(name).suffix.lower() in banned] == []


def test_every_weights_file_has_a_card_beside_it(tracked):
    # Hashes of the pictures that a plugin was trained on are no weights.
    files = [n for n in tracked if n.endswith((".safetensors", ".ubj")) and n.split("/")[0] in ROOMS]
    for name in (n for n in files if Path(n).name != "trained_on.safetensors"):
        cards = [p for p in (ROOT / name).parent.glob("*.md") if Path(name).stem.lower() in p.read_text().lower()]
        assert cards, f"{name} has no model card beside it that names it"
        card = max(cards, key=lambda p: p.stat().st_size).read_text().lower()
        for part in ("data", "licen", "sha256" if name.endswith(".safetensors") else "data"):
            assert part in card.replace("sha-256", "sha256"), f"the card of {name} says nothing about {part}"


def test_tests_are_no_package(tracked):
    assert [n for n in tracked if n.startswith("tests/") and n.endswith("__init__.py")] == []


def test_the_network_is_blocked():
    import socket

    with pytest.raises(OSError, match="tests run offline"):
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    with pytest.raises(OSError, match="tests run offline"), socket.socket() as one:
        one.connect(("127.0.0.1", 9))


def test_the_network_is_blocked_in_children(tmp_path):
    done = in_empty_folder("import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)", tmp_path)
    assert "tests run offline" in done.stderr
