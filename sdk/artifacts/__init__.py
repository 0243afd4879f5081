"""X-AIGD's protocol (arXiv 2601.19430): does a detector judge generated pictures, and does it see their artifacts.

`python -m tellsign.artifacts DATA` measures the installed detectors on the published rows. The pieces work without it:

    masks = category_masks(shapes, height, width)
    tally = Tally()
    tally.add(binarised(heat_map, height, width, "min-max"), masks)
    tally.summary()
"""

from tellsign.evaluation.pixels import binarised

from .annotations import CATEGORIES, category_masks, proportion
from .detection import Tally
from .fidelity import fidelity
from .judgement import judgement

__all__ = ["CATEGORIES", "Tally", "binarised", "category_masks", "fidelity", "judgement", "proportion"]
