"""Training that makes weights or channels small until they are zero, by proximal steps behind the optimizer's."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tfprune.channels import ChannelGroup, Role
from tfprune.deciding import methods
from tfprune.deciding.amounts import is_number
from tfprune.deciding.schedules import DEFAULT_END, Moment, OneShot
from tfprune.deciding.structured import BoundStructured
from tfprune.errors import PruningError
from tfprune.model.copying import scope_of
from tfprune.training.callbacks import PruningCallback
from tfprune.training.masks import MaskConstraint, constraint_of
from tfprune.training.step import retrace

Shrink = Callable[[Any, Any], Any]  # value of a weight, distance -> value that is as much nearer to zero


class ProximalConstraint(MaskConstraint):
    """Brings a weight nearer to zero after every step of the optimizer, and holds its mask.

    Args:
        held: The constraint in whose place it comes.
        distance: Gives how far, at this step.
        shrink: Does it.
    """

    def __init__(self, held: MaskConstraint, distance: Callable[[], Any], shrink: Shrink):
        super().__init__(held.mask, held.inner, held.decided)
        self.distance, self.shrink = distance, shrink

    def __call__(self, weight: Any) -> Any:
        value = super().__call__(weight)
        return self.shrink(value, keras.ops.cast(self.distance(), value.dtype))


def soft_threshold(value: Any, distance: Any) -> Any:
    """Every entry nearer to zero by a distance, and zero where it was within: the proximal step of the L1 norm.

    >>> keras.ops.convert_to_numpy(soft_threshold(np.array([-3.0, 0.5]), 1.0))
    array([-2.,  0.])
    """
    ops = keras.ops
    return ops.sign(value) * ops.maximum(ops.abs(value) - distance, 0.0)


class GroupShrinkage:
    """The proximal step of the sum of L2 norms of channels, each taken over all weights that make the channel.

    Args:
        groups: Channel groups; channels of one group are made by the same weights.
    """

    def __init__(self, groups: list[ChannelGroup]):
        self.makers = [[m for m in group.members if m.role is Role.OUTPUT] for group in groups]

    def of(self, key: str) -> Shrink | None:
        """The step for one of the weights; None where it makes no channel."""
        mine = [(makers, member) for makers in self.makers for member in makers if member.key == key]
        if not mine:
            return None

        def shrink(value: Any, distance: Any) -> Any:
            ops = keras.ops
            for makers, member in mine:
                lengths = ops.sqrt(sum(_squares(value if m is member else m.variable, m) for m in makers))
                entries = sum(math.prod(m.variable.shape) // m.variable.shape[m.axis] for m in makers)
                # The root of its size makes small and large channels equally hard to keep.
                reach = distance * math.sqrt(entries)
                factors = ops.maximum(1.0 - reach / ops.maximum(lengths, 1e-12), 0.0)
                index = np.full(member.variable.shape[member.axis], len(member.positions))
                index[member.positions] = np.arange(len(member.positions))[:, None]
                along = ops.take(ops.concatenate([factors, ops.ones((1,), factors.dtype)]), index)
                shape = [-1 if axis == member.axis else 1 for axis in range(len(value.shape))]
                value = value * ops.reshape(along, shape)
            return value

        return shrink


def _squares(value: Any, member: Any) -> Any:
    """The sum of squares of each channel's slices of one weight."""
    ops = keras.ops
    value = ops.convert_to_tensor(value)
    others = [axis for axis in range(len(value.shape)) if axis != member.axis]
    return ops.sum(ops.take(ops.sum(ops.square(value), axis=others), member.positions), axis=1)


class ProximalSparsity(PruningCallback):
    """Trains weights or whole channels towards zero, then removes the amount exactly and trains on without.

    Behind every step of the optimizer comes a proximal step: a soft threshold for weights (L1 penalty), a group soft
    threshold for channels (group lasso). It makes true zeros, where a penalty in the loss would only make small
    numbers. At `end` the method removes its amount, zeros first, and the rest trains on unpenalised. This is how sparse
    coding and compressed sensing solve their problems (iterative shrinkage), applied to training.

    Args:
        method: `Percentile(0.8)` for weights or `Structured(0.5)` for channels, with a number as amount; its config, or
            a sparsity.
        strength: Of the penalty: each step goes `strength x learning rate` towards zero. Larger makes more zeros and
            costs more accuracy. Defaults to `0.02`.
        end: When the amount is removed and the penalty ends; see `Schedule`. Defaults to `0.75`.

    Raises:
        PruningError: A strength that is not positive, or a method without a share as amount.

    Daubechies et al., "An iterative thresholding algorithm for linear inverse problems", 2004
    (https://arxiv.org/abs/math/0307152); Wen et al., "Learning structured sparsity in deep neural networks", 2016
    (https://arxiv.org/abs/1608.03665).

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    >>> model.compile("sgd", "mse")
    >>> callback = ProximalSparsity(0.5)
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 5)), epochs=4, verbose=0, callbacks=[callback])
    >>> history.history["sparsity"][-1]
    0.5
    """

    def __init__(self, method: Any, strength: float = 0.02, end: Moment = DEFAULT_END):
        method = methods.get(method)
        if not is_number(strength) or not 0.0 < strength < math.inf:
            raise PruningError(f"ProximalSparsity: strength={strength!r} is not positive; write strength=0.02.")
        if not method.by_share or not isinstance(method.amount, float):
            raise PruningError(
                f"ProximalSparsity: {method!r} does not say what share is to go in the end; write Percentile(0.8) or "
                "Structured(0.5), with a number."
            )
        super().__init__(method.with_amount(OneShot(method.amount, at=end)))
        self.strength = float(strength)
        self._strength: Any = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        if getattr(self.model, "optimizer", None) is None:
            raise PruningError(
                f"ProximalSparsity goes by the learning rate of the optimizer of '{self.model.name}', but the model "
                "has none. Write model.compile(optimizer) with the optimizer that your loop uses."
            )
        super().on_train_begin(logs)
        with scope_of(self.model):
            self._strength = keras.Variable(self.strength, dtype="float32", trainable=False)
        bound = self._runs[0].bound
        groups = GroupShrinkage(list(bound.chosen.values())) if isinstance(bound, BoundStructured) else None
        for weight in bound.weights:
            shrink = soft_threshold if groups is None else groups.of(weight.key)
            held = constraint_of(weight.variable)
            if shrink is not None and held is not None:
                weight.variable.constraint = ProximalConstraint(held, self._distance, shrink)
        retrace(self.model)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        super().on_train_batch_begin(batch, logs)
        if self._runs[0].done >= self._runs[0].schedule.end:
            self._strength.assign(0.0)

    def _distance(self) -> Any:
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        return self._strength * keras.ops.convert_to_tensor(optimizer.learning_rate)
