"""Channel groups: the channels of several weights that can only be removed together."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfprune.channels.graph import Role, Trace, trace_model
from tfprune.channels.labels import KEPT
from tfprune.channels.reasons import Frozen, Reason
from tfprune.channels.rules import find_rule
from tfprune.channels.values import Values
from tfprune.errors import PruningError, nearest
from tfprune.model.graph import require_graph
from tfprune.model.macs import model_macs
from tfprune.model.tree import named_weights, places, wrapped_layers
from tfprune.report import Column, Report


@dataclass(frozen=True, eq=False)
class Member:
    """The part of a group that lies on one axis of one weight.

    Attributes:
        key: the weight's place in the model, "backbone/conv1/kernel".
        variable: the Keras variable.
        axis: which of its axes.
        role: what the entries do for the channel.
        positions: int array of shape [channels of the group, entries per channel], indices along the axis.
    """

    key: str
    variable: Any
    axis: int
    role: Role
    positions: np.ndarray


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that can be removed one by one, each from all of its members at once.

    Attributes:
        name: the layer that makes the channels first, "conv1"; with what they are where a layer has several kinds
            ("attention/heads"), and with their range where a layer's channels fall into several groups ("conv3[0:16]").
        size: number of channels.
        members: the weights they lie on.
        frozen: why they cannot be removed, None when they can.
        approximate: why removing them changes the others a little, None when it does not.
        macs: multiply-accumulates saved by removing one channel and nothing else; None when sizes are open. The cost
            of a layer is spread evenly over its kernels; products of activations in attention are left out.
        parameters: weights saved by removing one channel and nothing else.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    frozen: Frozen | None
    approximate: Frozen | None
    macs: float | None
    parameters: float
    roots: np.ndarray = field(repr=False)


Entry = tuple[int, int, Role]  # id of a variable, axis, role


class ChannelGroups(Report, Mapping[str, ChannelGroup]):
    """All channel groups of a model, by name, in the order of the model; prints as a table.

    Attributes:
        trace: the labels that the groups were found by.
        key_of: the key of every weight, by the id of its variable.
        model_name: name of the model.
    """

    title = "Channel groups"
    columns = (
        Column("group", "group"),
        Column("channels", "channels", ",d"),
        Column("members", "weights", ",d"),
        Column("parameters", "parameters/channel", ",.0f"),
        Column("macs", "MACs/channel", ",.0f"),
        Column("frozen", "kept as it is because of"),
    )
    plotted = "channels"

    def __init__(self, groups: Mapping[str, ChannelGroup], trace: Trace, keys: Mapping[int, str], model_name: str):
        self._groups = dict(groups)
        self.trace = trace
        self.key_of = dict(keys)
        self.model_name = model_name

    def __getitem__(self, name: str) -> ChannelGroup:
        if name not in self._groups:
            raise PruningError(self.unknown(name))
        return self._groups[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def __contains__(self, name: object) -> bool:
        return name in self._groups

    @property
    def free(self) -> dict[str, ChannelGroup]:
        """The groups whose channels can be removed."""
        return {name: group for name, group in self.items() if group.frozen is None}

    def of_layer(self, path: str) -> list[str]:
        """Names of the groups that hold output channels of a layer, in the order of the model."""
        return [
            name
            for name, group in self.items()
            if any(m.role is Role.OUTPUT and m.key.startswith(path + "/") for m in group.members)
        ]

    def unknown(self, name: str) -> str:
        """The message for a name that is no group."""
        owners = self.of_layer(name)
        if owners:
            return (
                f"'{name}' has no group of its own: its channels can only go together with those of other layers, in "
                f"group {' and '.join(repr(owner) for owner in owners)}. Edit that group."
            )
        return f"'{name}' is no channel group of '{self.model_name}'. {nearest(name, self._groups)}"

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "group": name,
                "channels": group.size,
                "members": len({member.key for member in group.members}),
                "parameters": group.parameters,
                "macs": group.macs,
                "frozen": str(group.frozen) if group.frozen else None,
                "reason": group.frozen.reason.name if group.frozen else None,
            }
            for name, group in self.items()
        ]

    def totals(self) -> dict[str, Any]:
        return {"channels": sum(group.size for group in self.values())}

    def notes(self) -> list[str]:
        frozen = sum(group.size for group in self.values() if group.frozen)
        total = sum(group.size for group in self.values())
        return [f"{total - frozen:,d} of {total:,d} channels can be removed."] if total else ["No channels."]

    def removed(self, keep: Mapping[str, np.ndarray]) -> np.ndarray:
        """Marks by root the label sets that go; groups that are not named stay whole.

        Raises:
            PruningError: an unknown group, a vector of the wrong length, or channels that cannot go.
        """
        gone = np.zeros(self.trace.size, bool)
        for name, vector in keep.items():
            group = self[name]
            stays = checked_vector(group, vector)
            if group.frozen and not stays.all():
                raise PruningError(
                    f"The channels of group '{name}' cannot be removed, because of {group.frozen}. Keep all of them."
                )
            gone[group.roots[~stays]] = True
        return gone

    def masks(self, keep: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The masks that make the model equal to the one with the channels removed.

        Every weight of the group is masked: the slices that make a channel, its bias, the gamma and beta of its norms,
        and the slices of the next layers that listen to it.

        Args:
            keep: group name -> boolean vector over its channels, True = kept; other groups stay whole.

        Returns:
            Weight key -> boolean array of the weight's shape, True = kept; only weights that lose something.
        """
        self.removed(keep)  # checks
        masks: dict[str, np.ndarray] = {}
        for name, vector in keep.items():
            group = self[name]
            gone = ~np.asarray(vector, bool)
            for member in group.members:
                if member.role is Role.STATISTIC or not gone.any():
                    continue
                mask = masks.setdefault(member.key, np.ones(tuple(member.variable.shape), bool))
                slices: list[Any] = [slice(None)] * mask.ndim
                slices[member.axis] = member.positions[gone].ravel()
                mask[tuple(slices)] = False
        return masks

    def emptied(self, gone: np.ndarray) -> tuple[str, int] | None:
        """The key and axis of a weight of which nothing would be left."""
        for use in self.trace.uses:
            if gone[self.trace.partition.root[use.line.labels]].all():
                return self.key_of[id(use.variable)], use.axis
        return None


