"""ComfyUI's graphs: `prompt` is what was run, `workflow` what the editor shows.

A graph says "generated" only where it samples: the same program also merely scales pictures up or cuts them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tellsign.plugins.provenance.claim import Claim

from .read import first, generated, parsed, word

NAME = "ComfyUI"
MOST_NODES = 20_000
_SEEDS = ("seed", "noise_seed")
_MODELS = ("ckpt_name", "unet_name", "model_name", "model", "base_ckpt_name", "gguf_name")
_TEXTS = ("text", "prompt", "text_g", "text_l", "t5xxl", "clip_l", "string", "value")
_FIELDS = (  # (key of the text, prefix before the JSON); animated and WebP files carry the graphs in EXIF
    ("prompt", ""),
    ("EXIF Model", "prompt:"),
    ("EXIF ImageDescription", "prompt:"),
    ("EXIF ImageDescription", "Prompt:"),
    ("EXIF UserComment", ""),
)
_WORKFLOWS = (
    ("workflow", ""),
    ("EXIF Make", "workflow:"),
    ("EXIF ImageDescription", "workflow:"),
    ("EXIF ImageDescription", "Workflow:"),
)


def read(texts: Mapping[str, str]) -> Claim | None:
    """The claim, None where there is no graph."""
    for key, prefix in _FIELDS:
        nodes = _run(_graph(texts, key, prefix))
        if nodes:
            return _of_run(nodes, key)
    for key, prefix in _WORKFLOWS:
        drawn = _drawn(_graph(texts, key, prefix))
        if drawn:
            sampled = any(_samples(kind) for kind in drawn)
            return generated(NAME, key=key, detail="workflow only") if sampled else _processed(key, len(drawn))
    return None


def _graph(texts: Mapping[str, str], key: str, prefix: str) -> Mapping[str, Any]:
    text = texts.get(key, "")
    return parsed(text[len(prefix) :].strip()) if text.startswith(prefix) else {}


def _run(graph: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Nodes by number, where the object is a graph as it was run."""
    nodes = graph.get("prompt", graph)
    if not isinstance(nodes, dict) or len(nodes) > MOST_NODES:
        return {}
    return {k: n for k, n in nodes.items() if isinstance(n, dict) and isinstance(n.get("class_type"), str)}


def _drawn(graph: Mapping[str, Any]) -> list[str]:
    """Kinds of the nodes of a graph as it was drawn."""
    nodes = graph.get("nodes")
    if not isinstance(nodes, list) or "links" not in graph or len(nodes) > MOST_NODES:
        return []
    return [n["type"] for n in nodes if isinstance(n, dict) and isinstance(n.get("type"), str)]


def _samples(kind: str) -> bool:
    """Whether a kind of node runs a generator; a node that only chooses a sampler has Select in its name."""
    return "sampler" in kind.lower() and "select" not in kind.lower()


def _inputs(node: Mapping[str, Any]) -> Mapping[str, Any]:
    found = node.get("inputs")
    return found if isinstance(found, dict) else {}


def _of_run(nodes: dict[str, Mapping[str, Any]], key: str) -> Claim:
    samplers = [n for n in nodes.values() if _samples(n["class_type"]) or first(_inputs(n), *_SEEDS)]
    if not samplers:
        return _processed(key, len(nodes))
    every = list(nodes.values())
    loaders = [n for n in every if "load" in n["class_type"].lower()]
    prompt = next(_prompts(samplers, nodes), "")
    if not prompt:
        encoders = [n for n in every if "TextEncode" in n["class_type"]]
        prompt = next((t for n in encoders if (t := first(_inputs(n), *_TEXTS))), "")
    return generated(
        NAME,
        key=key,
        model=next((m for n in [*loaders, *every] if (m := first(_inputs(n), *_MODELS))), ""),
        prompt=prompt,
        seed=next((s for n in every if (s := first(_inputs(n), *_SEEDS))), ""),
        detail=f"{len(nodes)} nodes",
    )


def _prompts(samplers: list[Mapping[str, Any]], nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Texts that reach a sampler's positive input, by following the links upwards."""
    for sampler in samplers:
        inputs = _inputs(sampler)
        waiting = [inputs[name] for name in ("positive", "conditioning", "guider") if name in inputs]
        seen: set[str] = set()
        while waiting and len(seen) < 200:
            link = waiting.pop(0)
            if not (isinstance(link, list) and link and word(link[0]) in nodes) or word(link[0]) in seen:
                continue
            seen.add(word(link[0]))
            above = _inputs(nodes[word(link[0])])
            if text := first(above, *_TEXTS):
                yield text
            waiting += [v for k, v in above.items() if isinstance(v, list) and k != "negative"]


def _processed(key: str, count: int) -> Claim:
    return Claim(
        claim="processed with ComfyUI, by a graph that samples nothing",
        claimant=f"the file's text {key!r}",
        carrier="exif" if key.startswith("EXIF") else "text",
        generator=NAME,
        detail=f"{count} nodes",
    )


__all__ = ["read"]
