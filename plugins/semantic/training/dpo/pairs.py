"""Preference pairs about meaning alone, from a labelling model that is made to argue for both sides.

Each labelled picture is scrambled first, so that no pixel trace is left to talk about. The labelling model is then
asked twice, its answer begun with the right verdict's sentence and with the wrong one's; what it goes on with is the
chosen and the rejected answer. (So a third-party reading of AlignGemini, arXiv 2512.06746, describes it; the paper's
own prompts are not public.) A pair in which either answer names pixel traces or sources is refused: see `ungrounded`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.data.labelled import LabelledPicture
from tellsign.data.purity import check_purity, tag
from tellsign.errors import DecodeError, SettingError
from tellsign.plugins.semantic.judge.prompt import verdict_sentence
from tellsign.plugins.semantic.judge.ungrounded import ungrounded
from tellsign.schemas import Picture, Task
from tellsign.views import semantic_view

FILE = "pairs.jsonl"
FEWEST_WORDS = 4
"""Words that a justification must have to teach anything."""

Labeller = Callable[[Sequence[Image.Image], Sequence[str]], Sequence[str]]
"""Pictures, and for each the sentence with which the answer begins, to what follows that sentence."""


@attrs.frozen(kw_only=True)
class PreferencePair:
    """One scrambled picture and two answers to the judge's question."""

    image: str
    """File name in the pairs' folder."""
    fake: bool
    chosen: str
    rejected: str
    group: str


def scramble(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Hide pixel traces and keep meaning: the semantic view, saved harder and noisier at random.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
    rng : numpy.random.Generator
        Draws JPEG quality 30 to 70 always, blur with probability .15, noise of 2 to 10 grey levels with probability .5.

    Returns
    -------
    uint8 array of (h, w, 3)
    """
    quality = int(rng.integers(30, 71))
    blur = float(rng.uniform(0.7, 1.5)) if rng.random() < 0.15 else 0.0
    noise = float(rng.uniform(2, 10)) if rng.random() < 0.5 else 0.0
    return semantic_view(Picture(pixels=pixels), key="pairs", quality=quality, blur=blur, noise=noise).image


def refusal(chosen: str, rejected: str) -> str:
    """Why two justifications make no pair; empty where they do."""
    for text in (chosen, rejected):
        if terms := ungrounded(text):
            return terms[0].partition(":")[0]
        if len(text.split()) < FEWEST_WORDS:
            return "too short"
    if chosen.split() == rejected.split():
        return "the same for both verdicts"
    sentences = verdict_sentence(True).lower().rstrip("."), verdict_sentence(False).lower().rstrip(".")
    if any(s in text.lower() for s in sentences for text in (chosen, rejected)):
        return "a second verdict"
    return ""


def make_pairs(
    pictures: Iterable[LabelledPicture],
    labeller: Labeller,
    out: Path,
    *,
    read: Callable[[Path], NDArray[np.uint8]],
    seed: int = 0,
) -> Counter[str]:
    """Write the pairs of labelled pictures into a folder: `pairs.jsonl` and the scrambled pictures.

    An interrupted run goes on behind the pictures that were asked about before.

    Parameters
    ----------
    pictures : iterable of LabelledPicture
        Both labels in about equal numbers.
    labeller : callable
        See `Labeller`.
    out : Path
    read : callable
        Path to pixels, uint8 (H, W, 3).
    seed : int

    Returns
    -------
    Counter
        Pictures by what became of them: "kept", or why they were refused.

    Raises
    ------
    ImpureDataError
        The folder was made for another task.
    """
    out.mkdir(parents=True, exist_ok=True)
    tag(out, Task.SEMANTIC)
    log = out / "asked.jsonl"
    known = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []
    outcome = Counter(str(k["outcome"]) for k in known)
    asked = {k["path"] for k in known}
    with log.open("a", encoding="utf-8") as told, (out / FILE).open("a", encoding="utf-8") as kept:
        for number, picture in enumerate(pictures):
            if str(picture.path) in asked:
                continue
            asked.add(str(picture.path))
            # Drawn from the number, which says nothing of the class, and lets a run that goes on draw the same.
            rng = np.random.default_rng([seed, number])
            try:
                image = Image.fromarray(scramble(read(picture.path), rng))
            except DecodeError as error:
                why = f"unreadable: {error.code}"
            else:
                pair = _pair(picture, image, f"{number:06d}.png", labeller)
                why = pair if isinstance(pair, str) else "kept"
                if isinstance(pair, PreferencePair):
                    image.save(out / pair.image)
                    kept.write(json.dumps(attrs.asdict(pair)) + "\n")
                    kept.flush()
            told.write(json.dumps({"path": str(picture.path), "outcome": why}) + "\n")
            told.flush()
            outcome[why] += 1
    return outcome


def _pair(picture: LabelledPicture, image: Image.Image, name: str, labeller: Labeller) -> PreferencePair | str:
    """Ask for both sides; why there is no pair where there is none."""
    right, wrong = verdict_sentence(picture.fake), verdict_sentence(not picture.fake)
    chosen, rejected = (" ".join(t.split()) for t in labeller([image, image], [right, wrong]))
    if why := refusal(chosen, rejected):
        return why
    return PreferencePair(
        image=name,
        fake=picture.fake,
        chosen=f"{right} {chosen}",
        rejected=f"{wrong} {rejected}",
        group=picture.group,
    )


def read_pairs(folder: Path, *, force: bool = False) -> list[PreferencePair]:
    """The pairs of a folder, checked again.

    Parameters
    ----------
    folder : Path
        What `make_pairs` wrote, or anything in its format with its `purity.json`.
    force : bool
        Take data of another task, and pairs that name what a judge of meaning cannot know: an experiment about mixing.

    Raises
    ------
    ImpureDataError
        The folder was made for another task.
    SettingError
        It has no pairs, a line is no pair, a picture is missing, an answer does not begin with its verdict, a pair is
        impure, or all pairs have one label.
    """
    check_purity(folder, Task.SEMANTIC, force=force)
    file = folder / FILE
    if not file.is_file():
        raise SettingError("folder", f"a folder with {FILE}, which `pairs` writes", str(folder))
    pairs = list(_parsed(file, force=force))
    if len({p.fake for p in pairs}) < 2:
        got = f"{len(pairs)} pairs of one label" if pairs else "no pairs"
        raise SettingError(str(file), "pairs about real pictures and about fake ones", got)
    return pairs


def _parsed(file: Path, *, force: bool) -> Iterator[PreferencePair]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        where = f"{file.name}, line {number}"
        try:
            pair = PreferencePair(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise SettingError(
                where, f"an object with {', '.join(a.name for a in attrs.fields(PreferencePair))}", line
            ) from error
        if Path(pair.image).name != pair.image or not (file.parent / pair.image).is_file():
            raise SettingError(where, "the name of a picture in the same folder", pair.image)
        texts = []
        for name, fake in (("chosen", pair.fake), ("rejected", not pair.fake)):
            answer, sentence = getattr(pair, name), verdict_sentence(fake)
            if not answer.startswith(f"{sentence} "):
                raise SettingError(f"{where}, {name}", f"an answer that begins with {sentence!r}", answer)
            texts.append(answer.removeprefix(sentence))
        if not force and (why := refusal(*texts)):
            raise SettingError(where, "justifications of a semantic pair", why)
        yield pair