def checked_vector(group: ChannelGroup, vector: Any) -> np.ndarray:
    """A keep vector of a group as a boolean array.

    Raises:
        PruningError: it is not one boolean per channel.
    """
    array = np.asarray(vector)
    if array.dtype != bool or array.shape != (group.size,):
        raise PruningError(
            f"Group '{group.name}' needs one boolean for each of its {group.size} channels, "
            f"not {array.dtype} of shape {array.shape}."
        )
    return array


def channel_groups(model: Any, *, strict: bool = False, approximate: bool = False) -> ChannelGroups:
    """Finds the channels of a model that can only be removed together.

    Args:
        model: functional or Sequential Keras model, built; nested models and `keras.ops` operations included.
        strict: whether a layer that no rule is known for is an error. By default its channels are left alone, and the
            table says so.
        approximate: whether channels that a layer takes statistics over (layer normalisation) may go, although the
            smaller model is then not equal to the masked one.

    Raises:
        PruningError: the model is subclassed, not built, or wrapped; with `strict`, a layer is not known.

    Example:
        groups = channel_groups(model)
        print(groups)
        masks = groups.masks({"conv1": keep})
    """
    return traced_groups(model, strict=strict, approximate=approximate)


def traced_groups(
    model: Any, *, strict: bool = False, approximate: bool = False, values: bool = False
) -> ChannelGroups:
    """The groups; with `values`, the trace also knows which channels are zero or constant today."""
    require_graph(model, "Removing channels")
    require_plain(model)
    trace = trace_model(model, find_rule, values=values, strict=strict, approximate=approximate)
    keys = weight_keys(model)
    frozen = _frozen_by_root(trace)
    approximations = {
        int(root): cause for labels, cause in trace.approximate for root in np.unique(trace.partition.root[labels])
    }
    costs = kernel_macs(model, keys)
    groups: dict[str, ChannelGroup] = {}
    variables = {id(use.variable): use.variable for use in trace.uses}
    entries = _entries(trace)
    for (_, lying), roots in _units(entries, frozen).items():
        members = tuple(
            _member(keys[entry[0]], variables[entry[0]], entry, entries[entry], roots) for entry, _ in lying
        )
        name = _name(trace, roots, groups)
        groups[name] = ChannelGroup(
            name,
            len(roots),
            members,
            frozen.get(int(roots[0])),
            approximations.get(int(roots[0])),
            _per_channel(members, costs),
            _per_channel(members, {m.key: math.prod(m.variable.shape) for m in members}) or 0,
            roots,
        )
    return ChannelGroups(groups, trace, keys, model.name)


def require_plain(model: Any) -> None:
    """Raises for a model whose layers are wrapped for pruning."""
    found = wrapped_layers(model)
    if found:
        raise PruningError(
            f"'{model.name}' holds wrapped layers, such as '{found[0].name}'. Take the masks off first: "
            "tfprune.shrink(tfprune.strip_masks(model))."
        )


