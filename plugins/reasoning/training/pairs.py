"""Picture and text pairs: from any multimodal language model, or from what is known for certain.

A record says what a picture is labelled, what was written about it, who wrote it, and whether anyone checked it.
Nothing that a model wrote is kept where its own judgment disagrees with the label; nothing is kept that names a
generator or a collection, since a text must not give away what the picture should show.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.data.labelled import LabelledPicture
from tellsign.errors import SettingError
from tellsign.towers.grounds import ungrounded

from .facts import Facts
from .grpo.answer import judgment
from .grpo.prompt import QUESTION
from .statements import label_sentence, reasoning

QUESTIONS = (
    QUESTION,
    "Was this picture recorded by a camera or made by a generative model? Describe what speaks for it.",
    "Look at anatomy, objects, writing, light and perspective. Is this image real or AI-generated, and why?",
)
TEMPERATURES = (0.7, 1.0)

Ask = Callable[[NDArray[np.uint8], str, float, int], str]
"""Pixels uint8 (H, W, 3), question, temperature and seed to an answer with <think> and <answer>."""

_THINK = re.compile(r"<think>(.+?)</think>", re.DOTALL)


@attrs.frozen(kw_only=True)
class Record:
    """What was written about one picture."""

    image: str
    """Path."""
    fake: bool
    texts: tuple[str, ...]
    """Each begins with the label sentence."""
    writer: str
    """Who wrote: a model's name, or "facts"."""
    verified: bool
    """Somebody checked each text against the picture, or it says only what is known for certain."""


@attrs.define
class Dropped:
    """How many answers were left out, and why."""

    unreadable: int = 0
    """No thought, or no judgment that can be read."""
    disagrees: int = 0
    """The judgment is not the label."""
    names: int = 0
    """A generator or a collection is named."""
    traces: int = 0
    """It speaks of pixel traces or of the file, of which the view shows nothing."""
    refused: int = 0
    """Whoever verified it did not let it pass."""
    twice: int = 0
    """The same text again."""


def names_a_source(text: str, forbidden: Sequence[str] = ()) -> bool:
    """Whether a text names a generator or a collection.

    Parameters
    ----------
    text : str
    forbidden : sequence of str
        More names, such as the data's own.
    """
    own = any(re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE) for name in forbidden if name)
    return own or any(term.startswith("sources") for term in ungrounded(text))


def asked(
    pictures: Iterable[LabelledPicture],
    ask: Ask,
    *,
    read: Callable[[Path], NDArray[np.uint8]],
    writer: str,
    questions: Sequence[str] = QUESTIONS,
    temperatures: Sequence[float] = TEMPERATURES,
    verify: Callable[[LabelledPicture, str], str | None] | None = None,
    forbidden: Sequence[str] = (),
    dropped: Dropped | None = None,
    seed: int = 0,
) -> Iterator[Record]:
    """Ask a model about each picture, several questions at several temperatures.

    Parameters
    ----------
    pictures : iterable of LabelledPicture
    ask : callable
        Any model.
    read : callable
        Path to pixels.
    writer : str
        The model's name.
    questions, temperatures : sequences
        Every question is asked at every temperature.
    verify : callable, optional
        Picture and text to the text as somebody corrected it, or None to drop it. Without it nothing is verified.
    forbidden : sequence of str
        More names that must not be in a text.
    dropped : Dropped, optional
        Counts what is left out.
    seed : int
        Of the first answer; each has its own.

    Yields
    ------
    Record
        For each picture of which at least one text was kept.

    Raises
    ------
    SettingError
        There is no question or no temperature.
    """
    if not questions or not temperatures:
        raise SettingError("questions" if not questions else "temperatures", "at least one", [])
    count = dropped if dropped is not None else Dropped()
    for number, picture in enumerate(pictures):
        pixels = read(picture.path)
        kept: list[str] = []
        turns = [(q, t) for q in questions for t in temperatures]
        for turn, (question, temperature) in enumerate(turns):
            answer = ask(pixels, question, temperature, seed + number * len(turns) + turn)
            thought = _THINK.search(answer)
            said = judgment(answer)
            if thought is None or said is None:
                count.unreadable += 1
                continue
            if said is not picture.fake:
                count.disagrees += 1
                continue
            text: str | None = f"{label_sentence(picture.fake)} {' '.join(thought[1].split())}"
            if verify is not None:
                text = verify(picture, text or "")
            if text is None:
                count.refused += 1
            elif names_a_source(text, forbidden):
                count.names += 1
            elif ungrounded(text):
                count.traces += 1
            elif text in kept:
                count.twice += 1
            else:
                kept.append(text)
        if kept:
            yield Record(
                image=str(picture.path),
                fake=picture.fake,
                texts=tuple(kept),
                writer=writer,
                verified=verify is not None,
            )


def known(
    pictures: Iterable[tuple[str, Facts]], *, texts: int = 3, seed: int = 0, forbidden: Sequence[str] = ()
) -> Iterator[Record]:
    """Texts from facts alone.

    Parameters
    ----------
    pictures : iterable of (path, Facts)
    texts : int
        Per picture, in different words.
    seed : int
    forbidden : sequence of str
        Names that must not be in a text, on top of those that are known.

    Raises
    ------
    ValueError
        A text names a generator or a collection.
    """
    rng = np.random.default_rng(seed)
    for path, facts in pictures:
        made = [f"{label_sentence(facts.fake)} {reasoning(facts, rng)}" for _ in range(texts)]
        for text in made:
            if names_a_source(text, forbidden):
                raise ValueError(f"a text from facts names a source: {text!r}")
        yield Record(image=path, fake=facts.fake, texts=tuple(dict.fromkeys(made)), writer="facts", verified=True)


def save(records: Iterable[Record], file: Path) -> int:
    """Write records as JSON lines; how many there were."""
    count = 0
    with file.open("w", encoding="utf-8") as handle:
        for record in records:
            handle.write(json.dumps(attrs.asdict(record)) + "\n")
            count += 1
    return count


def read_pairs(file: Path) -> list[Record]:
    """Read what `save` wrote.

    Raises
    ------
    SettingError
        The file is not there, a line is no record, or a text does not begin with its label sentence.
    """
    if not file.is_file():
        raise SettingError("pairs", "a file of JSON lines", str(file))
    out = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            told = json.loads(line)
            record = Record(**(told | {"texts": tuple(told["texts"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise SettingError(
                f"pairs, line {number}", "a record with image, fake, texts, writer, verified", line
            ) from error
        if not all(t.startswith(label_sentence(record.fake)) for t in record.texts):
            raise SettingError(f"pairs, line {number}", f"texts that begin with {label_sentence(record.fake)!r}", line)
        out.append(record)
    return out
