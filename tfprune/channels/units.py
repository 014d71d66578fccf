"""What the channels of a group are: whole attention heads, widths that one block has for itself, or those that pass."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.channels.residuals import residuals
from tfprune.channels.trace import Role, Trace
from tfprune.errors import PruningError, listing, nearest

UNITS = ("head", "width", "channel")

_TABLES = (keras.layers.Embedding, getattr(keras.layers, "ReversibleEmbedding", keras.layers.Embedding))


def units(given: Any) -> tuple[str, ...] | None:
    """The units that an argument names; None for all.

    Raises:
        PruningError: One of them is none.
    """
    if given is None:
        return None
    named = (given,) if isinstance(given, str) or not isinstance(given, Sequence) else tuple(given)
    for name in named:
        if name not in UNITS:
            raise PruningError(f"There is no unit {name!r} of channels. {nearest(str(name), UNITS)}")
    if not named:
        raise PruningError(f"unit=() names nothing that may go; write some of {listing(UNITS)}, or None for all.")
    return named


def preferred(units: Sequence[str] | None) -> str | None:
    """Which of heads and the width inside them shall go, where they share one axis of a kernel and only one can."""
    wanted = set(units or ()) & {"head", "width"}
    return wanted.pop() if len(wanted) == 1 else None


def units_of(trace: Trace) -> np.ndarray:
    """The unit of every label, by root, as an index of `UNITS`.

    Heads lie on the axis that the products of an attention treat side by side. Channels are made by convolutions and
    embeddings, or are added to by residual branches. All else is a width: hidden units of dense and recurrent layers,
    and what lies inside heads.
    """
    root = trace.partition.root
    found = np.full(trace.size, UNITS.index("width"))
    for use in trace.uses:
        if use.role is Role.OUTPUT and _filters(use.operation, use.variable):
            found[root[use.line.labels]] = UNITS.index("channel")
    passing = [channels for visit in trace.visits if _looks_up(visit) for channels in visit.outputs]
    for channels in [*passing, *(found.sum.outputs[0] for found in residuals(trace))]:
        found[root[channels.labels()]] = UNITS.index("channel")
    for block in trace.blocks:
        if block.kind == "heads":
            found[root[block.labels]] = UNITS.index("head")
    for factor, axis in trace.heads:
        sets = root[factor.labels]
        if not (sets == sets.take([0], axis)).all():  # else the widths inside heads are what may go
            found[root[factor.labels]] = UNITS.index("head")
    return found


def _filters(layer: Any, kernel: Any) -> bool:
    """Whether a kernel is that of a convolution that makes channels; one that filters each alone passes them on."""
    windows = getattr(layer, "kernel_size", None) or getattr(getattr(layer, "cell", None), "kernel_size", None)
    alone = hasattr(layer, "depth_multiplier") and kernel is not getattr(layer, "pointwise_kernel", None)
    return windows is not None and not alone


def _looks_up(visit: Any) -> bool:
    """Whether a call takes the rows of a table that the input names, rather than all, as where it is a plain weight."""
    return isinstance(visit.layer, _TABLES) and bool(visit.inputs) and visit.input.known is None
