"""Evidence to feature row to calibrated probabilities to prediction set. No torch.

The way of one picture::

    evidence  --features.feature_row-->  {"pixel.tower_score": 1.7, "pixel.bundled_score": nan, ...}
              --head (booster or logistic)-->  margin per head (p_ai, p_tampered)
              --calibrator of the availability pattern-->  log-odds at even odds
              --+ logit(prior)-->  p_ai, p_tampered, contributions per plugin
              --class-conditional conformal quantiles of the pattern-->  prediction set  -->  label or `uncertain`

*Columns* come from plugin declarations and from nowhere else, so nothing about the file (container, size, quantisation,
EXIF) can enter. *Blocks* are columns that come and go together; a block that did not answer is NaN throughout. The
*availability pattern* is the set of blocks that answered; calibrators and quantiles exist per pattern, and a picture
with an unseen pattern is judged by the best calibrated part of it, with a notice.

*Heads* are monotone in every ordered column, as long as the same blocks answer (present against missing has no order).
Contributions are in log-odds with the calibrator's slope in them; the rows of a head sum to logit(p) within 1e-5.

*Sets* are class-conditional and counted by group: for each label the share of pictures of that label whose set misses
it is at most its error rate, for pictures exchangeable with the calibration's. `authentic` has a smaller rate than the
rest, because missing it is a false accusation; the worst-source guard raises its quantile to that of the calibration's
worst real source. Unseen generators are not exchangeable with seen ones: the training report prints the coverage
under leave-one-family-out beside the promised one. A label whose probability is at least `plausible` (.2) joins every
set that is not empty, so a definite verdict is at least .8 sure by its own calibration, at the prior that was asked.

Training: ``bundle, report = train_bundle(ScoreTable(...), seed=0)``; ``bundle.save(folder)``; ``Bundle.load(folder)``.
Names are loaded on first use, so importing this package costs nothing; xgboost is imported by booster heads only and
scikit-learn by training only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .baselines import or_rule as or_rule
    from .bundle import Bundle as Bundle
    from .bundle import Fused as Fused
    from .conformal import DEFAULT_ERROR_RATES as DEFAULT_ERROR_RATES
    from .errors import BundleError as BundleError
    from .features import FeatureColumn as FeatureColumn
    from .features import columns as columns
    from .features import feature_row as feature_row
    from .table import ScoreTable as ScoreTable
    from .train import TrainingReport as TrainingReport
    from .train import train_bundle as train_bundle

_HOME = {
    "Bundle": "bundle",
    "BundleError": "errors",
    "DEFAULT_ERROR_RATES": "conformal",
    "FeatureColumn": "features",
    "Fused": "bundle",
    "ScoreTable": "table",
    "TrainingReport": "train",
    "columns": "features",
    "feature_row": "features",
    "or_rule": "baselines",
    "train_bundle": "train",
}

__all__ = [
    "DEFAULT_ERROR_RATES",
    "Bundle",
    "BundleError",
    "FeatureColumn",
    "Fused",
    "ScoreTable",
    "TrainingReport",
    "columns",
    "feature_row",
    "or_rule",
    "train_bundle",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
