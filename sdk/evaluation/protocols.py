"""Presets that fix how a benchmark is scored, so that a table can be put beside a paper's."""

from __future__ import annotations

import difflib
from typing import Any

import attrs

from .conditions import GRID, NATIVE
from .items import DataError
from .pixels import Scaling

_PAIRS = ("pairs-below-names",)


@attrs.frozen(kw_only=True)
class Protocol:
    """One way of scoring a benchmark.

    Attributes
    ----------
    name, alias, title : str
        For `--protocol` (either of the first two), and for people.
    layouts : tuple of str
        Data sets that it is for; empty means any.
    columns : tuple of str
        What its table prints, out of `tellsign.evaluation.paper`.
    per_subset : int or None
        Pictures per class and row of the table.
    align : str or None
        See `tellsign.evaluation.run.ALIGNMENTS`.
    conditions : tuple of str
    scaling : "own" or "min-max"
        Of heat maps.
    says : str
        What is done, in words, and what the papers leave open.
    """

    name: str
    alias: str
    title: str
    columns: tuple[str, ...]
    says: str
    layouts: tuple[str, ...] = ()
    per_subset: int | None = None
    align: str | None = None
    conditions: tuple[str, ...] = (NATIVE,)
    scaling: Scaling = "own"

    def check(self, layout: str) -> None:
        """Refuse a data set that the protocol is not for.

        Raises
        ------
        DataError
        """
        if self.layouts and layout not in self.layouts:
            raise DataError(
                f"--protocol {self.name} is for {', '.join(self.layouts)}, and DATA was read as {layout} "
                "(--layout NAME says otherwise)."
            )

    def told(self) -> dict[str, Any]:
        """What a report says of it."""
        return {"name": self.name, "title": self.title, "columns": list(self.columns), "says": self.says}


PROTOCOLS: tuple[Protocol, ...] = (
    Protocol(
        name="genimage-jpeg96",
        alias="P1",
        title="GenImage, JPEG-96",
        columns=("accuracy",),
        layouts=("genimage",),
        per_subset=1000,
        align="jpeg96",
        says="1,000 generated and 1,000 real pictures per generator, drawn with the seed (0; the paper names none); "
        "generated pictures that are stored without loss are saved as JPEG 96 first; accuracy at .5, mean of "
        "the generators.",
    ),
    Protocol(
        name="per-generator",
        alias="P2",
        title="ForenSynths and AIGCDetectBenchmark",
        columns=("accuracy", "ap"),
        layouts=("forensynths", "aigcdetect", "univfd-diffusion", "aigi-holmes", "drct-2m", "synthbuster", *_PAIRS),
        says="Accuracy at .5 and average precision per generator, its classes merged first, each against its own "
        "reals; then their mean.",
    ),
    Protocol(
        name="in-the-wild",
        alias="P3",
        title="In the wild",
        columns=("accuracy", "accuracy_real", "accuracy_fake"),
        layouts=(
            "chameleon",
            "wildrf",
            "aigibench",
            "co-spy",
            "bfree-online",
            "bfree-folders",
            "synthwildx",
            "synthwildx-folders",
            "grip-list",
            "aigi-now",
            *_PAIRS,
        ),
        says="Balanced accuracy at .5 per site; a site without reals has its accuracy on fakes alone.",
    ),
    Protocol(
        name="x-aigd",
        alias="P4",
        title="X-AIGD",
        columns=("accuracy", "accuracy_fake"),
        layouts=("x-aigd", "x-aigd-json"),
        scaling="min-max",
        says="Judgement: balanced accuracy, where --real brings real pictures. Artifacts: pixels pooled over all "
        "annotated fakes, the seven categories as one; maps are stretched to [0, 1] and cut at .5.",
    ),
    Protocol(
        name="tampering-pixels",
        alias="P5",
        title="Tampering, pixels",
        columns=("auc",),
        layouts=(
            "casia",
            "columbia",
            "coverage",
            "imd2020",
            "imdl-folders",
            "imdl-json",
            "tampcoco",
            "coco-inpaint",
            "opensdi",
            "manifest",
        ),
        says="F1 and IoU of the heat map at .5, pooled over the data set and as the mean over tampered pictures; "
        "papers print the second.",
    ),
    Protocol(
        name="robustness",
        alias="P6",
        title="Robustness grid",
        columns=("accuracy",),
        conditions=(NATIVE, *GRID),
        says="JPEG 10 to 100, Gaussian blur .5 to 4 px and resizing .25 to 4, each once and twice (twice: with the "
        "same strength again; a second resizing goes back to the size that was).",
    ),
)


def by_name(name: str) -> Protocol:
    """A protocol by its name or its alias.

    Raises
    ------
    DataError
        There is none.
    """
    for protocol in PROTOCOLS:
        if name.casefold() in (protocol.name, protocol.alias.casefold()):
            return protocol
    names = [p.name for p in PROTOCOLS]
    near = difflib.get_close_matches(name.casefold(), names, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise DataError(
        f"--protocol takes one of {', '.join(f'{p.name} ({p.alias})' for p in PROTOCOLS)}, got {name!r}.{hint}"
    )
