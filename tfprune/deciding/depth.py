"""Pruning of depth: which residual branches to remove whole, by how little each changes the stream."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.channels import Branch, ChannelGroups, channel_groups, has_rule, residual_branches
from tfprune.deciding.amounts import is_share
from tfprune.deciding.method import BoundMethod, Masks, Method
from tfprune.deciding.selection import smallest
from tfprune.deciding.statistics import Statistics
from tfprune.errors import PruningError, listing, nearest
from tfprune.model.copying import unwrapped
from tfprune.model.data import batches
from tfprune.model.graph import Call, called, flow
from tfprune.model.inline import opened
from tfprune.model.prunable import every_weight, prunable_weights
from tfprune.model.tree import check_model, wrapped_layers


class StructuredDepth(Method):
    """Removes whole residual branches: attention or MLP blocks of a transformer, blocks of a residual network.

    A branch is scored on data by how much it changes the stream that it is added to: one minus the cosine of what the
    stream is before and after, over the channels at each place, in the mean. After Men et al., "ShortGPT: layers in
    large language models are more redundant than you expect" (2024, https://arxiv.org/abs/2403.03853), for each branch
    rather than each layer, as in He et al., "What matters in transformers? Not all attention is needed" (2024,
    https://arxiv.org/abs/2406.15786). Its last kernel and bias, and the norm behind them where there is one, become
    zero: masks hold them in any training that follows, and `shrink` leaves the branch out.

    Args:
        amount: Share of the branches to remove, in [0, 1); `round(amount * branches)` go.
        layers: Which branches may go: names as `plan_shrink` prints them, or of layers in which they end. Defaults to
            None: all that end in a kernel of their own and are heard nowhere else.

    Raises:
        PruningError: An amount outside its range; when bound, a model without such branches, or an unknown name; when
            it decides, no data, as in `fit`: prune first, and fine-tune then.

    Example:
        tokens = keras.Input((9, 16))
        attended = tokens + keras.layers.MultiHeadAttention(4, 4)(tokens, tokens)
        residual = attended + keras.layers.Dense(16)(attended)
        transformer = keras.Model(tokens, keras.layers.Dense(2)(residual))
        shallow = tfprune.prune(transformer, tfprune.StructuredDepth(0.5), data=np.random.normal(size=(64, 9, 16)))
        small = tfprune.shrink(tfprune.strip_masks(shallow))
    """

    def __init__(self, amount: Any, layers: Any = None):
        super().__init__(amount, "magnitude", layers)
        if isinstance(self.layers, Mapping):
            raise PruningError(
                "StructuredDepth: a branch goes whole or stays, so layers takes names and no amounts; write "
                f"layers={list(self.layers)!r}."
            )
        self.check_amounts()

    def check_amount(self, amount: float) -> None:
        if not is_share(amount):
            raise PruningError(
                f"StructuredDepth: {amount} is no share of branches in [0, 1); write 0.25 for a quarter."
            )

    @property
    def by_share(self) -> bool:
        return True

    def bind(self, model: keras.Model) -> "BoundDepth":
        check_model(model, "prune")
        plain = unwrapped(model) if wrapped_layers(model) else model
        return BoundDepth(self, model, plain, channel_groups(plain))

    def influences(self, model: keras.Model, data: Any) -> dict[str, float]:
        """How much each branch that may go changes the stream, in [0, 2], by the branch's name."""
        bound = self.bind(model)
        bound.inform(model, data)
        return bound.influences

    def branches_to_remove(self, model: keras.Model, groups: ChannelGroups, data: Any = None) -> list[str]:
        """The branches that go at the final amount, for `plan_shrink(model, method, data)`."""
        check_model(model, "prune")
        bound = BoundDepth(self, model, model, groups)
        bound.inform(model, data)
        return bound.gone(self.final)


class BoundDepth(BoundMethod):
    """The method tied to the residual branches of a model.

    Args:
        method: The method.
        model: The model whose weights are masked.
        plain: The same model without wrappers.
        groups: The channel groups of that.
    """

    method: StructuredDepth

    def __init__(self, method: StructuredDepth, model: keras.Model, plain: keras.Model, groups: ChannelGroups):
        self.plain = plain
        self.branches = _chosen(method, model, residual_branches(groups))
        self.branch_masks = {name: branch.masks(groups) for name, branch in self.branches.items()}
        self.influences: dict[str, float] = {}
        keys = {key for masks in self.branch_masks.values() for key in masks}
        super().__init__(method, [weight for weight in every_weight(model) if weight.key in keys])

    def inform(self, model: keras.Model, data: Any = None) -> Statistics:
        if data is None:
            raise PruningError(_NEEDS_DATA)
        read = list(batches(data, model, "StructuredDepth"))
        self.influences = _influences(self.plain, self.branches, [batch.inputs for batch in read])
        return Statistics(batches=len(read), samples=sum(batch.size for batch in read))

    def leave(self, keys: set[str]) -> None:
        self.branches = {name: b for name, b in self.branches.items() if not keys & set(self.branch_masks[name])}
        super().leave({key for name, masks in self.branch_masks.items() if name not in self.branches for key in masks})

    def decide(self, amount: float, kept: Mapping[str, np.ndarray] | None = None) -> Masks:
        self.method.check_amount(amount)
        masks = {weight.key: np.ones(weight.shape, bool) for weight in self.weights}
        for name in self.gone(amount, kept):
            for key, mask in self.branch_masks[name].items():
                masks[key] &= mask
        return masks

    def gone(self, amount: float, kept: Mapping[str, np.ndarray] | None = None) -> list[str]:
        """The branches that go at an amount; those that earlier masks removed go first."""
        if not self.influences:
            raise PruningError(_NEEDS_DATA)
        scores = np.array([self.influences[name] for name in self.branches])
        for index, name in enumerate(self.branches):
            if kept and not any((kept[key] & ~mask).any() for key, mask in self.branch_masks[name].items()):
                scores[index] = -np.inf
        chosen = smallest([scores], round(amount * len(scores)))[0]
        return [name for name, goes in zip(self.branches, chosen) if goes]


_NEEDS_DATA = (
    "StructuredDepth scores branches on data, which fit does not give it: write "
    "model = tfprune.prune(model, tfprune.StructuredDepth(0.25), data=x[:500]), and train that; its masks hold in fit."
)


def _chosen(method: StructuredDepth, model: keras.Model, branches: dict[str, Branch]) -> dict[str, Branch]:
    """The branches that may go.

    Raises:
        PruningError: There is none, or a name is unknown.
    """
    if not branches:
        raise PruningError(
            f"'{model.name}' has no residual branch that can go: a sum of a stream and of what was computed from it, "
            "which ends in a kernel of its own. Remove channels instead: tfprune.Structured(0.5)."
        )
    if method.layers is None:
        return branches
    if isinstance(method.layers, Sequence) and set(method.layers) <= set(branches):
        return {name: branch for name, branch in branches.items() if name in method.layers}
    keys = {id(weight.variable) for weight in prunable_weights(model, method.layers)}
    found = {name: b for name, b in branches.items() if any(id(use.variable) in keys for use in b.uses)}
    if not found:
        names = method.layers if isinstance(method.layers, Sequence) else ()
        told = nearest(str(names[0]), branches) if names else f"Branches: {listing(branches)}."
        raise PruningError(f"layers={method.layers!r}: no residual branch of '{model.name}' ends there. {told}")
    return found


def _influences(model: keras.Model, branches: Mapping[str, Branch], data: Sequence[Any]) -> dict[str, float]:
    """One minus the mean cosine of the stream before and after each branch."""
    import tensorflow as tf

    graph = opened(model, "Scoring branches", has_rule).graph
    sums = {id(branch.node): (name, branch.residual) for name, branch in branches.items()}

    def cosines(inputs: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def visit(call: Call) -> list[Any]:
            results = called(call)
            if id(call.node) in sums:
                name, residual = sums[id(call.node)]
                given = [x for x in keras.tree.flatten((call.args, call.kwargs)) if tf.is_tensor(x)]
                place = next(i for i, each in enumerate(residual.sum.inputs) if each is residual.stream)
                axis = residual.branch.factors[0].axes[-1]
                before, after = (tf.cast(x, tf.float32) for x in (given[place], results[0]))
                found[name] = tf.reduce_mean(
                    tf.reduce_sum(tf.math.l2_normalize(before, axis) * tf.math.l2_normalize(after, axis), axis)
                )
            return results

        flat = keras.tree.flatten(inputs)
        flow(graph, [keras.ops.cast(x, given.dtype) for x, given in zip(flat, graph.inputs)], visit)
        return found

    sizes, totals = [], []
    for inputs in data:
        found = cosines(inputs)
        totals.append([float(found[name]) for name in branches])
        sizes.append(len(keras.tree.flatten(inputs)[0]))
    means = np.average(np.array(totals), axis=0, weights=sizes)
    return {name: 1.0 - float(mean) for name, mean in zip(branches, means)}