def weight_keys(model: Any) -> dict[int, str]:
    """The key of every weight by the id of its variable: path of the layer, then the weight's name."""
    keys: dict[int, str] = {}
    for place in places(model):
        for name, variable in named_weights(place.layer):
            keys.setdefault(id(variable), f"{place.path}/{name}")
    return keys


def dead_channels(groups: ChannelGroups, model: Any) -> tuple[dict[str, np.ndarray], dict[str, bool]]:
    """Finds the channels that can be removed from a model as it is, its answers staying the same.

    A channel is dead when every weight that listens to it has zeros in its place or gets nothing but zeros from it,
    whatever the model's input. It gives nothing but zeros when the slices that make it and its bias are zero, or gamma
    and beta of a norm after them are, and every activation on the way is zero at zero. Where it is a constant other
    than zero, and all that listen are layers with a bias and without padding, the constant can move into that bias.

    Returns:
        Group name -> True for each channel to keep; group name -> whether a constant has to move for it.
    """
    trace, root = groups.trace, groups.trace.partition.root
    reader = Values(enabled=True)
    quiet = np.ones(trace.size, bool)
    exact = np.ones(trace.size, bool)
    heard = np.zeros(trace.size, bool)
    for use in trace.uses:
        if use.role is Role.INPUT:
            sets = root[use.line.labels]
            silent = reader.is_zero(use.variable, use.axis) | (use.line.now == 0)
            # A layer that is called twice has one bias, but may be given two constants.
            foldable = use.foldable & np.isfinite(use.line.now) & (trace.times_called(use.operation) == 1)
            heard[sets] = True
            quiet[sets[~(silent | foldable)]] = False
            exact[sets[~silent]] = False
    for labels, now in trace.demands:
        sets = root[labels]
        heard[sets] = True
        quiet[sets[~(now == 0)]] = False
    dead = quiet & heard
    dead[KEPT] = False
    for group in groups.values():
        if group.frozen:
            dead[group.roots] = False
    _revive(trace, dead, reader)
    keep = {name: ~dead[group.roots] for name, group in groups.items()}
    folds = {name: bool((dead & ~exact)[group.roots].any()) for name, group in groups.items()}
    return keep, folds


def _revive(trace: Trace, dead: np.ndarray, reader: Values) -> None:
    """Lets one channel live where a layer would be left with none: the first that is not masked, if there is one."""
    for use in trace.uses:
        sets = trace.partition.root[use.line.labels]
        if dead[sets].all():
            dead[sets[reader.is_zero(use.variable, use.axis).argmin()]] = False


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
    starts = [block.labels[0] for block in trace.blocks]
    block = trace.blocks[int(np.searchsorted(starts, roots[0], side="right")) - 1]
    name = block.layer if block.kind == "channels" else f"{block.layer}/{block.kind}"
    inside = roots[(roots >= block.labels[0]) & (roots <= block.labels[-1])] - block.labels[0]
    if len(inside) < len(block.labels) and len(roots) < len(np.unique(trace.partition.root[block.labels])):
        name = f"{name}[{inside.min()}:{inside.max() + 1}]"
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}#{count}"
    return unique


def kernel_macs(model: Any, keys: Mapping[int, str]) -> dict[str, float | None]:
    """The cost of each kernel: that of its layer, spread evenly over the layer's kernels."""
    macs = model_macs(model).layers
    sizes: dict[str, dict[str, int]] = defaultdict(dict)
    for variable in model.weights:
        key = keys.get(id(variable))
        if key is None or len(variable.shape) < 2:
            continue
        parts = key.split("/")
        owner = next((o for n in range(len(parts) - 1, 0, -1) if (o := "/".join(parts[:n])) in macs), None)
        if owner is not None:
            sizes[owner][key] = math.prod(variable.shape)
    costs: dict[str, float | None] = {}
    for owner, kernels in sizes.items():
        cost = macs[owner]
        for key, size in kernels.items():
            costs[key] = None if cost is None else cost * size / sum(kernels.values())
    return costs


def _per_channel(members: tuple[Member, ...], totals: Mapping[str, float | None]) -> float | None:
    """What one channel takes with it of per-weight totals, nothing else being removed."""
    left: dict[str, tuple[int, int]] = {}  # entries that stay, of all, as if the other axes had size 1
    for member in members:
        size = member.variable.shape[member.axis]
        stay, all_of = left.get(member.key, (1, 1))
        left[member.key] = stay * (size - member.positions.shape[1]), all_of * size
    saved = 0.0
    for key, (stay, all_of) in left.items():
        total = totals.get(key, 0)
        if total is None:
            return None
        saved += total * (all_of - stay) / all_of
    return saved
