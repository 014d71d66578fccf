"""What channels cost: the parameters and multiply-accumulates that are left when groups lose some."""

from collections.abc import Mapping

import keras
import numpy as np

from tfprune.channels import ChannelGroups, has_rule, kernel_macs
from tfprune.model.inline import opened
from tfprune.model.prunable import every_weight


class Costs:
    """What is left of a model's parameters or multiply-accumulates when groups lose channels."""

    def __init__(self, groups: ChannelGroups, model: keras.Model):
        self._parameters: dict[str, float] = {
            weight.key: float(np.prod(weight.shape)) for weight in every_weight(model)
        }
        self._macs = kernel_macs(opened(model, "Counting", has_rule).graph, groups.key_of)
        self._parts: dict[tuple[str, int], dict[str, float]] = {}
        for name, group in groups.items():
            for member in group.members:
                share = member.positions.shape[1] / member.variable.shape[member.axis]
                self._parts.setdefault((member.key, member.axis), {})[name] = share

    def total(self, budget: str) -> float:
        """The whole model's parameters or multiply-accumulates."""
        return self.left(budget, {})

    def left(self, budget: str, removed: Mapping[str, int]) -> float:
        """What remains when each group loses so many channels; exact where channels cost alike."""
        weights = self._parameters if budget == "parameters" else self._macs
        share = self.shares(removed)
        return sum((cost or 0.0) * share.get(key, 1.0) for key, cost in weights.items())

    def of_channel(self, budget: str, name: str) -> float:
        """What one channel of a group saves where nothing else goes; 1 where it saves nothing that is counted."""
        return self.total(budget) - self.left(budget, {name: 1}) or 1.0

    def shares(self, removed: Mapping[str, int]) -> dict[str, float]:
        """The share of each weight that remains when each group loses so many channels."""
        share: dict[str, float] = {}
        for (key, _), left in self.axis_shares(removed).items():
            share[key] = share.get(key, 1.0) * left
        return share

    def axis_shares(self, removed: Mapping[str, int]) -> dict[tuple[str, int], float]:
        """The share of each axis of a weight that remains when each group loses so many channels."""
        return {
            place: 1.0 - sum(part * removed.get(name, 0) for name, part in parts.items())
            for place, parts in self._parts.items()
        }
