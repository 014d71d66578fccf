"""Pruning for Keras 3: masks in `fit`, channels really removed, int8 TFLite out, everything measured.

The public names, in the order of their use:

    schedules   how much at each step: Constant, Linear, Polynomial, Cosine, Exponential, OneShot, Piecewise
    methods     amount + criterion + pattern + allocation: Threshold, Percentile
    training    PruningCallback, ThresholdPruning, PercentilePruning; wrap, PrunedLayer, UpdateMasks; SparsityLogger
    one-shot    prune
    after       strip_masks, get_masks, apply_masks
    judge       summary
    interop     from_tfmot
"""

from tfprune.backend import check_backend
from tfprune.callbacks import PercentilePruning, PruningCallback, SparsityLogger, ThresholdPruning, UpdateMasks
from tfprune.interop import from_tfmot
from tfprune.masks import apply_masks, get_masks
from tfprune.methods import Percentile, Threshold
from tfprune.oneshot import prune
from tfprune.patterns import Block, Element, NofM
from tfprune.schedules import Constant, Cosine, Exponential, Linear, OneShot, Piecewise, Polynomial
from tfprune.strip import strip_masks
from tfprune.summary import summary
from tfprune.version import __version__
from tfprune.wrapper import PrunedLayer, wrap

__all__ = [
    "Block",
    "Constant",
    "Cosine",
    "Element",
    "Exponential",
    "Linear",
    "NofM",
    "OneShot",
    "Percentile",
    "PercentilePruning",
    "Piecewise",
    "Polynomial",
    "PrunedLayer",
    "PruningCallback",
    "SparsityLogger",
    "Threshold",
    "ThresholdPruning",
    "UpdateMasks",
    "__version__",
    "apply_masks",
    "from_tfmot",
    "get_masks",
    "prune",
    "strip_masks",
    "summary",
    "wrap",
]

check_backend()
