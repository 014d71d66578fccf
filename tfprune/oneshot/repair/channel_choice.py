"""Which channels of a group the layers that listen to it can spare, when each makes up for what it no longer hears.

Removing the features of a channel from a linear layer and fitting the others anew leaves an error that the inverse of
the features' second moments tells (Hassibi and Stork, "Second order derivatives for network pruning: optimal brain
surgeon", 1993; for groups of weights Kurtic et al., "ZipLM: inference-aware structured pruning of language models",
2023, https://arxiv.org/abs/2302.04089). A group loses the channels whose errors, as shares of the variance of the
listeners' outputs, add up to least; a few go at a time, and the others are fitted between, or, in a small group,
every choice is tried. With `allocation="outputs"` these choices are tried at the outputs of the model too, which tells
how many channels each group gives.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.channels import ChannelGroup, Role
from tfprune.deciding.method import Masks
from tfprune.deciding.structured import BoundStructured, removed
from tfprune.model.activations import observed
from tfprune.model.copying import clone_with_weights
from tfprune.model.data import Batch, input_specs
from tfprune.model.layers import LinearForm
from tfprune.model.prunable import PrunableWeight, every_weight, linear_form
from tfprune.model.tree import as_array
from tfprune.oneshot.repair.least_squares import ENOUGH_ROWS, RIDGE
from tfprune.oneshot.repair.output_losses import ModelOutputs, increases, levels
from tfprune.oneshot.repair.reconstruct import FEATURES
from tfprune.progress import stage

# A round takes at most this share of the channels that are left.
SHARE = 0.125
# In groups of no more channels, such as heads, every choice is tried.
FEW = 8

# From how many channels go to those that stay, as booleans.
Choice = Callable[[int], np.ndarray]


class Listener:
    """What a linear layer, or a part of one, loses without some channels of its input.

    Args:
        channels: Which channel each feature belongs to, -1 for those of none; int array of shape `(features,)`.
        moment: Mean product of features with one another, `(features, features)`.
        matrix: The layer's values, `(features, outputs)`.
        rows: How many rows the means were taken over.

    >>> listener = Listener(np.array([0, 1, 2]), np.eye(3), np.array([[3.0], [1.0], [2.0]]), rows=100)
    >>> listener.losses(np.ones(3, bool)).round()
    array([9., 1., 4.])
    """

    def __init__(self, channels: np.ndarray, moment: np.ndarray, matrix: np.ndarray, rows: int):
        self.channels, self.rows, self.moment = channels, rows, moment
        image = moment @ matrix
        self.energy = float(np.sum(matrix * image))
        hold = RIDGE * float(np.mean(np.diagonal(moment))) + np.finfo(np.float32).tiny
        self.held = moment + hold * np.eye(len(moment), dtype=moment.dtype)
        self.wanted = image + hold * matrix
        self.matrix = matrix

    def fitted(self, kept: np.ndarray) -> np.ndarray:
        """The values that make up best for the channels that are not kept, whose own are zero."""
        present = np.flatnonzero((self.channels < 0) | kept[self.channels])
        values = np.zeros(self.matrix.shape)
        if self.rows >= ENOUGH_ROWS * present.size:
            values[present] = np.linalg.solve(self.held[np.ix_(present, present)], self.wanted[present])
        else:
            values[present] = self.matrix[present]
        return values

    def error(self, kept: np.ndarray) -> float:
        """The error of the outputs without the channels that are not kept, the others making up for them."""
        change = self.fitted(kept) - self.matrix
        return float(np.sum(change * (self.moment @ change)))

    def losses(self, kept: np.ndarray) -> np.ndarray:
        """The error of the outputs that removing each channel adds, the others making up for it.

        With few rows for each feature these would fit anything, so there nothing is made up for.

        Args:
            kept: The channels that are there, as booleans.
        """
        present = np.flatnonzero((self.channels < 0) | kept[self.channels])
        channels = self.channels[present]
        made_up = self.rows >= ENOUGH_ROWS * present.size
        if made_up:
            inverse = np.linalg.inv(self.held[np.ix_(present, present)])
            values = inverse @ self.wanted[present]
        found = np.zeros(kept.size)
        for channel in np.unique(channels[channels >= 0]):
            own = np.flatnonzero(channels == channel)
            if made_up:
                part = values[own]
                found[channel] = np.sum(part * np.linalg.solve(inverse[np.ix_(own, own)], part))
            else:
                places = present[own]
                part = self.matrix[places]
                found[channel] = np.sum(part * (self.moment[np.ix_(places, places)] @ part))
        return found


class Audience(NamedTuple):
    """A layer that listens to a group, with what it hears in each of its parts."""

    form: LinearForm
    parts: list["FeaturePart"]
    means: list[np.ndarray]
    listeners: list[Listener]

    @property
    def energy(self) -> float:
        """The mean square of what the layer makes of the features of these parts; their variance with a bias."""
        return max(sum(listener.energy for listener in self.listeners), np.finfo(np.float64).tiny)

    def error(self, kept: np.ndarray) -> float:
        """What the layer loses without the channels that are not kept, as a share of its energy."""
        return sum(listener.error(kept) for listener in self.listeners) / self.energy

    def losses(self, kept: np.ndarray) -> np.ndarray:
        """What each channel is worth to the layer, as a share of its energy."""
        return np.sum([listener.losses(kept) for listener in self.listeners], axis=0) / self.energy

    def fitted(self, kept: np.ndarray) -> list[tuple[Any, np.ndarray]]:
        """The kernel and the bias that make up best for the channels that are not kept, with their values."""
        layer = self.form.layer
        matrix = self.form.to_matrix(as_array(self.form.kernel)).astype(np.float64)
        means = np.zeros((matrix.shape[0], matrix.shape[2]))
        for part, mean, listener in zip(self.parts, self.means, self.listeners):
            values = listener.fitted(kept)
            means[part.group] += mean @ (matrix[part.group, part.features] - values)
            matrix[part.group, part.features] = values
        found = [(self.form.kernel, self.form.to_kernel(matrix))]
        if self.form.has_bias:
            found.append((layer.bias, as_array(layer.bias) + means.reshape(tuple(layer.bias.shape))))
        return found


def choose_channels(
    bound: BoundStructured,
    amount: float,
    model: keras.Model,
    data: Sequence[Batch],
    kept: Mapping[str, np.ndarray] | None = None,
) -> Masks:
    """Masks that remove as many channels of each group as the method does: those that are missed least.

    Memory: a copy of the model, and for one group at a time a matrix of (features x features) floats for
    each layer that listens to it; layers of more than 4096 features are looked at in parts.

    Args:
        bound: A structured method bound to the model, or to a copy of it.
        amount: How much of it, as the method counts.
        model: The model before pruning; it is left as it is.
        data: Batches of a few hundred inputs.
        kept: Earlier masks. Channels that they remove stay removed.

    Returns:
        Masks by the key of the weight. A group to which no layer with a plain product listens loses the channels that
        the method's criterion names.
    """
    copy = clone_with_weights(model, keep_compiled=False)
    weights = {weight.key: weight for weight in every_weight(copy)}
    if bound.method.asks_outputs:
        choices = _measured_choices(bound, copy, weights, data, kept)
        counts = {name: int(np.count_nonzero(~stays)) for name, stays in bound.keep(amount, kept).items()}
        return bound.masks({name: choice(counts[name]) for name, choice in choices.items()})
    chosen = dict(bound.keep(amount, kept))
    with stage("choose channels", total=len(chosen)) as bar:
        for name, stays in chosen.items():
            audiences = [] if stays.all() else _audiences(copy, weights, bound.chosen[name], data)
            if audiences:
                gone = removed(bound.chosen[name], kept or {})
                count = int(np.count_nonzero(~stays))
                chosen[name] = _choice(audiences, gone, count)(count)
            bar.advance()
    return bound.masks(chosen)


def _measured_choices(
    bound: BoundStructured,
    copy: keras.Model,
    weights: Mapping[str, PrunableWeight],
    data: Sequence[Batch],
    kept: Mapping[str, np.ndarray] | None,
) -> dict[str, Choice]:
    """The choice of channels for each group; the method learns what the outputs lose on the way."""
    outputs, scores = ModelOutputs(copy, data), bound.scores(kept)
    choices: dict[str, Choice] = {}
    found = {}
    with stage("measure what groups are worth", total=len(scores)) as bar:
        for name, group in bound.chosen.items():
            gone = removed(group, kept or {})
            audiences = _audiences(copy, weights, group, data)
            most = group.size - bound.least(group)
            by_score = np.argsort(scores[name], kind="stable")
            choice = _choice(audiences, gone, most) if audiences else partial(_kept, by_score)
            errors, already = {}, int(np.count_nonzero(gone))
            for level in levels(already, most):
                stays = choice(level)
                masks = bound.groups.masks({name: stays})
                errors[level] = outputs.error(_without(weights, masks, audiences, stays))
            choices[name], found[name] = choice, increases(errors, already, group.size)
            bar.advance()
    bound.rank_by(found)
    return choices


def _without(
    weights: Mapping[str, PrunableWeight], masks: Masks, audiences: Sequence[Audience], kept: np.ndarray
) -> list[tuple[Any, np.ndarray]]:
    """The variables of a model without the channels that are not kept, made up for, and what stands in them then."""
    values = {id(variable): (variable, value) for each in audiences for variable, value in each.fitted(kept)}
    for key, mask in masks.items():
        variable = weights[key].variable
        value = values[id(variable)][1] if id(variable) in values else as_array(variable)
        values[id(variable)] = variable, np.where(mask, value, 0.0)
    return list(values.values())


def _choice(audiences: Sequence[Audience], gone: np.ndarray, most: int) -> Choice:
    """From how many channels go, up to the most, to those that stay; those that are gone already go in any case."""
    if gone.size <= FEW:
        return partial(_best, audiences, gone)
    return partial(_kept, _order(audiences, gone, most))


def _best(audiences: Sequence[Audience], gone: np.ndarray, count: int) -> np.ndarray:
    """What stays in the best of all choices of so many channels."""
    there = np.flatnonzero(~gone)
    choices = [np.isin(np.arange(gone.size), stay) for stay in combinations(there, gone.size - count)]
    return min(choices, key=lambda kept: sum(audience.error(kept) for audience in audiences))


def _order(audiences: Sequence[Audience], gone: np.ndarray, count: int) -> np.ndarray:
    """All channels, those first that are gone, then so many in the order in which they are missed least."""
    kept = ~gone
    order = list(np.flatnonzero(gone))
    while len(order) < count:
        left = kept.size - len(order)
        total = sum((audience.losses(kept) for audience in audiences), np.zeros(kept.size))
        least = np.argsort(np.where(kept, total, np.inf), kind="stable")[: max(1, int(SHARE * left))]
        kept[least] = False
        order.extend(least)
    return np.array([*order, *np.flatnonzero(kept)], int)


def _kept(order: np.ndarray, count: int) -> np.ndarray:
    """All but the first so many of an order, as booleans."""
    kept = np.ones(order.size, bool)
    kept[order[:count]] = False
    return kept


def _audiences(
    model: keras.Model, weights: Mapping[str, PrunableWeight], group: ChannelGroup, data: Sequence[Batch]
) -> list[Audience]:
    """The layers that listen to a group, each in parts."""
    found = []
    for member in group.members:
        form = linear_form(weights[member.key]) if member.role is Role.INPUT else None
        if form is not None:
            found.append((form, _parts(_channel_of_each_feature(form, member.axis, member.positions))))
    return _measured(model, found, data) if found else []


def _channel_of_each_feature(form: LinearForm, axis: int, positions: np.ndarray) -> np.ndarray:
    """The channel of the group that each feature of a linear form belongs to, -1 for none; `(groups, features)`."""
    along = np.full(form.kernel_shape[axis], -1)
    along[positions] = np.arange(len(positions))[:, None]
    shape = [1] * len(form.kernel_shape)
    shape[axis] = -1
    return form.to_matrix(np.broadcast_to(along.reshape(shape), form.kernel_shape))[:, :, 0]


class FeaturePart(NamedTuple):
    """Features of one group of a linear form: as many as can be solved at once, of whole channels."""

    group: int
    features: np.ndarray
    channels: np.ndarray


def _parts(channels: np.ndarray) -> list[FeaturePart]:
    parts = []
    for group, of in enumerate(channels):
        if (of >= 0).any():
            order = np.argsort(of, kind="stable")
            # Equal shares of the channels; the features of none go with the first.
            count = -(-order.size // FEATURES)
            for share in np.array_split(np.arange(-1, of.max() + 1), count):
                features = order[np.isin(of[order], share)]
                if features.size:
                    parts.append(FeaturePart(group, features, of[features]))
    return parts


def _measured(
    model: keras.Model, found: Sequence[tuple[LinearForm, list[FeaturePart]]], data: Sequence[Batch]
) -> list[Audience]:
    """The second moments of all parts, from one pass over the data."""
    import tensorflow as tf

    layers = [form.layer for form, _ in found]

    @tf.function(input_signature=[input_specs(list(data))], autograph=False)
    def step(inputs: Any) -> Any:
        heard: dict[int, list[Any]] = {id(layer): [] for layer in layers}
        with observed(layers, lambda layer, given, _: heard[id(layer)].append(given)):
            model(inputs, training=False)
        sums = []
        for form, parts in found:
            rows = tf.cast(tf.concat([form.rows(given) for given in heard[id(form.layer)]], axis=1), tf.float32)
            features = [tf.gather(rows[part.group], part.features, axis=1) for part in parts]
            products = [(tf.matmul(each, each, transpose_a=True), tf.reduce_sum(each, axis=0)) for each in features]
            sums.append((products, tf.shape(rows)[1]))
        return sums

    totals: Any = None
    for batch in data:
        new = keras.tree.map_structure(lambda value: np.asarray(value, np.float64), step(batch.inputs))
        totals = new if totals is None else keras.tree.map_structure(np.add, totals, new)
    return [_with_moments(form, parts, *sums) for (form, parts), sums in zip(found, totals)]


def _with_moments(form: LinearForm, parts: list[FeaturePart], sums: Sequence[Any], rows: Any) -> Audience:
    matrix = form.to_matrix(as_array(form.kernel)).astype(np.float64)
    means, listeners = [], []
    for part, (products, total) in zip(parts, sums):
        moment = products / rows
        if form.has_bias:  # which takes up every change of the mean
            moment = moment - np.outer(total, total) / rows**2
        means.append(total / rows)
        listeners.append(Listener(part.channels, moment, matrix[part.group, part.features], int(rows)))
    return Audience(form, parts, means, listeners)
