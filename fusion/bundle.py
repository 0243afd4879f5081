"""A trained fusion: from evidence to probabilities, contributions and a label, and its folder on disk."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.schemas import (
    DEFINITE_LABELS,
    HEADS,
    Contribution,
    Declaration,
    Evidence,
    Label,
    Notice,
    PredictionSet,
    ProvenanceEvidence,
    Task,
    UncertainReason,
    label_probabilities,
    most_likely,
)
from tellsign.schemas.checks import InvalidValueError

from .booster import BoosterHead
from .calibration import Affine, logit, sigmoid
from .claims import names_the_place, raised, settle, strongest_claim, told
from .conformal import DEFAULT_ERROR_RATES, ClassScores, resolve_error_rates
from .errors import BundleError
from .features import FeatureColumn, columns, feature_row, keep_blocks, pattern_key, present_blocks
from .logistic import LogisticHead

SCHEMA_VERSION = 1
"""Version of the folder's layout."""

DEFAULT_FOLDER = Path(__file__).parent / "default"
"""Where the shipped bundle lies."""

PRIOR_RANGE = (1e-6, 1 - 1e-6)

PLAUSIBLE = 0.2
"""A label with at least this probability is not ruled out, whatever its quantile says."""

MANIFEST = "manifest.json"
_HEADS_FILE = "heads.json"
_SCORES_FILE = "conformal.safetensors"
_BOOSTERS = {head: f"{head}.ubj" for head in HEADS}
# Only these names are ever opened, so that a manifest cannot lead outside the folder.
_LARGEST = {
    MANIFEST: 4 << 20,
    _HEADS_FILE: 16 << 20,
    _SCORES_FILE: 64 << 20,
    **dict.fromkeys(_BOOSTERS.values(), 64 << 20),
}
_MALFORMED = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
_CORE = (Label.AUTHENTIC, Label.AI_GENERATED)

Floats = NDArray[np.float64]
T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Fused:
    """What the fusion makes of one picture's evidence; the sdk adds picture, evidence and timings to a Verdict."""

    label: Label
    reason: UncertainReason | None
    p_ai: float | None
    p_tampered: float | None
    p_ai_at_1_percent: float | None
    prediction_set: PredictionSet
    contributions: tuple[Contribution, ...]
    notices: tuple[Notice, ...]
    prior: float
    pattern: str
    """The blocks that the answer rests on, joined by "+"; "" where there is none."""


@attrs.frozen(kw_only=True, eq=False)
class Head:
    """One question's model with its calibrators."""

    model: LogisticHead | BoosterHead
    calibrators: dict[str, Affine]
    """By the key of the head's own blocks."""

    @property
    def columns(self) -> tuple[FeatureColumn, ...]:
        """The model's columns, ordered by name."""
        return self.model.columns

    @property
    def blocks(self) -> frozenset[str]:
        """The blocks that the model has columns of."""
        return frozenset(c.block for c in self.columns)


