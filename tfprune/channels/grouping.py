"""Finds the groups of a model: labels that lie on the same axes of the same weights, side by side."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.channels.costs import kernel_macs, per_channel
from tfprune.channels.graph import trace_model
from tfprune.channels.groups import ChannelGroup, ChannelGroups, Member
from tfprune.channels.labels import KEPT
from tfprune.channels.reasons import Frozen, Reason
from tfprune.channels.rules import has_rule
from tfprune.channels.trace import Role, Trace, of_constant
from tfprune.channels.units import UNITS, preferred, units, units_of
from tfprune.errors import PruningError
from tfprune.model.inline import closed_of, opened
from tfprune.model.tree import check_model, weight_keys, wrapped_layers

Entry = tuple[int, int, Role]  # id of a variable, axis, role


def channel_groups(
    model: Any, *, strict: bool = False, approximate: bool = False, unit: str | Sequence[str] | None = None
) -> ChannelGroups:
    """Finds the channels of a model that can only be removed together.

    Args:
        model: Functional or Sequential Keras model, built; nested models and `keras.ops` operations included.
        strict: Whether a layer that no rule is known for is an error. By default its channels are left alone, and the
            table says so.
        approximate: Whether channels that a layer takes statistics over (layer normalisation) may go, although the
            smaller model is then not equal to the masked one.
        unit: What is to go, as in `Structured`. In attention written by hand heads and the width inside them often lie
            along one axis of a kernel, and only one of them can go: `"head"` and `"width"` say which. By default the
            one that leaves more to choose from.

    Raises:
        PruningError: the model is subclassed, not built, or wrapped; with `strict`, a layer is not known.

    Example:
        groups = channel_groups(model)
        print(groups)
        masks = groups.masks({"conv1": keep})
    """
    return traced_groups(model, strict=strict, approximate=approximate, prefers=preferred(units(unit)))


def traced_groups(
    model: Any,
    *,
    strict: bool = False,
    approximate: bool = False,
    values: bool = False,
    prefers: str | None = None,
) -> ChannelGroups:
    """The groups; with `values`, the trace also knows which channels are zero or constant today."""
    require_plain(model)
    found = opened(model, "Removing channels", has_rule)
    trace = trace_model(found.graph, values, strict, approximate, prefers)
    keys = weight_keys(model)
    shapes = {}
    for variable, layer in found.tables:
        keys[id(layer.embeddings)] = keys[id(variable)]
        shapes[keys[id(variable)]] = tuple(variable.shape)
    frozen = _frozen_by_root(trace)
    inexact = {int(root): cause for labels, cause in trace.inexact for root in np.unique(trace.partition.root[labels])}
    costs = kernel_macs(found.graph, keys)
    variables = {id(use.variable): use.variable for use in trace.uses}
    entries, kinds = _entries(trace), units_of(trace)
    groups: dict[str, ChannelGroup] = {}
    for (_, lying), roots in _units(entries, frozen).items():
        members = tuple(
            _member(keys[entry[0]], variables[entry[0]], entry, entries[entry], roots) for entry, _ in lying
        )
        name = _name(trace, roots, groups)
        groups[name] = ChannelGroup(
            name,
            len(roots),
            tuple(dict.fromkeys(member.key for member in members)),
            tuple(member.key for member in members if member.role is Role.OUTPUT),
            frozen.get(int(roots[0])),
            inexact.get(int(roots[0])),
            per_channel(members, costs),
            per_channel(members, {m.key: math.prod(m.variable.shape) for m in members}) or 0,
            UNITS[kinds[roots[0]]],
            members,
            roots,
        )
    return ChannelGroups(groups.values(), model.name, trace, keys, shapes, closed_of(found))


def require_plain(model: Any) -> None:
    """Raises for a model whose layers are wrapped for pruning."""
    if not isinstance(model, keras.Model):
        check_model(model, "find the channels of")
    found = wrapped_layers(model)
    if found:
        raise PruningError(
            f"'{model.name}' holds wrapped layers, such as '{found[0].name}'. Take the masks off first: "
            "tfprune.shrink(tfprune.strip_masks(model))."
        )


def _frozen_by_root(trace: Trace) -> dict[int, Frozen]:
    """The cause for every frozen set: being the model's output first, being alone last, else the first found."""
    order = {Reason.MODEL_OUTPUT: 0, Reason.SINGLE: 2}
    frozen: dict[int, Frozen] = {}
    for labels, cause in sorted(trace.frozen, key=lambda entry: order.get(entry[1].reason, 1)):
        for root in np.unique(trace.partition.root[labels]):
            frozen.setdefault(int(root), cause)
    return frozen


def _units(
    entries: Mapping[Entry, tuple[np.ndarray, np.ndarray]], frozen: Mapping[int, Frozen]
) -> dict[tuple[Frozen | None, tuple[tuple[Entry, int], ...]], np.ndarray]:
    """The sets of labels, those that lie on the same axes equally often side by side."""
    lying: dict[int, dict[Entry, int]] = defaultdict(dict)
    for entry, (sets, _) in entries.items():
        found, counts = np.unique(sets, return_counts=True)
        for unit, count in zip(found.tolist(), counts.tolist()):
            lying[unit][entry] = count
    lying.pop(KEPT, None)
    sides: dict[Any, list[int]] = defaultdict(list)
    for unit in sorted(lying):
        sides[frozen.get(unit), tuple(lying[unit].items())].append(unit)
    return {signature: np.array(roots) for signature, roots in sides.items()}


def _entries(trace: Trace) -> dict[Entry, tuple[np.ndarray, np.ndarray]]:
    """For each axis of each weight: the sets there and their positions, each once however often a layer is called."""
    pairs: dict[Entry, list[np.ndarray]] = defaultdict(list)
    for use in trace.uses:
        sets = trace.partition.root[use.line.labels]
        pairs[id(use.variable), use.axis, use.role].append(np.stack([sets, np.arange(len(sets))]))
    result = {}
    for entry, found in pairs.items():
        both = found[0] if len(found) == 1 else np.unique(np.concatenate(found, axis=1), axis=1)
        result[entry] = (both[0], both[1])
    return result


def _member(key: str, variable: Any, entry: Entry, found: tuple[np.ndarray, np.ndarray], roots: np.ndarray) -> Member:
    sets, positions = found
    inside = np.isin(sets, roots)
    order = np.lexsort((positions[inside], sets[inside]))
    return Member(key, variable, entry[1], entry[2], positions[inside][order].reshape(len(roots), -1))


def _name(trace: Trace, roots: np.ndarray, taken: Mapping[str, Any]) -> str:
    block = trace.blocks_of(roots[:1])[0]
    if of_constant(block):  # named after the weights that it meets
        blocks = trace.blocks_of(np.flatnonzero(np.isin(trace.partition.root, roots)))
        block = next((other for other in blocks if not of_constant(other)), block)
    name = block.layer if block.kind == "channels" else f"{block.layer}/{block.kind}"
    inside = np.flatnonzero(np.isin(trace.partition.root[block.labels], roots))
    if len(inside) < len(block.labels) and len(roots) < len(np.unique(trace.partition.root[block.labels])):
        name = f"{name}[{inside.min()}:{inside.max() + 1}]"
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}#{count}"
    return unique
