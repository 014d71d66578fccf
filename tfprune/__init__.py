"""Pruning for Keras 3: masks in `fit`, channels really removed, int8 TFLite out, everything measured.

The public names, in the order of their use:

    schedules   how much at each step: Constant, Linear, Polynomial, Cosine, Exponential, OneShot, Piecewise
    patterns    where zeros may fall: Element, Block, NofM, Template
    methods     amount + criterion + pattern + allocation: Threshold, Percentile, Structured
    training    PruningCallback, ThresholdPruning, PercentilePruning, StructuredPruning; wrap, PrunedLayer, UpdateMasks;
                SparsityLogger; IterativePruning, DynamicSurgery, RigL, ProximalSparsity
    one-shot    prune, prune_hybrid, method_for
    after       strip_masks, get_masks, apply_masks
    channels    channel_groups, plan_shrink, ShrinkPlan, shrink, certify
    deploy      quantize_aware, convert, LiteModel, verify, layer_errors, benchmark
    judge       summary, sensitivity
    search      genetic_search, SearchResult, compress, Compression
    interop     from_tfmot
    errors      PruningError, ConversionError
"""

from tfprune import quiet as quiet  # isort: skip  (before Keras is imported)
from tfprune.backend import check_backend
from tfprune.callbacks import (
    PercentilePruning,
    PruningCallback,
    SparsityLogger,
    StructuredPruning,
    ThresholdPruning,
    UpdateMasks,
)
from tfprune.channels import ShrinkPlan, certify, channel_groups, plan_shrink, shrink
from tfprune.errors import ConversionError, PruningError
from tfprune.hybrid import prune_hybrid
from tfprune.interop import from_tfmot
from tfprune.iterative import IterativePruning
from tfprune.lite import LiteModel, benchmark, convert, layer_errors, verify
from tfprune.lite.quantize import quantize_aware
from tfprune.masks import apply_masks, get_masks
from tfprune.methods import Percentile, Threshold
from tfprune.oneshot import prune
from tfprune.patterns import Block, Element, NofM, Template
from tfprune.proximal import ProximalSparsity
from tfprune.regrowth import DynamicSurgery, RigL
from tfprune.schedules import Constant, Cosine, Exponential, Linear, OneShot, Piecewise, Polynomial
from tfprune.search import Compression, SearchResult, compress, genetic_search
from tfprune.sensitivity import sensitivity
from tfprune.strip import strip_masks
from tfprune.structured import Structured
from tfprune.summary import summary
from tfprune.targets import method_for
from tfprune.version import __version__
from tfprune.wrapper import PrunedLayer, wrap

__all__ = [
    "Block",
    "Compression",
    "Constant",
    "ConversionError",
    "Cosine",
    "DynamicSurgery",
    "Element",
    "Exponential",
    "IterativePruning",
    "Linear",
    "LiteModel",
    "NofM",
    "OneShot",
    "Percentile",
    "PercentilePruning",
    "Piecewise",
    "Polynomial",
    "ProximalSparsity",
    "PrunedLayer",
    "PruningCallback",
    "PruningError",
    "RigL",
    "SearchResult",
    "ShrinkPlan",
    "SparsityLogger",
    "Structured",
    "StructuredPruning",
    "Template",
    "Threshold",
    "ThresholdPruning",
    "UpdateMasks",
    "__version__",
    "apply_masks",
    "benchmark",
    "certify",
    "channel_groups",
    "compress",
    "convert",
    "from_tfmot",
    "genetic_search",
    "get_masks",
    "layer_errors",
    "method_for",
    "plan_shrink",
    "prune",
    "prune_hybrid",
    "quantize_aware",
    "sensitivity",
    "shrink",
    "strip_masks",
    "summary",
    "verify",
    "wrap",
]

check_backend()
