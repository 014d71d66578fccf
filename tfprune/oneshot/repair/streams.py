"""Residual streams in repair: a layer that ends a branch also makes up for what the stream past it has lost.

What is added to a stream can correct it. So the last layer of a residual branch is not asked for the dense layer's
outputs alone, but for those and the difference between the dense stream and the pruned one.
"""

from typing import Any

import keras

from tfprune.channels import Branch, ChannelGroups, Role, channel_groups, has_rule, residual_branches
from tfprune.errors import PruningError
from tfprune.model.activations import observed
from tfprune.model.graph import called, flow
from tfprune.model.inline import opened
from tfprune.model.tree import children


class Side:
    """The pruned model or the dense one, with the sums that its branches end in.

    Args:
        model: The model.
        graph: Its opened graph; None where it cannot be read.
        sums: The operations that add a branch to its stream, and the layers in the graph whose outputs they add, by the
            key of the branch's last kernel.
    """

    def __init__(self, model: keras.Model, graph: Any = None, sums: dict[str, tuple[Any, Any]] | None = None):
        self.model, self.graph, self.sums = model, graph, sums or {}

    @classmethod
    def of(cls, model: keras.Model) -> "Side":
        """A model with what is found of its streams."""
        try:
            groups = channel_groups(model)
            graph = opened(model, "Repair", has_rule).graph
        except PruningError:
            return cls(model)
        found = (_ended(groups, branch) for branch in residual_branches(groups).values())
        return cls(model, graph, dict(filter(None, found)))

    def seen(self, inputs: Any, layer: Any, key: str, streams: bool) -> tuple[list[Any], Any]:
        """What a layer is given in a run over a batch, and the stream past its branch; None without one."""
        if not streams:
            given: list[Any] = []
            with observed([layer], lambda _, x, __: given.append(x)):
                self.model(inputs, training=False)
            return given, None
        operation, last = self.sums[key]  # a layer of the opened graph, which may be another object than the user's
        found: dict[int, Any] = {}

        def record(of: Any, given: Any, outputs: Any) -> None:
            found[id(of)] = given, outputs

        with observed([last, operation], record):
            flat = [keras.ops.cast(x, i.dtype) for x, i in zip(keras.tree.flatten(inputs), self.graph.inputs)]
            flow(self.graph, flat, called)
        (x, output), (_, total) = found[id(last)], found[id(operation)]
        return [x], total - keras.ops.reshape(output, keras.ops.shape(total))


def _ended(groups: ChannelGroups, branch: Branch) -> tuple[str, tuple[Any, Any]] | None:
    """The kernel that a branch ends in, with what adds it and its layer; None where its output changes on the way."""
    operation, trace = branch.residual.sum.layer, groups.trace
    kernels = [use for use in branch.uses if use.role is Role.OUTPUT]
    layer, channels = kernels[0].operation, branch.residual.branch
    made = {id(x): visit for visit in trace.visits for x in visit.outputs}
    while isinstance(made[id(channels)].layer, keras.layers.Dropout):
        channels = made[id(channels)].input
    direct = made[id(channels)].layer is layer and len(kernels) == 1
    plain = getattr(layer, "activation", None) in (None, keras.activations.linear)
    if not direct or not plain or trace.times_called(operation) > 1 or any(u.role is Role.SCALE for u in branch.uses):
        return None
    kernel = kernels[0].variable
    last = next((each for each in [layer, *children(layer)] if getattr(each, "kernel", None) is kernel), None)
    return None if last is None else (groups.key_of[id(kernel)], (operation, last))
