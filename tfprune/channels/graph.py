"""The trace: labels flow through the calls of a model, and what the layers do with them is recorded.

A rule (see `rules`) handles one call: it takes the `Channels` that come in, makes fresh labels for the channels a
layer produces, records which axes of which weights carry which labels, and gives the `Channels` that go out. Joining
labels is only recorded here; `Trace.resolve` then finds the sets that can only go together. The work grows linearly
with the number of channels.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfprune.channels.known import known_value
from tfprune.channels.labels import Channels
from tfprune.channels.reasons import Reason
from tfprune.channels.rules import find
from tfprune.channels.trace import AxisUse, Role, Trace, of_constant
from tfprune.channels.values import Values
from tfprune.channels.visit import Rule, Visit
from tfprune.errors import PruningError
from tfprune.model.graph import Call, flow, parts_of
from tfprune.model.hooks import maker_of, mask_of


def trace_model(
    model: Any, values: bool = False, strict: bool = False, approximate: bool = False, prefers: str | None = None
) -> Trace:
    """Traces a model.

    Args:
        model: A model whose graph can be read.
        values: Whether to read the weights too, to know which channels are zero or constant today.
        strict: Whether a layer without a rule is an error, where it has weights or channels come to it.
        approximate: Whether channels that meet in a normalisation may go, at the price of a difference.
        prefers: What may go of heads and the width inside them, where only one can; see `Trace`.

    Raises:
        PruningError: a rule is wrong; or, with `strict`, there is none for some layer.
    """
    trace = Trace(parts_of(model), Values(enabled=values), approximate, prefers)

    def visit(call: Call) -> list[Channels]:
        args, kwargs = keras.tree.map_structure(_as_channels, (call.args, call.kwargs))
        inputs = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, Channels) and x.constant is None]
        shapes = [tuple(x.shape) for x in call.outputs]
        padded = any(mask_of(tensor) is not None for tensor in call.node.input_tensors)
        seen = Visit(trace, call.path, call.operation, args, kwargs, inputs, shapes, len(trace.visits), padded)
        entry = find(call.operation)
        seen.outputs = _outputs(seen, entry.rule if entry is not None else None, strict)
        value = known_value(seen)
        if value is not None:
            seen.outputs = [replace(seen.outputs[0], value=value)]
        # A tensor of its own for every result, so that each has one maker.
        seen.outputs = [replace(x) if any(x is given for given in inputs) else x for x in seen.outputs]
        trace.visits.append(seen)
        trace.counts[id(call.operation)] += 1
        trace.nodes[id(call.node)] = call.node
        first = trace.calls.setdefault(id(call.node), seen)
        if first is not seen:
            # The graph of a nested model is one, however often it is called: its calls lose the same channels.
            for theirs, own in zip(first.outputs, seen.outputs):
                tie(seen, theirs, own)
        return seen.outputs

    outputs = flow(model, [Channels(tuple(x.shape)) for x in model.inputs], visit)
    trace.outputs = outputs
    _note_unheard(trace, outputs)
    _tie_calls(trace)
    trace.resolve()
    for tensor, channels in zip(model.outputs, outputs):
        _freeze_output(trace, channels, maker_of(tensor).name)
    _freeze_single(trace)
    _freeze_constants(trace)
    return trace


def tie(visit: Visit, left: Channels, right: Channels) -> None:
    """Makes two tensors of one shape lose the same entries."""
    for factor in left.factors:
        partner = next((other for other in right.factors if other.axes == factor.axes), None)
        if partner is None:
            visit.freeze(factor, Reason.FIXED_PARTNER)
        else:
            visit.join(factor.labels, partner.labels)
    for factor in right.factors:
        if not any(other.axes == factor.axes for other in left.factors):
            visit.freeze(factor, Reason.FIXED_PARTNER)


def _outputs(visit: Visit, rule: Rule | None, strict: bool) -> list[Channels]:
    if rule is None:
        if strict and (any(channels.factors for channels in visit.inputs) or getattr(visit.layer, "weights", None)):
            raise PruningError(
                f"No channel rule for layer '{visit.path}' ({type(visit.layer).__module__}."
                f"{type(visit.layer).__name__}). Give it one with tfprune.channels.register_rule, or leave out "
                "strict=True to keep the channels around it as they are."
            )
        return visit.freeze_all(Reason.UNKNOWN_LAYER)
    result = rule(visit)
    outputs = list(result) if isinstance(result, (list, tuple)) else [result]
    fits = len(outputs) == len(visit.shapes) and all(
        isinstance(channels, Channels) and _fits(channels, shape) for channels, shape in zip(outputs, visit.shapes)
    )
    if not fits:
        got = [getattr(channels, "shape", type(channels).__name__) for channels in outputs]
        raise PruningError(
            f"The channel rule of layer '{visit.path}' ({type(visit.layer).__name__}) gives channels of shape {got}, "
            f"but the layer's outputs have shape {visit.shapes}. Build them with visit.result(...)."
        )
    return outputs


def _fits(channels: Channels, shape: tuple[int | None, ...]) -> bool:
    return tuple(channels.shape) == tuple(shape) and all(
        factor.labels.ndim == len(shape) and all(size in (1, full) for size, full in zip(factor.labels.shape, shape))
        for factor in channels.factors
    )


def _as_channels(x: Any) -> Any:
    if isinstance(x, (np.ndarray, np.generic)) or keras.ops.is_tensor(x):
        array = keras.ops.convert_to_numpy(x)
        return Channels(tuple(array.shape), constant=array)
    return x


def _freeze_output(trace: Trace, channels: Channels, name: str) -> None:
    """Leaves the channels of an output alone, except those of a residual stream that are zero while masked.

    A stream's width is normalised on its way, and several layers write to it: a model that gives the stream itself, as
    backbones do, would keep all of its width. The output gets its zeros back at the end (`Rebuild`).
    """
    for factor in channels.factors:
        labels = factor.labels
        if len(factor.axes) == 1 and factor.axes != (0,):
            stream = trace.streams()[trace.partition.root[labels]] & (factor.masked == 0)
            trace.demands.append((labels[stream], np.broadcast_to(factor.now, labels.shape)[stream]))
            labels = labels[~stream]
        trace.freeze(labels, Reason.MODEL_OUTPUT, name)


def _note_unheard(trace: Trace, outputs: Sequence[Channels]) -> None:
    """Records that nothing listens to tensors that no call takes, such as unused outputs of nested models."""
    taken = {id(channels) for given in [outputs, *(visit.inputs for visit in trace.visits)] for channels in given}
    for visit in trace.visits:
        for channels in visit.outputs:
            if id(channels) not in taken:
                visit.unheard(channels.labels())


def _tie_calls(trace: Trace) -> None:
    """Makes all calls of a shared layer agree on what its weights carry: they have only one set of entries to lose."""
    calls: dict[int, list[int]] = defaultdict(list)
    for visit in trace.visits:
        calls[id(visit.layer)].append(visit.call)
    lying: dict[tuple[int, int], dict[int, list[AxisUse]]] = defaultdict(lambda: defaultdict(list))
    for use in trace.uses:
        lying[id(use.variable), use.axis][use.call].append(use)
    for by_call in lying.values():
        first_call, first = next(iter(by_call.items()))
        for call in calls[id(trace.visits[first_call].layer)]:
            uses = by_call.get(call, [])
            for one, other in zip(first, uses):
                trace.join(one.line.labels, other.line.labels, other.layer)
            for use in [*first[len(uses) :], *uses[len(first) :]]:
                trace.freeze(use.line.labels, Reason.FIXED_PARTNER, use.layer)


def _freeze_single(trace: Trace) -> None:
    """Leaves channels alone that are the last of an axis of some weight: without them the layer would be empty."""
    for use in trace.uses:
        roots = trace.partition.root[use.line.labels]
        if (roots == roots[0]).all():
            trace.freeze(use.line.labels, Reason.SINGLE, use.layer)


def _freeze_constants(trace: Trace) -> None:
    """Leaves channels alone that a constant brings and no weight makes."""
    made = np.zeros(trace.size, bool)
    for use in trace.uses:
        if use.role is Role.OUTPUT:
            made[trace.partition.root[use.line.labels]] = True
    for block in trace.blocks:
        if of_constant(block):
            trace.freeze(block.labels[~made[trace.partition.root[block.labels]]], Reason.FIXED_PARTNER, block.layer)
