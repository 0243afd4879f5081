"""The paper's ablations and diagnostics, from one configuration file, small and over several seeds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tellsign.data.balance import balance, folds, source_weight
from tellsign.data.ranking import auc, by_source, within_topic
from tellsign.errors import SettingError
from tellsign.towers import ClipTower

from .diagnostics import domain_accuracy, error_sensitivity, report
from .facts import WHOLE, Facts
from .statements import TEXT_KINDS
from .text import TextEncoder
from .tokens import TokenStore, topics_of
from .train import Inputs, Lesson, Recipe, apply, facts_of, lesson, train

CONFIGURATION = Path(__file__).with_name("ablations.json")


@attrs.frozen(kw_only=True)
class Row:
    """One line of the table."""

    name: str
    recipe: Mapping[str, Any]
    """What differs from the base."""


@attrs.frozen(kw_only=True)
class Configuration:
    """What is compared."""

    seeds: tuple[int, ...]
    base: Mapping[str, Any]
    rows: tuple[Row, ...]

    @classmethod
    def read(cls, file: Path = CONFIGURATION) -> Configuration:
        """Read a configuration.

        Raises
        ------
        SettingError
            It is not one, or a recipe in it is none.
        """
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            rows = tuple(Row(name=r["name"], recipe=r.get("recipe", {})) for r in told["rows"])
            made = cls(seeds=tuple(told["seeds"]), base=told["base"], rows=rows)
            for row in made.rows:
                made.recipe(row, 0)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise SettingError("config", "a JSON file with seeds, base and rows", f"{file}: {error}") from error
        return made

    def recipe(self, row: Row, seed: int) -> Recipe:
        """The recipe of a row."""
        return Recipe(**{**self.base, **row.recipe, "seed": seed})


class Bench:
    """Stores, facts, topics and embedded texts that all rows share.

    Parameters
    ----------
    folder : Path
        What `tokens` wrote.
    tower : ClipTower
    encoder : TextEncoder
    """

    def __init__(self, folder: Path, tower: ClipTower, encoder: TextEncoder) -> None:
        self.tower, self.encoder = tower, encoder
        self.fit, self.fuse = TokenStore.read(folder / "fit"), TokenStore.read(folder / "fuse")
        self.facts: list[Facts] = facts_of(self.fit)
        self.topic, self.fuse_topic = topics_of(self.fit, tower, self.fuse)
        self._lessons: dict[tuple[str, int, str, int], Lesson] = {}
        self._inputs: dict[tuple[str, int, int, bool], Inputs] = {}

    def inputs(self, store: TokenStore, recipe: Recipe) -> Inputs:
        """What a recipe's model reads of a store; the last kind asked for is kept."""
        key = (str(store.folder), recipe.last, recipe.blocks, recipe.tuned == "full")
        if key not in self._inputs:
            self._inputs = {k: v for k, v in self._inputs.items() if k[1:] == key[1:]}
            self._inputs[key] = Inputs(store, recipe, self.tower)
        return self._inputs[key]

    def lesson(self, recipe: Recipe) -> Lesson:
        """The texts of a recipe, embedded once."""
        key = (recipe.text, recipe.texts, recipe.long, recipe.seed)
        if key not in self._lessons:
            self._lessons[key] = lesson(
                self.facts, self.encoder, recipe.text, texts=recipe.texts, long=recipe.long, seed=recipe.seed
            )
        return self._lessons[key]

    def weight(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """How often each of `rows` is drawn; forgeries as often as a picture does on average."""
        out = np.ones(len(rows))
        whole = np.isin(self.fit.kind[rows], WHOLE)
        chosen = rows[whole]
        out[whole] = drawing_weight(self.fit.label[chosen], self.fit.source[chosen], self.topic[chosen])
        return out

    def split(self, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of `fit` to learn from, and those of the families that are held out under this seed."""
        fold = folds(self.fit.label, self.fit.source, seed=seed)
        rows = np.arange(len(self.fit))
        return rows[fold != 0], rows[(fold == 0) & np.isin(self.fit.kind, WHOLE)]


def drawing_weight(label: NDArray[np.int64], source: NDArray[np.str_], topic: NDArray[np.int64]) -> NDArray[np.float64]:
    """How often each picture is drawn, so that topic and source say nothing; by source where no topic has both."""
    mixed = set(topic[label == 0].tolist()) & set(topic[label == 1].tolist())
    return balance(label, source, topic) if mixed else source_weight(label, source)


def ranked(store: TokenStore, topic: NDArray[np.int64], rows: NDArray[np.int64], scores: Tensor) -> dict[str, float]:
    """How scores of `rows` rank."""
    label, values = store.label[rows], scores.double().numpy()
    return {
        "auc": auc(label, values),
        "within topic": within_topic(label, values, topic[rows]),
        "by source": by_source(label, values, store.source[rows]),
    }


def one(bench: Bench, recipe: Recipe) -> dict[str, float]:
    """Train a recipe without the held-out families and rank these and `fuse`."""
    began = time.process_time()
    rows, held = bench.split(recipe.seed)
    inputs = bench.inputs(bench.fit, recipe)
    student, curve = train(
        bench.tower,
        bench.fit,
        rows,
        bench.lesson(recipe),
        recipe,
        weight=bench.weight(rows),
        joint=bench.encoder.joint,
        inputs=inputs,
    )
    spent = time.process_time() - began
    unseen = np.arange(len(bench.fuse))
    told: dict[str, float] = {"contrastive": curve[-1]["contrastive"], "bce": curve[-1]["bce"], "seconds": spent}
    for name, store, topic, chosen in (
        ("held", bench.fit, bench.topic, held),
        ("fuse", bench.fuse, bench.fuse_topic, unseen),
    ):
        v, raw = apply(student, bench.inputs(store, recipe), chosen)
        told |= {f"{name} {k}": x for k, x in ranked(store, topic, chosen, raw).items()}
        if name == "fuse":
            fake = store.label == 1
            told["domain accuracy"] = domain_accuracy(v[fake], store.source[fake])[0]
    return told


def run(
    bench: Bench, configuration: Configuration, journal: Path, *, tell: Callable[[str], object] = print
) -> list[dict[str, Any]]:
    """Every row under every seed; what the journal holds is not run again.

    Returns
    -------
    list of dict
        One line per row: name, and mean and standard deviation of each number.
    """
    done: dict[tuple[str, str], dict[str, float]] = {}
    if journal.is_file():
        for text in journal.read_text(encoding="utf-8").splitlines():
            told = json.loads(text)
            done[told["row"], told["recipe"]] = told["found"]
    out = []
    for row in configuration.rows:
        each = []
        for seed in configuration.seeds:
            recipe = configuration.recipe(row, seed)
            key = (row.name, json.dumps(attrs.asdict(recipe), sort_keys=True))
            if key not in done:
                done[key] = one(bench, recipe)
                with journal.open("a", encoding="utf-8") as handle:
                    handle.write(json.dumps({"row": key[0], "recipe": key[1], "found": done[key]}) + "\n")
                tell(f"{row.name}, seed {seed}: fuse {done[key]['fuse auc']:.3f}, held {done[key]['held auc']:.3f}")
            each.append(done[key])
        line: dict[str, Any] = {"row": row.name}
        for name in each[0]:
            values = [e[name] for e in each if not np.isnan(e[name])] or [float("nan")]
            line[name], line[f"{name} sd"] = float(np.mean(values)), float(np.std(values))
        out.append(line)
    return out


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The lines as Markdown."""
    columns = ("held within topic", "held auc", "fuse within topic", "fuse auc", "fuse by source")
    out = ["| | " + " | ".join((*columns, "L_con", "BCE")) + " |", "|---" * (len(columns) + 3) + "|"]
    for line in lines:
        cells = [f"{line[c]:.3f} +- {line[f'{c} sd']:.3f}" for c in columns]
        out.append(
            f"| {line['row']} | " + " | ".join((*cells, f"{line['contrastive']:.2f}", f"{line['bce']:.2f}")) + " |"
        )
    return "\n".join(out)


def text_space(bench: Bench, *, texts: int = 1, seed: int = 0) -> dict[str, dict[str, float]]:
    """The three diagnostics for every kind of text."""
    found: dict[str, dict[str, float]] = {}
    whole = np.isin(bench.fit.kind, WHOLE)
    for kind in TEXT_KINDS:
        made = bench.lesson(Recipe(text=kind, texts=texts, seed=seed)).texts[:, 0]
        found[kind] = report(made[whole], bench.fit.label[whole], bench.fit.source[whole], bench.encoder)
    found["errors"] = error_sensitivity(bench.encoder, seed=seed)
    return found
