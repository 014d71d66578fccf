"""Pruning for Keras 3: masks in `fit`, channels really removed, int8 TFLite out, everything measured.

The public names, in the order of their use:

    schedules   how much at each step: Constant, Linear, Polynomial, Cosine, Exponential, OneShot, Piecewise, ACDC
    patterns    where zeros may fall: Element, Block, NofM, Template
    methods     amount + criterion + pattern + allocation: Threshold, Percentile, Structured, StructuredDepth
    training    PruningCallback, ThresholdPruning, PercentilePruning, StructuredPruning; wrap, PrunedLayer, UpdateMasks;
                SparsityLogger; IterativePruning, DynamicSurgery, RigL, ProximalSparsity; distill
    one-shot    prune, prune_hybrid, factorize, method_for
    after       strip_masks, get_masks, apply_masks
    open        inline
    channels    channel_groups, plan_shrink, ShrinkPlan, shrink, certify
    sparse      plan_sparse, SparsePlan
    deploy      quantize_aware, convert, LiteModel, verify, layer_errors, benchmark
    judge       summary, sensitivity, report
    search      genetic_search, SearchResult, compress, Compression
    interop     from_tfmot
    errors      PruningError, ConversionError
"""

import importlib
from typing import TYPE_CHECKING, Any

from tfprune import quiet as quiet
from tfprune.version import __version__

if TYPE_CHECKING or not quiet.waits_for_work:
    from tfprune.channels import ShrinkPlan, certify, channel_groups, plan_shrink, shrink
    from tfprune.deciding import criteria as criteria
    from tfprune.deciding import salience as salience
    from tfprune.deciding.depth import StructuredDepth
    from tfprune.deciding.methods import Percentile, Threshold
    from tfprune.deciding.patterns import Block, Element, NofM, Template
    from tfprune.deciding.schedules import ACDC, Constant, Cosine, Exponential, Linear, OneShot, Piecewise, Polynomial
    from tfprune.deciding.sensitivity import sensitivity
    from tfprune.deciding.structured import Structured
    from tfprune.errors import ConversionError, PruningError
    from tfprune.lite import LiteModel, benchmark, convert, layer_errors, verify
    from tfprune.lite.quantize import quantize_aware
    from tfprune.lite.report import report
    from tfprune.lite.sparse import SparsePlan, plan_sparse
    from tfprune.model.hooks import check_backend
    from tfprune.model.inline import inline
    from tfprune.model.interop import from_tfmot
    from tfprune.model.summary import summary
    from tfprune.oneshot.factorize import factorize
    from tfprune.oneshot.hybrid import prune_hybrid
    from tfprune.oneshot.prune import prune
    from tfprune.training.callbacks import (
        PercentilePruning,
        PruningCallback,
        SparsityLogger,
        StructuredPruning,
        ThresholdPruning,
        UpdateMasks,
    )
    from tfprune.training.iterative import IterativePruning
    from tfprune.training.masks import apply_masks, get_masks
    from tfprune.training.proximal import ProximalSparsity
    from tfprune.training.regrowth import DynamicSurgery, RigL
    from tfprune.training.strip import strip_masks
    from tfprune.training.teaching import distill
    from tfprune.training.wrapper import PrunedLayer, wrap

    check_backend()
if TYPE_CHECKING:
    from tfprune.search import Compression, SearchResult, compress, genetic_search
    from tfprune.search.targets import method_for

LATE = {  # where the names are found that nothing but a search needs; the rest is at hand after the import
    "Compression": "search",
    "SearchResult": "search",
    "compress": "search",
    "genetic_search": "search",
    "method_for": "search.targets",
}


def __getattr__(name: str) -> Any:
    """Imports what was put off: a search until somebody searches, and everything until the command has work to do."""
    if not name.startswith("__"):
        quiet.begin_work()
    if name in LATE:
        globals()[name] = getattr(importlib.import_module(f"tfprune.{LATE[name]}"), name)
    if name == "search":
        importlib.import_module("tfprune.search")
    if name not in globals():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *LATE, "search"})


__all__ = [
    "ACDC",
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
    "SparsePlan",
    "SparsityLogger",
    "Structured",
    "StructuredDepth",
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
    "distill",
    "factorize",
    "from_tfmot",
    "genetic_search",
    "get_masks",
    "inline",
    "layer_errors",
    "method_for",
    "plan_shrink",
    "plan_sparse",
    "prune",
    "prune_hybrid",
    "quantize_aware",
    "report",
    "sensitivity",
    "shrink",
    "strip_masks",
    "summary",
    "verify",
    "wrap",
]
