"""What mkdocs is told beyond `mkdocs.yml`: pages that are made from the schemas, the README and the model cards.

They are made at every build, so that they cannot say anything else than what they are made from.
"""

from __future__ import annotations

import json
import posixpath
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
COPIED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "LICENSE": "LICENSE.txt",
    "schemas/verdict.schema.json": "reference/verdict.schema.json",
    "schemas/declaration.schema.json": "reference/declaration.schema.json",
}
"""Files of the repository that are part of the site, by where they are shown."""

API = {
    "Detecting": ("tellsign.detector.Detector", "tellsign.default.detect", "tellsign.default.detect_many"),
    "Decoding": ("tellsign.decoding.decode", "tellsign.decoding.Limits"),
    "Errors": ("tellsign.errors",),
    "Writing a detector": ("tellsign.plugin.DetectorPlugin", "tellsign.plugin.UnavailableError", "tellsign.views"),
    "Device and models": ("tellsign.runtime.DeviceRuntime", "tellsign.weights"),
    "Fusion": (
        "tellsign.fusion.bundle.Bundle",
        "tellsign.fusion.train.train_bundle",
        "tellsign.fusion.table.ScoreTable",
    ),
    "JSON": ("tellsign.schemas.codec",),
}
"""What the page about Python shows, by heading."""


_house = tempfile.TemporaryDirectory(prefix="tellsign-site-")


@event_priority(100)  # before the plugin that reads the setting
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Show the reader of docstrings the package as it is imported, without an install: the rooms are one package."""
    package = Path(_house.name) / "tellsign"
    package.mkdir(exist_ok=True)
    rooms = {room: ROOT / room for room in ("schemas", "plugins", "fusion")}
    for name, place in {**{p.name: p for p in (ROOT / "sdk").iterdir()}, **rooms}.items():
        if not (package / name).exists():
            (package / name).symlink_to(place)
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [_house.name]
    return config


def cards() -> dict[str, str]:
    """Model cards of the built-in detectors and of the fusion: their place in the repository to that in the site."""
    found = [ROOT / "fusion" / "default" / "CARD.md", *sorted(ROOT.glob("plugins/*/weights/CARD*.md"))]
    return {p.relative_to(ROOT).as_posix(): f"cards/{p.parts[-3]}{p.stem[4:].lower()}.md" for p in found}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    for source, shown in {**COPIED, **cards()}.items():
        files.append(File.generated(config, shown, content=(ROOT / source).read_text(encoding="utf-8")))
    for name, title in (("verdict", "The verdict"), ("declaration", "The manifest")):
        schema = json.loads((ROOT / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
        shown = "manifest" if name == "declaration" else name
        files.append(
            File.generated(config, f"reference/{shown}.md", content=schema_page(schema, title, f"{name}.schema.json"))
        )
    files.append(File.generated(config, "reference/api.md", content=api_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links between files of the repository to where the site shows them; others become plain text."""
    shown = {**COPIED, **cards()}
    here = next((source for source, place in shown.items() if place == page.file.src_uri), f"docs/{page.file.src_uri}")

    def lead(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        if re.match(r"[a-z]+:", target):
            return match[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        place = shown.get(place, place.removeprefix("docs/"))
        if files.get_file_from_path(place) is None:
            return words
        return f"[{words}]({posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    if page.file.src_uri.startswith("reference/"):
        return markdown
    return re.sub(r"\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)", lead, markdown)


def api_page() -> str:
    """The page about Python: what the docstrings say."""
    lines = ["# Python", ""]
    for heading, names in API.items():
        lines += [f"## {heading}", ""]
        for name in names:
            lines += [f"::: {name}", "    options:", "      heading_level: 3", ""]
    return "\n".join(lines)


def schema_page(schema: Mapping[str, Any], title: str, file: str) -> str:
    """A JSON Schema as a page: each object with its fields, what they allow and what they mean.

    Parameters
    ----------
    schema : mapping
        With "$ref" to the main object and "$defs", as `tellsign.schemas.codec` writes them.
    title : str
        Of the page.
    file : str
        Where the schema lies beside the page.
    """
    main = schema["$ref"].rsplit("/", 1)[1]
    others = sorted(name for name in schema["$defs"] if name != main)
    lines = [f"# {title}", "", f"Made from [{file}]({file}), which a program should read instead.", ""]
    for name in (main, *others):
        lines += list(_object(name, schema["$defs"][name]))
    return "\n".join(lines)


def _object(name: str, definition: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"## {name}", "")
    if "description" in definition:
        yield from (_text(definition["description"]), "")
    if "properties" not in definition:
        yield from (f"Takes {_allowed(definition)}.", "")
        return
    yield "| field | takes | meaning |"
    yield "|---|---|---|"
    required = definition.get("required", ())
    for field, rule in definition["properties"].items():
        mark = "" if field in required else " (optional)"
        yield f"| `{field}`{mark} | {_allowed(rule)} | {_text(rule.get('description', ''))} |"
    yield ""


def _text(words: str) -> str:
    return re.sub(r"\s+", " ", words).replace("|", "\\|").strip()


def _allowed(rule: Mapping[str, Any]) -> str:
    """What a JSON Schema rule allows, in words."""
    if "$ref" in rule:
        name = rule["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "const" in rule:
        return f"`{json.dumps(rule['const'])}`"
    if "enum" in rule:
        return ", ".join(f"`{json.dumps(v)}`" for v in rule["enum"])
    for union in ("anyOf", "oneOf"):
        if union in rule:
            return " or ".join(_allowed(r) for r in rule[union])
    kind = rule.get("type", "anything")
    if kind == "array":
        inner = _allowed(rule["items"]) if "items" in rule else "anything"
        return f"a list of ({inner})" if " or " in inner else f"a list of {inner}"
    if kind == "object" and isinstance(rule.get("additionalProperties"), Mapping):
        return f"an object of {_allowed(rule['additionalProperties'])}"
    return f"{kind}{_range(rule)}"


def _range(rule: Mapping[str, Any]) -> str:
    low = rule.get("minimum", rule.get("exclusiveMinimum"))
    high = rule.get("maximum", rule.get("exclusiveMaximum"))
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    return "" if high is None else f" of at most {high}"
