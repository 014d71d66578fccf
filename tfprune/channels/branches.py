"""Residual branches that can go whole: which there are, what makes each zero, and what is left of the calls without it.

The stream goes past a branch, so that a branch that gives zero can be left out, and everything in it with it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.channels.groups import ChannelGroups
from tfprune.channels.labels import KEPT, Channels
from tfprune.channels.residuals import Residual, makers, residuals
from tfprune.channels.trace import AxisUse, Role, Trace
from tfprune.channels.visit import Visit
from tfprune.errors import PruningError, nearest
from tfprune.model.graph import nodes_in_order
from tfprune.model.hooks import maker_of, mask_of

_MAKING = (Role.OUTPUT, Role.BIAS, Role.SCALE)


@dataclass(frozen=True, eq=False)
class Branch:
    """A residual branch that is zero when the last weights in it are.

    Attributes:
        name: Of the last layer with a kernel in it.
        residual: The sum, the stream and the branch.
        node: Keras' record of the sum.
        uses: The weights, with the axis along which all of them is the branch's.
    """

    name: str
    residual: Residual
    node: Any
    uses: tuple[AxisUse, ...]

    def masks(self, groups: ChannelGroups) -> dict[str, np.ndarray]:
        """The masks that make the branch zero, by key of the weight, True = kept."""
        masks: dict[str, np.ndarray] = {}
        sets = _sets(groups.trace, self.residual.branch)
        for use in self.uses:
            key = groups.key_of[id(use.variable)]
            mask = masks.setdefault(key, np.ones(tuple(use.variable.shape), bool))
            slices: list[Any] = [slice(None)] * mask.ndim
            slices[use.axis] = np.isin(groups.trace.partition.root[use.line.labels], sets)
            mask[tuple(slices)] = False
        return {key: mask.reshape(groups.shapes.get(key, mask.shape)) for key, mask in masks.items()}

    @property
    def is_zero(self) -> bool:
        """Whether the branch gives zero with the weights as they are."""
        return any(bool(np.all(factor.now == 0)) for factor in self.residual.branch.factors)


def residual_branches(groups: ChannelGroups) -> dict[str, Branch]:
    """The residual branches of a model that can go, by name, in its order.

    Left out are branches that end in something else than weights which make zero of them, whose inner tensors are
    heard elsewhere too, or whose last layer is called several times.
    """
    trace = groups.trace
    made, uses, heard = makers(trace), defaultdict(list), Counter[int]()
    for use in trace.uses:
        uses[use.call].append(use)
    for given in [trace.outputs, *(visit.inputs for visit in trace.visits)]:
        heard.update(id(channels) for channels in given)
    nodes = {id(visit): key for key, visit in trace.calls.items()}
    found: dict[str, Branch] = {}
    for residual in residuals(trace):
        closing = _closing(trace, residual.branch, made, uses, heard)
        node = trace.nodes.get(nodes.get(id(residual.sum), 0))
        if closing and node is not None and _masked_alike(residual, node):
            name = next(use.layer for use in closing if use.role is Role.OUTPUT)
            unique = name if name not in found else f"{name}#{len(found)}"
            found[unique] = Branch(unique, residual, node, tuple(closing))
    return found


def zero_branches(groups: ChannelGroups) -> list[str]:
    """The branches that give zero with the weights as they are."""
    return [name for name, branch in residual_branches(groups).items() if branch.is_zero]


class Bypass:
    """The calls of a model that are left when some branches go.

    Args:
        groups: The groups of the model.
        names: The branches.

    Raises:
        PruningError: A name that is no branch.
    """

    def __init__(self, groups: ChannelGroups, names: Iterable[str]):
        known = residual_branches(groups) if names else {}
        for name in names:
            if name not in known:
                raise PruningError(f"'{name}' is no residual branch of '{groups.model_name}'. {nearest(name, known)}")
        gone = [known[name] for name in names]
        self._streams = {id(each.node): each.node.input_tensors[_place(each.residual)] for each in gone}
        sums = {id(each.residual.sum): each.residual.stream for each in gone}
        self.weights = _only_in_gone(groups.trace, sums) if gone else set()

    def stream(self, node: Any) -> Any:
        """What a sum gives without its branch, a symbolic tensor; None for a call that stays."""
        return self._streams.get(id(node))

    def nodes(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
        """The calls that are left between the ends of a model, in order."""
        needed, kept = {id(tensor) for tensor in outputs}, []
        for node in reversed(nodes_in_order(inputs, outputs)):
            if any(id(tensor) in needed for tensor in node.output_tensors):
                stream = self.stream(node)
                needed.update(id(tensor) for tensor in (node.input_tensors if stream is None else [stream]))
                kept.append(node)
        return kept[::-1]

    def passed(self, node: Any, tensor: Any, ends: Sequence[Any]) -> Any:
        """What takes the place of a sum; where a model ends in it, under its name."""
        if not any(node.output_tensors[0] is end for end in ends):
            return tensor
        return keras.layers.Identity(name=maker_of(node.output_tensors[0]).name)(tensor)


def _place(residual: Residual) -> int:
    return next(index for index, given in enumerate(residual.sum.inputs) if given is residual.stream)


def _only_in_gone(trace: Trace, sums: Mapping[int, Channels]) -> set[int]:
    """The ids of the weights that only calls use which are gone."""
    made, live, stack = makers(trace), set[int](), list(trace.outputs)
    while stack:
        visit = made.get(id(stack.pop()))
        if visit is not None and visit.call not in live:
            live.add(visit.call)
            stack += [sums[id(visit)]] if id(visit) in sums else visit.inputs
    layers = {id(visit.layer): visit.layer for visit in trace.visits}
    used = {id(visit.layer) for visit in trace.visits if visit.call in live}
    stay = {id(weight) for key in used for weight in getattr(layers[key], "weights", ())}
    return {id(weight) for each in layers.values() for weight in getattr(each, "weights", ())} - stay


def _closing(
    trace: Trace,
    branch: Channels,
    made: Mapping[int, Visit],
    uses: Mapping[int, Sequence[AxisUse]],
    heard: Mapping[int, int],
) -> list[AxisUse] | None:
    """The weights that make a branch zero when they are zero; None where there are none."""
    if not any(np.all(factor.masked == 0) and not np.any(factor.labels == KEPT) for factor in branch.factors):
        return None
    sets, found, stack = _sets(trace, branch), [], [branch]
    while stack:
        channels = stack.pop()
        visit = made.get(id(channels))
        if visit is None or heard[id(channels)] > 1 or trace.times_called(visit.layer) > 1:
            return None
        own = [use for use in uses[visit.call] if use.role in _MAKING and _lies_on(trace, use, sets)]
        found += own
        if not any(use.role is Role.OUTPUT for use in own):
            stack += [given for given in visit.inputs if np.isin(_sets(trace, given), sets).any()]
    return found if any(use.role is Role.OUTPUT for use in found) else None


def _sets(trace: Trace, channels: Channels) -> np.ndarray:
    found = np.unique(trace.partition.root[channels.labels()])
    return found[found != KEPT]


def _lies_on(trace: Trace, use: AxisUse, sets: np.ndarray) -> bool:
    return bool(np.isin(trace.partition.root[use.line.labels], sets).any())


def _masked_alike(residual: Residual, node: Any) -> bool:
    """Whether Keras hands the padding on alike with the sum and with the stream."""
    given, came = node.output_tensors[0], node.input_tensors[_place(residual)]
    return bool((mask_of(given) is None) == (mask_of(came) is None))
