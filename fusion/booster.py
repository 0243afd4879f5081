"""The monotone XGBoost head. The only module of this room that imports xgboost, when it is first used."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tellsign.schemas.checks import integer, number

from .errors import BundleError
from .features import FeatureColumn
from .ubj import check_booster

if TYPE_CHECKING:
    import xgboost

Floats = NDArray[np.float64]


@attrs.frozen(kw_only=True)
class BoosterConfig:
    """How complex a booster may be."""

    depth: int = attrs.field(default=3, validator=integer(1))
    eta: float = attrs.field(default=0.05, validator=number(1e-4, 1))
    rounds: int = attrs.field(default=400, validator=integer(1))
    """At most; early stopping chooses fewer."""
    min_child_weight: float = attrs.field(default=10.0, validator=number(0))
    reg_lambda: float = attrs.field(default=1.0, validator=number(0))
    subsample: float = attrs.field(default=0.8, validator=number(0.1, 1))
    colsample: float = attrs.field(default=0.8, validator=number(0.1, 1))

    @property
    def title(self) -> str:
        """For tables."""
        return f"booster depth {self.depth} eta {self.eta:g} leaf {self.min_child_weight:g} l2 {self.reg_lambda:g}"


LADDER = (
    BoosterConfig(depth=3),
    BoosterConfig(depth=2),
    BoosterConfig(depth=1),
    BoosterConfig(depth=1, eta=0.03, min_child_weight=20, reg_lambda=10),
)
"""From complex to simple; the trainer goes down until the booster does not lose."""


@attrs.frozen(eq=False)
class BoosterHead:
    """A trained booster with its columns."""

    columns: tuple[FeatureColumn, ...]
    booster: xgboost.Booster

    kind = "booster"

    def margin(self, values: Floats) -> Floats:
        """float64 (n,) for `values` float64 (n, columns) with NaN."""
        return np.asarray(self.booster.predict(_matrix(values, self.columns), output_margin=True), np.float64)

    def contributions(self, values: Floats) -> tuple[Floats, Floats]:
        """Per column float64 (n, columns), and the bias float64 (n,); they sum to the margin exactly.

        Tree SHAP in 32-bit floats leaves a remainder of about 1e-6, which the bias takes.
        """
        data = _matrix(values, self.columns)
        parts = np.asarray(self.booster.predict(data, pred_contribs=True), np.float64)[:, :-1]
        margin = np.asarray(self.booster.predict(data, output_margin=True), np.float64)
        return parts, margin - parts.sum(1)

    def to_bytes(self) -> bytes:
        """XGBoost's own UBJ."""
        return bytes(self.booster.save_raw("ubj"))

    @classmethod
    def from_bytes(cls, data: bytes, columns: Sequence[FeatureColumn], file: str) -> BoosterHead:
        """Read UBJ bytes; a booster of other columns, another objective or another constraint is refused.

        Raises
        ------
        BundleError
            Naming `file`.
        """
        # Before XGBoost is even imported: its reader can be brought to abort the process.
        try:
            check_booster(data, [c.name for c in columns])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error) as error:
            wanted = "a binary:logistic booster of the manifest's columns in XGBoost's UBJ format"
            raise BundleError(file, wanted, f"{type(error).__name__}: {error}") from error

        import xgboost

        booster = xgboost.Booster({"nthread": 1})
        try:
            booster.load_model(bytearray(data))
        except xgboost.core.XGBoostError as error:
            raise BundleError(file, "a booster that XGBoost can read", str(error)) from error
        booster.set_param({"nthread": 1})
        return cls(tuple(columns), booster)


def parameters(columns: Sequence[FeatureColumn], config: BoosterConfig, seed: int) -> dict[str, Any]:
    """XGBoost's parameters: monotone by direction, trees that mix columns within one task only, one thread.

    Trees within a task make the margin a sum of one function per task, so contributions by task are exact.
    """
    by_task: dict[str, list[int]] = {}
    for i, column in enumerate(columns):
        by_task.setdefault(str(column.task), []).append(i)
    return {
        "objective": "binary:logistic",
        "base_score": 0.5,
        "tree_method": "hist",
        "max_depth": config.depth,
        "eta": config.eta,
        "min_child_weight": config.min_child_weight,
        "lambda": config.reg_lambda,
        "subsample": config.subsample,
        "colsample_bytree": config.colsample,
        "monotone_constraints": "(" + ",".join(str(c.direction) for c in columns) + ")",
        "interaction_constraints": json.dumps(list(by_task.values())),
        "seed": seed,
        "nthread": 1,
        "verbosity": 0,
    }


def fit_booster(
    values: Floats,
    labels: ArrayLike,
    columns: Sequence[FeatureColumn],
    config: BoosterConfig,
    *,
    weights: ArrayLike | None = None,
    seed: int = 0,
    held: tuple[Floats, ArrayLike, ArrayLike] | None = None,
) -> tuple[BoosterHead, int]:
    """Train a booster.

    Parameters
    ----------
    values : float64 array (n, columns)
        With NaN where missing.
    labels : array_like (n,)
        0 or 1.
    columns : sequence of FeatureColumn
    config : BoosterConfig
    weights : array_like (n,), optional
        Positive, of mean about 1: `min_child_weight` counts them.
    seed : int
    held : (values, labels, weights), optional
        Stops when 30 rounds brought no lower log loss on these rows.

    Returns
    -------
    head : BoosterHead
    rounds : int
        The best number of rounds; with `held` the returned head has all that were tried.
    """
    import xgboost

    data = _matrix(values, columns, labels, weights)
    best: dict[str, Any] = {}
    if held is not None:
        best = {"evals": [(_matrix(held[0], columns, held[1], held[2]), "held")], "early_stopping_rounds": 30}
    settings = parameters(columns, config, seed) | {"eval_metric": "logloss"}
    booster = xgboost.train(settings, data, num_boost_round=config.rounds, verbose_eval=False, **best)
    rounds = int(booster.best_iteration) + 1 if held is not None else config.rounds
    return BoosterHead(tuple(columns), booster), rounds


def _matrix(
    values: Floats,
    columns: Sequence[FeatureColumn],
    labels: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> xgboost.DMatrix:
    import xgboost

    return xgboost.DMatrix(
        np.ascontiguousarray(values, np.float32),
        label=None if labels is None else np.asarray(labels, np.float32),
        weight=None if weights is None else np.asarray(weights, np.float32),
        feature_names=[c.name for c in columns],
        missing=np.nan,
        nthread=1,
    )


__all__ = ["LADDER", "BoosterConfig", "BoosterHead", "fit_booster", "parameters"]
