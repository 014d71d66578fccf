"""Channel groups: the channels of several weights that can only be removed together."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfprune.channels.reasons import Frozen
from tfprune.channels.rules import has_rule
from tfprune.channels.trace import Role, Trace
from tfprune.errors import PruningError, nearest
from tfprune.model.graph import parts_of
from tfprune.model.inline import opened
from tfprune.report import Column, Panel, Report, draw_bars, saved


@dataclass(frozen=True, eq=False)
class Member:
    """The part of a group that lies on one axis of one weight.

    Attributes:
        key: The weight's place in the model, "backbone/conv1/kernel".
        variable: The Keras variable.
        axis: Which of its axes.
        role: What the entries do for the channel.
        positions: Int array of shape [channels of the group, entries per channel], indices along the axis.
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
        name: The layer that makes the channels first, "conv1"; with what they are where a layer has several kinds
            ("attention/heads"), and with their range where a layer's channels fall into several groups ("conv3[0:16]").
        size: Number of channels.
        weights: Keys of the weights they lie on.
        makes: Keys of those that make the channels.
        frozen: Why they cannot be removed, None when they can.
        approximate: Why removing them changes the others a little, None when it does not.
        macs: Multiply-accumulates saved by removing one channel and nothing else; None when sizes are open. The cost
            of a layer is spread evenly over its kernels; products of activations in attention are left out.
        parameters: Weights saved by removing one channel and nothing else.
        unit: What the channels are, `"head"`, `"width"` or `"channel"`; see `Structured`.
        members: Where on its weights each channel lies; empty in a plan read from a file, until it is carried out.
        roots: The channels' labels in the trace; likewise.
    """

    name: str
    size: int
    weights: tuple[str, ...]
    makes: tuple[str, ...]
    frozen: Frozen | None
    approximate: Frozen | None
    macs: float | None
    parameters: float
    unit: str = "channel"
    members: tuple[Member, ...] = ()
    roots: np.ndarray = field(default_factory=lambda: np.zeros(0, int), repr=False)

    def vector(self, keep: Any) -> np.ndarray:
        """A keep vector as a boolean array of its own.

        Raises:
            PruningError: it is not one boolean per channel, or removes channels that cannot go.
        """
        array = np.array(keep)
        if array.dtype != bool or array.shape != (self.size,):
            raise PruningError(
                f"Group '{self.name}' needs one boolean for each of its {self.size} channels, "
                f"not {array.dtype} of shape {array.shape}."
            )
        if self.frozen and not array.all():
            raise PruningError(
                f"The channels of group '{self.name}' cannot be removed, because of {self.frozen}. Keep all of them."
            )
        return array


class ChannelGroups(Report, Mapping[str, ChannelGroup]):
    """All channel groups of a model, by name, in the order of the model; prints as a table.

    Attributes:
        model_name: Name of the model.
        key_of: The key of every weight, by the id of its variable.
        closed: What stays a closed layer, whose channels nobody knows, and why, in sentences.
    """

    title = "Channel groups"
    columns = (
        Column("group", "group"),
        Column("unit", "unit"),
        Column("channels", "channels", ",d"),
        Column("members", "weights", ",d"),
        Column("parameters", "parameters/channel", ",.0f"),
        Column("macs", "MACs/channel", ",.0f"),
        Column("frozen", "kept as it is because of"),
    )

    def __init__(
        self,
        groups: Iterable[ChannelGroup],
        model_name: str,
        trace: Trace | None = None,
        keys: Mapping[int, str] | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        closed: Iterable[str] = (),
    ):
        self._groups = {group.name: group for group in groups}
        self.model_name = model_name
        self._trace = trace
        self.key_of = dict(keys or {})
        self.shapes = dict(shapes or {})
        self.closed = list(closed)

    @property
    def is_traced(self) -> bool:
        """Whether the groups know the layers of a model; those of a plan read from a file do not yet."""
        return self._trace is not None

    @property
    def trace(self) -> Trace:
        """The labels that the groups were found by."""
        if self._trace is None:
            raise PruningError(
                f"This plan for '{self.model_name}' was read from a file and knows no layers of a model yet. Carry it "
                "out with shrink(model, plan) first, or take channel_groups(model)."
            )
        return self._trace

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
        return [name for name, group in self.items() if any(key.startswith(f"{path}/") for key in group.makes)]

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
                "unit": group.unit,
                "channels": group.size,
                "members": len(group.weights),
                "parameters": group.parameters,
                "macs": group.macs,
                "frozen": str(group.frozen) if group.frozen else None,
                "reason": group.frozen.reason.name if group.frozen else None,
            }
            for name, group in self.items()
        ]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the channels of each group: those that can be removed, and those that stay, with the reason."""
        rows = self.rows()
        free = [0 if row["frozen"] else row["channels"] for row in rows]
        stay = [row["channels"] if row["frozen"] else 0 for row in rows]
        panel = Panel("channels", ",d", {"can be removed": free, "stay": stay})
        return saved(draw_bars(self.title, list(self), [panel], [row["frozen"] or "" for row in rows]), path)

    def totals(self) -> dict[str, Any]:
        return {"channels": sum(group.size for group in self.values())}

    def notes(self) -> list[str]:
        frozen = sum(group.size for group in self.values() if group.frozen)
        total = sum(group.size for group in self.values())
        told = [f"{total - frozen:,d} of {total:,d} channels can be removed."] if total else ["No channels."]
        return told + self.closed

    def removed(self, keep: Mapping[str, np.ndarray]) -> np.ndarray:
        """Marks by root the label sets that go; groups that are not named stay whole.

        Raises:
            PruningError: an unknown group, a vector of the wrong length, or channels that cannot go.
        """
        gone = np.zeros(self.trace.size, bool)
        for name, vector in keep.items():
            gone[self[name].roots[~self[name].vector(vector)]] = True
        return gone

    def lost_at_outputs(self, keep: Mapping[str, np.ndarray]) -> int:
        """How many channels of the model's outputs go; unknown for a plan read from a file, which says 0."""
        if self._trace is None:
            return 0
        gone, root = self.removed(keep), self._trace.partition.root
        return sum(int(gone[root[channels.labels()]].sum()) for channels in self._trace.outputs)

    def holds_for(self, model: Any, values: bool = False) -> bool:
        """Whether the trace is that of this model as it is; with `values`, also of its weights as they are."""
        trace = self._trace
        if trace is None:
            return False
        parts = parts_of(opened(model, "Removing channels", has_rule).graph)
        same = len(parts) == len(trace.parts) and all(one is other for one, other in zip(parts, trace.parts))
        return same and (not values or trace.values.are_current())

    def masks(self, keep: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The masks that make the model equal to the one with the channels removed.

        Every weight of the group is masked: the slices that make a channel, its bias, the gamma and beta of its norms,
        and the slices of the next layers that listen to it.

        Args:
            keep: Group name -> boolean vector over its channels, True = kept; other groups stay whole.

        Returns:
            Weight key -> boolean array of the weight's shape, True = kept; only weights that lose something.
        """
        masks: dict[str, np.ndarray] = {}
        for name, vector in keep.items():
            group = self[name]
            gone = ~group.vector(vector)
            for member in group.members:
                if member.role is Role.STATISTIC or not gone.any():
                    continue
                mask = masks.setdefault(member.key, np.ones(tuple(member.variable.shape), bool))
                slices: list[Any] = [slice(None)] * mask.ndim
                slices[member.axis] = member.positions[gone].ravel()
                mask[tuple(slices)] = False
        return {key: mask.reshape(self.shapes.get(key, mask.shape)) for key, mask in masks.items()}

    def require_some_left(self, keep: Mapping[str, np.ndarray]) -> np.ndarray:
        """The label sets that go, as `removed` gives them; raises when they would leave a layer without channels."""
        gone = self.removed(keep)
        for use in self.trace.uses:
            if gone[self.trace.partition.root[use.line.labels]].all():
                key = self.key_of[id(use.variable)]
                on = [n for n, g in self.items() if any(m.key == key and m.axis == use.axis for m in g.members)]
                raise PruningError(
                    f"The plan would leave nothing of axis {use.axis} of weight '{key}'. Keep at least one channel of "
                    f"{' or '.join(map(repr, on))}."
                )
        return gone