@attrs.frozen(kw_only=True, eq=False)
class Bundle:
    """Heads, calibrators and conformal scores that belong together.

    Built by `tellsign.fusion.train_bundle` or `Bundle.load`; never changes, and may be shared by threads.
    """

    columns: tuple[FeatureColumn, ...]
    """Of both heads, ordered by name."""
    heads: dict[str, Head]
    """By name; "p_ai" always, "p_tampered" where there was tamper evidence to train on."""
    conformal: dict[str, dict[Label, ClassScores]]
    """By the key of the picture's availability pattern over both heads."""
    pattern_auc: dict[str, float]
    """Out-of-fold AUC of p_ai by pattern; picks between patterns of equal size."""
    sources: tuple[str, ...]
    """What the source numbers in the conformal scores mean."""
    error_rates: dict[Label, float] = attrs.field(factory=lambda: dict(DEFAULT_ERROR_RATES))
    worst_source: bool = True
    minimum_tasks: int = 1
    minimum_groups: int = 20
    plausible: float = PLAUSIBLE
    training: dict[str, Any] = attrs.field(factory=dict)
    """JSON-able: plugin versions and weights' hashes ("plugins"), "data_sha256", "dropout", "seed", "versions", ..."""
    _quantiles: dict[tuple[str, Label, float, bool], float] = attrs.field(factory=dict, init=False, repr=False)

    # -- using ---------------------------------------------------------------------------------------------------

    def fuse(
        self,
        evidence: Sequence[Evidence],
        declarations: Mapping[str, Declaration],
        *,
        prior: float = 0.5,
        error_rate: float | Mapping[Label, float] | Mapping[str, float] | None = None,
        versions: Mapping[str, str] | None = None,
        worst_source: bool | None = None,
    ) -> Fused:
        """Turn one picture's evidence into probabilities and a label.

        Parameters
        ----------
        evidence : sequence of Evidence
            Of all plugins, in any order.
        declarations : mapping of str to Declaration
            Of the plugins that ran, by name. Plugins and columns that the bundle does not know are ignored with a
            notice, columns whose meaning differs likewise.
        prior : float
            Share of AI pictures where the picture comes from, in [1e-6, 1 - 1e-6].
        error_rate : float or mapping of Label to float, optional
            Largest share of the pictures of a label whose prediction set misses it; one number for all labels or
            one per label. Default the bundle's `error_rates`.
        versions : mapping of str to str, optional
            Versions of the plugins that ran; default those declared. A version other than the calibrated one gives
            a notice.
        worst_source : bool, optional
            Whether the quantile of `authentic` is that of the worst real source; default the bundle's.

        Returns
        -------
        Fused
            `prediction_set.error_rate` is the largest of the labels' rates, which bounds the chance that the set
            misses the truth.

        Notes
        -----
        The label is definite where exactly one assessed label is in the set, it is the most likely one at the asked
        prior, and both `authentic` and `ai_generated` are assessed: without the one, an accusation would be
        unprotected, and without the other an acquittal. A conformal set bounds the share of each label that is
        missed, not the share of verdicts that are wrong, which can be large where a plugin is weak; so every label
        whose probability at the asked prior is at least `plausible` joins a set that is not empty (which only widens
        it), and a definite label never contradicts the printed probability.

        Raises
        ------
        ValueError
            `prior` or `error_rate` outside its range.
        """
        rates = resolve_error_rates(error_rate, self.error_rates)
        _check_prior(prior)
        guard = self.worst_source if worst_source is None else worst_source
        row, notices = self._row(evidence, declarations, versions)
        answered = present_blocks(row, self.columns)
        used, more = self._nearest(answered)
        notices += more
        claim = strongest_claim(evidence)
        if used is None:
            return self._nothing(prior, rates, notices, claim)
        row = keep_blocks(row, self.columns, used)
        odds, contributions = self._heads(row, used, prior)
        if "p_ai" not in odds:
            notices.append(_notice("no_evidence", "no evidence for p_ai was given"))
            return self._nothing(prior, rates, notices, claim)
        base = raised(odds["p_ai"], claim)
        if claim is not None:
            contributions += (_of_claim(claim, base - odds["p_ai"]),)
            notices.append(told(claim, base - odds["p_ai"]))
        p_ai = float(sigmoid(base + logit(prior)))
        p_tampered = float(sigmoid(odds["p_tampered"])) if "p_tampered" in odds else None
        share = None if names_the_place(claim) else self.ai_share(row)
        key = pattern_key(used)
        label, reason, chosen = self.judge(base, p_tampered, share, key, rates, guard, prior)
        tasks = {c.task for c in self.columns if c.block in used}
        if len(tasks) < self.minimum_tasks:
            label, reason = Label.UNCERTAIN, UncertainReason.TOO_FEW_PLUGINS
            text = f"{len(tasks)} task(s) answered, the fusion asks for {self.minimum_tasks}"
            notices.append(_notice("too_few_plugins", text))
        label, reason, chosen = settle(claim, p_ai, label, reason, chosen)
        unassessed = [x for x in _CORE if x in chosen.not_assessed]
        if unassessed:
            text = f"too few calibration pictures of {' and '.join(unassessed)} for {key} at the asked error rate"
            notices.append(_notice("not_assessed", text))
        return Fused(
            label=label,
            reason=reason,
            p_ai=p_ai,
            p_tampered=p_tampered,
            p_ai_at_1_percent=float(sigmoid(base + logit(0.01))),
            prediction_set=chosen,
            contributions=contributions,
            notices=tuple(notices),
            prior=float(prior),
            pattern=key,
        )

    def log_odds(self, head: str, values: Floats, blocks: Iterable[str]) -> Floats:
        """Calibrated log-odds at even odds of rows that share one pattern.

        Parameters
        ----------
        head : {"p_ai", "p_tampered"}
        values : float64 array (n, columns)
            By the bundle's columns; numbers outside `blocks` are not looked at.
        blocks : iterable of str
            A pattern whose part of the head's blocks is calibrated.

        Returns
        -------
        float64 array (n,)
        """
        part = self.heads[head]
        mine = part.blocks & set(blocks)
        key = pattern_key(mine)
        if key not in part.calibrators:
            raise ValueError(f"blocks takes one of the calibrated patterns {sorted(part.calibrators)}, got {key!r}")
        rows = keep_blocks(values, self.columns, mine)[:, self._places(part)]
        return part.calibrators[key].log_odds(part.model.margin(rows))

    def covering(self, answered: Iterable[str]) -> frozenset[str] | None:
        """The calibrated pattern by which a picture with these blocks is judged, None where no part is calibrated."""
        return self._nearest(frozenset(answered))[0]

    def ai_share(self, row: Floats) -> float | None:
        """Share of the picture that a segmentation plugin's AI mask covers, None where no such plugin answered."""
        found = [
            v
            for c, v in zip(self.columns, row.tolist(), strict=True)
            if c.task is Task.SEGMENTATION and c.statistic == "share" and c.head == "p_ai" and not math.isnan(v)
        ]
        return max(found, default=None)

    def judge(
        self,
        base: float,
        p_tampered: float | None,
        share: float | None,
        key: str,
        rates: Mapping[Label, float],
        guard: bool,
        prior: float = 0.5,
    ) -> tuple[Label, UncertainReason | None, PredictionSet]:
        """Label, reason and prediction set of calibrated probabilities (see `fuse`).

        Parameters
        ----------
        base : float
            Log-odds of p_ai at even odds: the sets are class-conditional, so they do not depend on the prior.
        p_tampered, share : float or None
            In [0, 1].
        key : str
            Pattern of the picture, a key of `conformal`.
        rates : mapping of Label to float
        guard : bool
            Whether `authentic` takes the worst source's quantile.
        prior : float
        """
        chances = label_probabilities(float(sigmoid(base)), p_tampered, share)
        inside: set[Label] = set()
        unknown: set[Label] = set()
        for label in DEFINITE_LABELS:
            threshold = self.quantile(key, label, rates[label], guard and label is Label.AUTHENTIC)
            if threshold == math.inf:
                unknown.add(label)
            elif 1 - chances[label] <= threshold + 1e-12:
                inside.add(label)
        likely = most_likely(float(sigmoid(base + logit(prior))), p_tampered, share)
        if not inside:
            label, reason = Label.UNCERTAIN, UncertainReason.NOTHING_LIKE_IT
            if len(unknown) == len(DEFINITE_LABELS):
                reason = UncertainReason.SEVERAL_LABELS
        else:
            shifted = label_probabilities(float(sigmoid(base + logit(prior))), p_tampered, share)
            inside |= {x for x in DEFINITE_LABELS if x not in unknown and shifted[x] >= self.plausible}
            inside |= {likely} - unknown
            if inside == {likely} and not unknown.intersection(_CORE):
                label, reason = likely, None
            else:
                label, reason = Label.UNCERTAIN, UncertainReason.SEVERAL_LABELS
        chosen = PredictionSet(
            labels=tuple(x for x in DEFINITE_LABELS if x in inside | unknown),
            not_assessed=tuple(x for x in DEFINITE_LABELS if x in unknown),
            error_rate=max(rates.values()),
            error_rates={str(x): rate for x, rate in rates.items()},
        )
        return label, reason, chosen

    def quantile(self, key: str, label: Label, error_rate: float, worst_source: bool = False) -> float:
        """Conformal threshold of a label under a pattern; infinite where the label cannot be assessed."""
        place = (key, label, error_rate, worst_source)
        if place not in self._quantiles:
            scores = self.conformal[key].get(label)
            enough = scores is not None and scores.groups >= self.minimum_groups
            self._quantiles[place] = (
                scores.quantile(error_rate, worst_source=worst_source) if scores is not None and enough else math.inf
            )
        return self._quantiles[place]

    def _row(
        self,
        evidence: Sequence[Evidence],
        declarations: Mapping[str, Declaration],
        versions: Mapping[str, str] | None,
    ) -> tuple[Floats, list[Notice]]:
        notices: list[Notice] = []
        plugins = {c.plugin for c in self.columns}
        known = {c.name: c for c in self.columns}
        trained = self.training.get("plugins", {})
        stray = {e.plugin for e in evidence} - set(declarations)
        for name in sorted(stray):
            notices.append(_notice("undeclared_plugin", f"evidence of {name}, which is not declared, is ignored", name))
        for name, declaration in sorted(declarations.items()):
            if name not in plugins:
                if declaration.columns:
                    text = f"the fusion was not trained with {name}; its evidence does not change the probabilities"
                    notices.append(_notice("unknown_plugin", text, name))
                continue
            was = trained.get(name, {})
            now = (versions or {}).get(name, declaration.version)
            if was.get("version", now) != now:
                text = f"the fusion was calibrated with {name} {was['version']}, not {now}"
                notices.append(_notice("plugin_version", text, name))
            hashes = {w.file: w.sha256 for w in declaration.weights}
            if was.get("weights", hashes) != hashes:
                notices.append(
                    _notice("plugin_weights", f"the fusion was calibrated with other weights of {name}", name)
                )
        row = feature_row(evidence, {n: d for n, d in declarations.items() if n in plugins})
        for name in sorted(plugins & set(declarations)):
            try:
                declared = columns({name: declarations[name]})
            except InvalidValueError:
                declared = ()  # A block that the fusion could not name: none of the plugin's columns are those trained.
            kept = {c.name for c in declared if known.get(c.name) == c}
            foreign = [n for n in row if n.startswith(f"{name}.") and n not in kept]
            for n in foreign:
                del row[n]
            if foreign:
                text = f"columns that the fusion does not know, or knows otherwise, are ignored: {', '.join(foreign)}"
                notices.append(_notice("unknown_column", text, name))
        values = np.array([row.get(c.name, math.nan) for c in self.columns], np.float64)
        return values, notices

    def _nearest(self, answered: frozenset[str]) -> tuple[frozenset[str] | None, list[Notice]]:
        if not answered:
            return None, [_notice("no_evidence", "no plugin that the fusion knows gave evidence")]
        if pattern_key(answered) in self.conformal:
            return answered, []
        parts = [frozenset(key.split("+")) for key in self.conformal]
        fitting = [p for p in parts if p <= answered]
        if not fitting:
            text = f"no part of {pattern_key(answered)} was calibrated"
            return None, [_notice("not_calibrated", text)]
        best = max(fitting, key=lambda p: (len(p), self.pattern_auc.get(pattern_key(p), 0.0), pattern_key(p)))
        ignored = ", ".join(sorted(answered - best))
        text = (
            f"{pattern_key(answered)} was never calibrated together; judged by {pattern_key(best)}, without {ignored}"
        )
        return best, [_notice("nearest_pattern", text)]

    def _heads(
        self, row: Floats, used: frozenset[str], prior: float
    ) -> tuple[dict[str, float], tuple[Contribution, ...]]:
        odds: dict[str, float] = {}
        rows: list[Contribution] = []
        for name in HEADS:
            head = self.heads.get(name)
            if head is None:
                continue
            values = row[None, self._places(head)]
            key = pattern_key(present_blocks(values[0], head.columns) & used)
            if key not in head.calibrators:
                continue
            calibrator = head.calibrators[key]
            parts, _ = head.model.contributions(values)
            odds[name] = float(calibrator.log_odds(head.model.margin(values))[0])
            by_plugin: dict[tuple[str, Task], float] = {}
            for column, value, part in zip(head.columns, values[0].tolist(), parts[0].tolist(), strict=True):
                # What a booster's trees make of a missing column is where the model starts from, not an answer.
                if not math.isnan(value):
                    place = (column.plugin, column.task)
                    by_plugin[place] = by_plugin.get(place, 0.0) + calibrator.slope * part
            for (plugin, task), value in sorted(by_plugin.items()):
                rows.append(Contribution(head=name, plugin=plugin, task=task, log_odds=value))
            # Intercept, the model's own start and the calibrator's limit.
            rest = odds[name] - sum(by_plugin.values())
            rows.append(Contribution(head=name, plugin="bias", log_odds=rest))
            if name == "p_ai":
                rows.append(Contribution(head=name, plugin="prior", log_odds=logit(prior)))
        return odds, tuple(rows)

    def _places(self, head: Head) -> list[int]:
        place = {c.name: i for i, c in enumerate(self.columns)}
        return [place[c.name] for c in head.columns]

    def _nothing(
        self,
        prior: float,
        rates: Mapping[Label, float],
        notices: list[Notice],
        claim: ProvenanceEvidence | None = None,
    ) -> Fused:
        """The answer without learned evidence: none, or from even odds what the file itself claims."""
        label = Label.UNCERTAIN
        reason: UncertainReason | None = UncertainReason.TOO_FEW_PLUGINS
        chosen = PredictionSet(
            labels=DEFINITE_LABELS,
            not_assessed=DEFINITE_LABELS,
            error_rate=max(rates.values()),
            error_rates={str(x): rate for x, rate in rates.items()},
        )
        p_ai = rare = None
        contributions: tuple[Contribution, ...] = ()
        if claim is not None:
            base = raised(0.0, claim)
            p_ai, rare = (float(sigmoid(base + logit(x))) for x in (prior, 0.01))
            contributions = (
                Contribution(head="p_ai", plugin="prior", log_odds=logit(prior)),
                _of_claim(claim, base),
            )
            notices = [*notices, told(claim, base)]
            label, reason, chosen = settle(claim, p_ai, label, reason, chosen)
        return Fused(
            label=label,
            reason=reason,
            p_ai=p_ai,
            p_tampered=None,
            p_ai_at_1_percent=rare,
            prediction_set=chosen,
            contributions=contributions,
            notices=tuple(notices),
            prior=float(prior),
            pattern="",
        )

    # -- on disk -------------------------------------------------------------------------------------------------

    @property
    def manifest(self) -> dict[str, Any]:
        """What `save` writes as manifest.json."""
        return self._render()[0]

    @cached_property
    def sha256(self) -> str:
        """Hash of the manifest, which holds the hashes of everything else: the bundle's identity."""
        return hashlib.sha256(_dump(self.manifest)).hexdigest()

    @property
    def version(self) -> str:
        """Short name for `Verdict.versions`: heads and the first digits of the hash."""
        kinds = "+".join(sorted({h.model.kind for h in self.heads.values()}))
        return f"{kinds}-{self.sha256[:12]}"

    def _render(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        from safetensors.numpy import save

        files: dict[str, bytes] = {}
        heads: dict[str, Any] = {}
        for name, head in sorted(self.heads.items()):
            model = head.model
            if isinstance(model, BoosterHead):
                files[_BOOSTERS[name]] = model.to_bytes()
                body: dict[str, Any] = {}
            else:
                body = {
                    "weights": model.weights.tolist(),
                    "centre": model.centre.tolist(),
                    "scale": model.scale.tolist(),
                    "bias": model.bias,
                }
            heads[name] = {
                "kind": model.kind,
                "columns": [c.name for c in head.columns],
                **body,
                "calibrators": {k: attrs.asdict(c) for k, c in sorted(head.calibrators.items())},
            }
        files[_HEADS_FILE] = _dump(heads)
        patterns = sorted(self.conformal)
        tensors: dict[str, NDArray[Any]] = {}
        for i, key in enumerate(patterns):
            for label, scores in self.conformal[key].items():
                for part in ("scores", "weights", "sources"):
                    tensors[f"{i}.{label}.{part}"] = np.ascontiguousarray(getattr(scores, part))
        files[_SCORES_FILE] = save(tensors)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "heads": {name: head.model.kind for name, head in sorted(self.heads.items())},
            "columns": [{**attrs.asdict(c), "task": str(c.task)} for c in self.columns],
            "patterns": patterns,
            "pattern_auc": {k: self.pattern_auc[k] for k in patterns if k in self.pattern_auc},
            "calibration_groups": {
                key: {str(label): s.groups for label, s in sorted(self.conformal[key].items())} for key in patterns
            },
            "sources": list(self.sources),
            "error_rates": {str(k): v for k, v in self.error_rates.items()},
            "worst_source": self.worst_source,
            "minimum_tasks": self.minimum_tasks,
            "minimum_groups": self.minimum_groups,
            "plausible": self.plausible,
            "training": self.training,
            "files": {
                name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
                for name, data in sorted(files.items())
            },
        }
        return manifest, files

    def save(self, path: str | Path) -> None:
        """Write the bundle into the folder `path`, which is made where it is missing.

        The manifest is written last, so that a folder whose writing was cut off does not load.
        """
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        manifest, files = self._render()
        (folder / MANIFEST).unlink(missing_ok=True)
        for name in _BOOSTERS.values():
            if name not in files:
                (folder / name).unlink(missing_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        (folder / MANIFEST).write_bytes(_dump(manifest))

    @classmethod
    def load(cls, path: str | Path | None = None) -> Bundle:
        """Read a bundle's folder, checking every file.

        Parameters
        ----------
        path : str or Path, optional
            The folder; default the shipped bundle.

        Raises
        ------
        BundleError
            Naming the file, what was expected and what was there: a missing, oversized, truncated or changed file, a
            file name that is not one of a bundle's, missing or foreign columns, numbers out of range.
        """
        folder = DEFAULT_FOLDER if path is None else Path(path)
        if not folder.is_dir():
            raise BundleError(str(folder), "a folder with a fusion bundle", "no such folder")
        reader = _Reader(folder)
        return reader.bundle()


@attrs.define
class _Reader:
    """Reads one folder; every doubt ends in a BundleError that names the file."""

    folder: Path
    file: str = MANIFEST

    def bundle(self) -> Bundle:
        manifest = self.guarded(MANIFEST, lambda: _Fields(_parse(self.read(MANIFEST))))
        version = manifest.take("schema_version", int)
        if version != SCHEMA_VERSION:
            raise BundleError(MANIFEST, f"schema_version {SCHEMA_VERSION}", version)
        data = self.files(manifest)
        made = self.guarded(MANIFEST, lambda: self.columns(manifest))
        kinds = manifest.take("heads", dict)
        heads = self.guarded(_HEADS_FILE, lambda: self.heads(data, made, kinds))
        expected = {_HEADS_FILE, _SCORES_FILE} | {_BOOSTERS[h] for h, k in kinds.items() if k == "booster"}
        if set(data) != expected:
            raise BundleError(MANIFEST, f"the files {sorted(expected)}", sorted(data))
        patterns = manifest.texts("patterns")
        sources = manifest.texts("sources")
        conformal = self.guarded(_SCORES_FILE, lambda: self.scores(data[_SCORES_FILE], patterns, len(sources)))
        self.guarded(MANIFEST, lambda: self.patterns(patterns, made, heads))

        def build() -> Bundle:
            rates = manifest.take("error_rates", dict)
            aucs = manifest.take("pattern_auc", dict)
            return Bundle(
                columns=made,
                heads=heads,
                conformal=conformal,
                pattern_auc={str(k): _finite(v) for k, v in aucs.items()},
                sources=sources,
                error_rates=resolve_error_rates(cast(Mapping[str, float], rates), DEFAULT_ERROR_RATES),
                worst_source=manifest.take("worst_source", bool),
                minimum_tasks=manifest.take("minimum_tasks", int),
                minimum_groups=manifest.take("minimum_groups", int),
                plausible=_finite(manifest.values.get("plausible")),
                training=manifest.take("training", dict),
            )

        return self.guarded(MANIFEST, build)

    def guarded(self, file: str, work: Callable[[], T]) -> T:
        try:
            return work()
        except BundleError:
            raise
        except _MALFORMED as error:
            raise BundleError(file, "a well-formed file of this schema", f"{type(error).__name__}: {error}") from error

    def read(self, name: str, size: int | None = None) -> bytes:
        path = self.folder / name
        try:
            if not path.is_file():
                raise BundleError(name, "a regular file", "no such file")
            have = path.stat().st_size
            if have > _LARGEST[name]:
                raise BundleError(name, f"at most {_LARGEST[name]} bytes", f"{have} bytes")
            if size is not None and have != size:
                raise BundleError(name, f"{size} bytes", f"{have} bytes")
            with path.open("rb") as file:
                return file.read(_LARGEST[name] + 1)
        except OSError as error:
            raise BundleError(name, "a readable file", str(error)) from error

    def files(self, manifest: _Fields) -> dict[str, bytes]:
        out: dict[str, bytes] = {}
        for name, entry in manifest.take("files", dict).items():
            if name not in _LARGEST or name == MANIFEST:
                allowed = sorted(set(_LARGEST) - {MANIFEST})
                raise BundleError(MANIFEST, f"file names among {allowed}", name)
            fields = self.guarded(MANIFEST, lambda entry=entry: _Fields(entry))  # type: ignore[misc]
            digest = fields.take("sha256", str)
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise BundleError(MANIFEST, f"a sha256 of 64 hex digits for {name}", digest)
            data = self.read(name, fields.take("size", int))
            have = hashlib.sha256(data).hexdigest()
            if have != digest:
                raise BundleError(name, f"sha256 {digest}", have)
            out[name] = data
        for name in (_HEADS_FILE, _SCORES_FILE):
            if name not in out:
                raise BundleError(MANIFEST, f"an entry for {name} under files", sorted(out))
        return out

    def columns(self, manifest: _Fields) -> tuple[FeatureColumn, ...]:
        made = tuple(FeatureColumn(**entry) for entry in manifest.take("columns", list))
        names = [c.name for c in made]
        if not names or sorted(set(names)) != names:
            raise BundleError(MANIFEST, "columns of different names, in order of name", names)
        return made

    def heads(self, data: Mapping[str, bytes], made: Sequence[FeatureColumn], kinds: dict[str, Any]) -> dict[str, Head]:
        found = _Fields(_parse(data[_HEADS_FILE]))
        if set(found.values) != set(kinds) or "p_ai" not in kinds or not set(kinds) <= set(HEADS):
            raise BundleError(
                _HEADS_FILE, f"the manifest's heads {sorted(kinds)}, p_ai among them", sorted(found.values)
            )
        out: dict[str, Head] = {}
        for name, kind in kinds.items():
            fields = _Fields(found.take(name, dict))
            mine = tuple(c for c in made if c.head == name)
            wanted, have = [c.name for c in mine], fields.take("columns", list)
            if have != wanted or not wanted:
                raise BundleError(_HEADS_FILE, f"{name} with the manifest's columns {wanted}", have)
            if fields.take("kind", str) != kind:
                raise BundleError(_HEADS_FILE, f"{name} of the manifest's kind {kind!r}", fields.values["kind"])
            model = self.model(name, kind, fields, mine, data)
            calibrators = {str(k): Affine(**c) for k, c in fields.take("calibrators", dict).items()}
            out[name] = Head(model=model, calibrators=calibrators)
        if {c.head for c in made} != set(kinds):
            raise BundleError(MANIFEST, f"columns of the heads {sorted(kinds)}", sorted({c.head for c in made}))
        return out

    def model(
        self, name: str, kind: str, fields: _Fields, mine: tuple[FeatureColumn, ...], data: Mapping[str, bytes]
    ) -> LogisticHead | BoosterHead:
        if kind == "booster":
            file = _BOOSTERS[name]
            if file not in data:
                raise BundleError(MANIFEST, f"an entry for {file} under files", sorted(data))
            return BoosterHead.from_bytes(data[file], mine, file)
        if kind != "logistic":
            raise BundleError(MANIFEST, f'{name} of kind "booster" or "logistic"', kind)
        numbers = {k: np.array([_finite(v) for v in fields.take(k, list)]) for k in ("weights", "centre", "scale")}
        for key, values in numbers.items():
            if values.shape != (len(mine),):
                raise BundleError(_HEADS_FILE, f"{name}.{key} with {len(mine)} numbers", values.shape)
        if not (numbers["scale"] > 0).all():
            raise BundleError(_HEADS_FILE, f"{name}.scale with positive numbers", numbers["scale"].tolist())
        against = [c.name for c, w in zip(mine, numbers["weights"].tolist(), strict=True) if c.direction * w < 0]
        if against:
            raise BundleError(_HEADS_FILE, f"{name}.weights on their column's direction's side", against)
        return LogisticHead(columns=mine, bias=_finite(fields.values.get("bias")), **numbers)

    def scores(self, data: bytes, patterns: tuple[str, ...], sources: int) -> dict[str, dict[Label, ClassScores]]:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(data)
        except SafetensorError as error:
            raise BundleError(_SCORES_FILE, "a safetensors file", str(error)) from error
        parts: dict[tuple[int, Label], dict[str, NDArray[Any]]] = {}
        for name, tensor in tensors.items():
            match = re.fullmatch(r"(\d{1,4})\.([a-z_]+)\.(scores|weights|sources)", name)
            if not match or int(match[1]) >= len(patterns) or match[2] not in {str(x) for x in DEFINITE_LABELS}:
                raise BundleError(_SCORES_FILE, '"<pattern>.<label>.<scores|weights|sources>" as names', name)
            parts.setdefault((int(match[1]), Label(match[2])), {})[match[3]] = tensor
        out: dict[str, dict[Label, ClassScores]] = {key: {} for key in patterns}
        for (i, label), part in parts.items():
            made = ClassScores(**part)
            sizes = {len(made.scores), len(made.weights), len(made.sources)}
            fits = (
                len(sizes) == 1
                and bool(((made.scores >= 0) & (made.scores <= 1)).all())
                and bool(((made.weights > 0) & (made.weights <= 1)).all())
                and bool(((made.sources >= 0) & (made.sources < sources)).all())
            )
            if not fits:
                raise BundleError(
                    _SCORES_FILE,
                    f"{patterns[i]} {label}: equally many scores and weights in [0, 1] and known sources",
                    "others",
                )
            out[patterns[i]][label] = made
        return out

    def patterns(self, patterns: tuple[str, ...], made: Sequence[FeatureColumn], heads: Mapping[str, Head]) -> None:
        known = {c.block for c in made}
        if not patterns or len(set(patterns)) != len(patterns):
            raise BundleError(MANIFEST, "patterns, none twice", list(patterns))
        for key in patterns:
            blocks = frozenset(key.split("+"))
            if pattern_key(blocks) != key or not blocks <= known:
                raise BundleError(MANIFEST, f"patterns of the blocks {sorted(known)}", key)
        for name, head in heads.items():
            for key in head.calibrators:
                if not frozenset(key.split("+")) <= head.blocks:
                    raise BundleError(_HEADS_FILE, f"{name}.calibrators of the blocks {sorted(head.blocks)}", key)


class _Fields:
    """A JSON object whose fields are asked for with their type."""

    def __init__(self, values: Any) -> None:
        if not isinstance(values, dict):
            raise TypeError(f"expected an object, got {type(values).__name__}")
        self.values = values

    def take(self, name: str, kind: type[T]) -> T:
        value = self.values.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise BundleError(MANIFEST, f"{name} as {kind.__name__}", value)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        values = self.take(name, list)
        if not all(isinstance(v, str) for v in values):
            raise BundleError(MANIFEST, f"{name} as a list of strings", values)
        return tuple(values)


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value!r}")
    return float(value)


def _parse(data: bytes) -> Any:
    def refuse(text: str) -> Any:
        raise ValueError(f"{text} is no JSON number")

    return json.loads(data.decode("utf-8"), parse_constant=refuse)


def _dump(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _of_claim(claim: ProvenanceEvidence, log_odds: float) -> Contribution:
    return Contribution(head="p_ai", plugin=claim.plugin, task=claim.task, log_odds=log_odds)


def _notice(code: str, message: str, plugin: str | None = None) -> Notice:
    return Notice(code=code, message=message, plugin=plugin)


def _check_prior(prior: float) -> None:
    low, high = PRIOR_RANGE
    if isinstance(prior, bool) or not isinstance(prior, int | float) or not low <= prior <= high:
        raise ValueError(f"prior takes a number from {low:g} to 1 - {low:g}, got {prior!r}")


__all__ = ["DEFAULT_FOLDER", "PRIOR_RANGE", "SCHEMA_VERSION", "Bundle", "Fused", "Head"]
