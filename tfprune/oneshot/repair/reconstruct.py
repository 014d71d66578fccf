"""Repair without training: what is kept of each layer makes up for what was removed, from unlabelled inputs.

Layers are repaired in the order in which the model calls them. Each is asked for the outputs of the dense model, from
the inputs that the pruned and already repaired layers before it give: so it also makes up for their errors.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune.deciding.criteria import L2
from tfprune.deciding.patterns import Element, Pattern
from tfprune.deciding.selection import smallest
from tfprune.errors import PruningError, listing, nearest
from tfprune.model.activations import observed
from tfprune.model.copying import clone_with_weights
from tfprune.model.data import Batch, batches, finite, input_specs
from tfprune.model.layers import LinearForm
from tfprune.model.prunable import PrunableWeight, every_weight, linear_form
from tfprune.model.tree import as_array
from tfprune.oneshot.repair.batch_norm import move_statistics
from tfprune.oneshot.repair.least_squares import LeastSquares
from tfprune.progress import stage
from tfprune.report import Column, Panel, Report, draw_bars, saved
from tfprune.training.masks import constraint_of, held_masks, set_mask

WAYS = ("batch_norm", "least_squares", "obs")
# A layer with more features than this is solved in parts of this size: 64 MB for each matrix of moments of a part.
FEATURES = 4096


@dataclass(frozen=True)
class Repair:
    """One weight's repair.

    Attributes:
        key: The weight.
        way: `"obs"` where a new choice of entries was better, else `"least_squares"`.
        before: Error of the layer's outputs before, as a share of their variance in the dense model.
        after: Likewise after.
        sparsity: Share of zeros, which a repair never changes.
    """

    key: str
    way: str
    before: float
    after: float
    sparsity: float


@dataclass(frozen=True)
class Reconstruction(Report):
    """What `reconstruct` did to each weight, and what it left alone."""

    title = "Reconstruction"
    columns = (
        Column("weight", "weight"),
        Column("sparsity", "sparsity", ".1%"),
        Column("way", "way"),
        Column("before", "error before", ".4f"),
        Column("after", "error after", ".4f"),
    )

    repairs: Sequence[Repair] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    normalized: Sequence[str] = ()
    samples: int = 0
    batches: int = 0

    def rows(self) -> list[dict[str, Any]]:
        return [
            {"weight": r.key, "sparsity": r.sparsity, "way": r.way, "before": r.before, "after": r.after}
            for r in self.repairs
        ]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the error of each layer's output before and after the repair."""
        errors = {key: [getattr(repair, key) for repair in self.repairs] for key in ("before", "after")}
        panel = Panel("error over the output of the dense layer", ".4f", errors, stacked=False)
        return saved(draw_bars(self.title, [repair.key for repair in self.repairs], [panel]), path)

    def notes(self) -> list[str]:
        notes = [f"Read {self.samples} samples in {self.batches} batches."]
        if self.normalized:
            notes.append(f"Statistics of batch norm moved by what pruning changed: {listing(self.normalized)}.")
        notes += [f"Left as pruned: {key}, {reason}." for key, reason in self.skipped.items()]
        return notes


def reconstruct(
    pruned: keras.Model, dense: keras.Model, data: Any, way: str | bool = True, pattern: Pattern | None = None
) -> Reconstruction:
    """Repairs a pruned model in place, so that it answers like the dense one as far as its zeros allow.

    Memory: the data, a copy of the dense model, and for one layer at a time two matrices of (features x features)
    floats, where features are the inputs of a dense layer or window x channels of a convolution; layers of more than
    4096 features are solved in parts of 4096.

    Args:
        pruned: A model with masks, as `prune` gives it; it is changed.
        dense: The model before pruning; it is left as it is.
        data: A few hundred inputs like those the model will meet; anything that `fit` takes. Targets are not looked
            at.
        way: `"batch_norm"` moves the statistics of batch norm by what pruning changed in them. `"least_squares"` also
            gives the kept weights the values that bring each layer's outputs closest to the dense ones. `"obs"` chooses
            anew which entries of a weight are kept, as many as before, before doing so (after Frantar and Alistarh,
            "Optimal brain compression", 2022, https://arxiv.org/abs/2208.11580, by rounds of removal and repair); a
            layer that sees fewer than 4 inputs or windows for each of its features keeps its entries. True (default)
            is `"obs"`.
        pattern: Where zeros may fall, for `"obs"`. Defaults to single entries.

    Returns:
        The error of each layer before and after, and what was left alone and why.

    Raises:
        PruningError: No data, data that do not fit, an unknown way, or nothing to repair.

    Example:
        pruned = tfprune.prune(model, tfprune.Percentile(0.8))
        print(tfprune.oneshot.repair.reconstruct.reconstruct(pruned, model, images[:1000]))
    """
    way = check_way(way)
    collected = list(finite(batches(data, dense, f"reconstruct={way!r}"), f"reconstruct={way!r}"))
    repairs: list[Repair] = []
    skipped: dict[str, str] = {}
    dense = clone_with_weights(dense, keep_compiled=False)
    if way != "batch_norm":
        repairs, skipped = _repair_weights(pruned, dense, collected, way, pattern or Element())
    normalized = move_statistics(pruned, dense, collected)
    if way == "batch_norm" and not normalized:
        raise PruningError(
            f"reconstruct='batch_norm': '{pruned.name}' has no batch norm to measure; write reconstruct=True, which "
            "repairs the weights."
        )
    samples = sum(batch.size for batch in collected)
    return Reconstruction(repairs, skipped, normalized, samples, len(collected))


def check_way(way: str | bool) -> str:
    """The name of a way of repair; True is `"obs"`.

    Raises:
        PruningError: It is none.
    """
    if way is True:
        return "obs"
    if way not in WAYS:
        known = nearest(way, WAYS) if isinstance(way, str) else f"Known names: {listing(WAYS)}."
        raise PruningError(f"reconstruct={way!r} is no way of repair; write None, True or a name. {known}")
    return str(way)


def warn_of_skipped(result: Reconstruction) -> None:
    """Says in one warning which pruned weights could not be repaired."""
    if result.skipped:
        reasons = "; ".join(f"'{key}' {reason}" for key, reason in result.skipped.items())
        warnings.warn(f"tfprune: pruned but not repaired: {reasons}.", stacklevel=3)


def _repair_weights(
    pruned: keras.Model, dense: keras.Model, data: list[Batch], way: str, pattern: Pattern
) -> tuple[list[Repair], dict[str, str]]:
    models = (pruned, dense)
    old = {weight.key: weight for weight in every_weight(dense)}
    masks = held_masks(every_weight(pruned))
    weights = [weight for weight in every_weight(pruned) if weight.key in masks and weight.is_kernel]
    forms = {weight.key: linear_form(weight) for weight in weights}
    skipped = {
        weight.key: f"is a {weight.variable.name} of {type(weight.place.layer).__name__}, which is no single product"
        for weight in weights
        if forms[weight.key] is None
    }
    repairs = []
    called = _in_order_of_calls(pruned, [w for w in weights if forms[w.key] is not None], data[0], skipped)
    with stage("repair layers", total=len(called)) as bar:
        for weight in called:
            form = forms[weight.key]
            if form is not None:
                layer = Layer(weight, old[weight.key], form, masks[weight.key])
                repairs.append(layer.repair(models, data, way, pattern))
            bar.advance()
    return repairs, skipped


def _in_order_of_calls(
    model: keras.Model, weights: list[PrunableWeight], batch: Batch, skipped: dict[str, str]
) -> list[PrunableWeight]:
    """The weights in the order in which the model calls their layers; those never called are put to the skipped."""
    called: dict[int, None] = {}
    with observed([weight.place.layer for weight in weights], lambda layer, *_: called.setdefault(id(layer))):
        model(_first(batch.inputs), training=False)
    skipped.update({w.key: "is not called by the model" for w in weights if id(w.place.layer) not in called})
    return [weight for layer in called for weight in weights if id(weight.place.layer) == layer]


def _first(inputs: Any) -> Any:
    return keras.tree.map_structure(lambda array: array[:1], inputs)


class Layer:
    """One layer's kernel in the pruned model and in the dense one, with its linear form and mask."""

    def __init__(self, weight: PrunableWeight, old: PrunableWeight, form: LinearForm, mask: np.ndarray):
        self.weight, self.old, self.form, self.mask = weight, old, form, mask
        self.old_form = linear_form(old) or form
        self.layer, self.old_layer = weight.place.layer, old.place.layer
        self.parts, self.padding = _parts(form.to_matrix(mask).shape[1])

    def repair(self, models: tuple[keras.Model, keras.Model], data: list[Batch], way: str, pattern: Pattern) -> Repair:
        """Writes the best values into the pruned model, for its mask or a better one of as many zeros."""
        sums = self._sums(models, data)
        dense = self._split(self.form.to_matrix(as_array(self.old.variable)))
        own, cross = sums.own / sums.rows, sums.cross / sums.rows
        if self.form.has_bias:
            # The bias takes up every change of the mean, so the kernel is fitted to what is left without the means.
            own = own - _outer(sums.mean, sums.mean)
            cross = cross - _outer(sums.mean, sums.dense_mean)
        problem = LeastSquares(own, cross @ dense, dense, int(sums.rows))
        kept = self._split(self.form.to_matrix(self.mask))
        before = self._split(self.form.to_matrix(as_array(self.weight.variable)))
        after, found = problem.fit(kept), "least_squares"
        if way == "obs" and problem.supports_choice:
            other = problem.choose(self._choice(pattern))
            fitted = problem.fit(other)
            if problem.loss(fitted) < problem.loss(after):  # the rounds are greedy, so they may lose
                kept, after, found = other, fitted, way
        energy = sums.energy(self.form.has_bias)
        lost, left = (_error(own, cross @ dense, energy, values) for values in (before, after))
        self._write(after, kept, sums, dense)
        return Repair(self.weight.key, found, lost, left, 1.0 - float(np.mean(self.mask)))

    def _choice(self, pattern: Pattern) -> Any:
        axis, removed = self.weight.input_axis, pattern.pruned_units(self.mask, self.weight.input_axis)
        count = int(np.count_nonzero(removed))

        def choose(use: np.ndarray, share: float) -> np.ndarray:
            entries = self.form.to_kernel(self._joined(use))
            units = pattern.unit_scores(entries, L2(), axis)
            # N:M always thins every group; only what else may be removed grows over the rounds.
            chosen = smallest([units], round(count * (share if pattern.full == 1.0 else 1.0)))[0]
            return self._split(self.form.to_matrix(pattern.mask(chosen, entries, axis)))

        return choose

    def _write(self, matrix: np.ndarray, kept: np.ndarray, sums: "Sums", dense: np.ndarray) -> None:
        mask = self.form.to_kernel(self._joined(kept))
        values = self.form.to_kernel(self._joined(matrix))
        self.weight.variable.assign(np.where(mask, values, 0.0))
        set_mask(self.weight.variable, mask)
        if self.form.has_bias:
            bias = self.layer.bias
            change = np.einsum("gf,gfo->go", sums.dense_mean, dense) - np.einsum("gf,gfo->go", sums.mean, matrix)
            change = change.reshape(-1, self.parts, change.shape[1]).sum(axis=1)
            wanted = as_array(self.old_layer.bias) + change.reshape(tuple(bias.shape))
            held = constraint_of(bias)
            bias.assign(wanted if held is None else np.where(as_array(held.mask), wanted, 0.0))

    def _split(self, matrix: np.ndarray) -> np.ndarray:
        """A matrix as that of the parts, each a group of its own."""
        padded = np.pad(matrix, [(0, 0), (0, self.padding), (0, 0)])
        return padded.reshape(-1, padded.shape[1] // self.parts, matrix.shape[2])

    def _joined(self, matrix: np.ndarray) -> np.ndarray:
        joined = matrix.reshape(matrix.shape[0] // self.parts, -1, matrix.shape[2])
        return joined[:, : joined.shape[1] - self.padding]

    def _sums(self, models: tuple[keras.Model, keras.Model], data: list[Batch]) -> "Sums":
        """One pass over the data, through both models."""
        import tensorflow as tf

        pruned, dense = models
        kernel = tf.constant(self._split(self.form.to_matrix(as_array(self.old.variable))), tf.float32)

        def rows(form: LinearForm, inputs: list[Any]) -> Any:
            features = tf.cast(tf.concat([form.rows(x) for x in inputs], axis=1), tf.float32)
            features = tf.pad(features, [(0, 0), (0, 0), (0, self.padding)])
            groups, size = features.shape[0], features.shape[-1] // self.parts
            split = tf.transpose(tf.reshape(features, (groups, -1, self.parts, size)), (0, 2, 1, 3))
            return tf.reshape(split, (groups * self.parts, -1, size))

        @tf.function(input_signature=[input_specs(data)], autograph=False)
        def step(inputs: Any) -> Any:
            here: list[Any] = []
            there: list[Any] = []
            with observed([self.layer], lambda _, given, __: here.append(given)):
                pruned(inputs, training=False)
            with observed([self.old_layer], lambda _, given, __: there.append(given)):
                dense(inputs, training=False)
            own, old = rows(self.form, here), rows(self.old_form, there)
            outputs = tf.matmul(old, kernel)
            return (
                tf.matmul(own, own, transpose_a=True),
                tf.matmul(own, old, transpose_a=True),
                tf.reduce_sum(own, axis=1),
                tf.reduce_sum(old, axis=1),
                tf.reduce_sum(outputs * outputs, axis=(1, 2)),
                tf.reduce_sum(outputs, axis=1),
                tf.shape(own)[1],
            )

        total: list[Any] = []
        for batch in data:
            found = [np.asarray(value, np.float64 if value.dtype.is_floating else None) for value in step(batch.inputs)]
            total = [one + other for one, other in zip(total, found)] if total else found
        return Sums(*total)


@dataclass
class Sums:
    """What least squares needs to know of the data, for one layer; the first axis counts groups.

    `own` are products of the features that the pruned model has, `cross` those of them with the dense model's.
    """

    own: np.ndarray
    cross: np.ndarray
    own_sum: np.ndarray
    dense_sum: np.ndarray
    squares: np.ndarray
    outputs: np.ndarray
    rows: np.ndarray  # one number

    @property
    def mean(self) -> np.ndarray:
        """The mean features of the pruned model."""
        return self.own_sum / self.rows

    @property
    def dense_mean(self) -> np.ndarray:
        """The mean features of the dense model."""
        return self.dense_sum / self.rows

    def energy(self, centred: bool) -> float:
        """The mean square of the dense layer's outputs, bias apart; their variance where centred."""
        square = float(np.sum(self.squares) / self.rows)
        return square - float(np.sum(np.square(self.outputs / self.rows))) if centred else square


def _outer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return left[:, :, None] * right[:, None, :]


def _error(own: np.ndarray, wanted: np.ndarray, energy: float, matrix: np.ndarray) -> float:
    """The mean square difference to the wanted outputs over their own."""
    difference = energy - 2 * np.sum(wanted * matrix) + np.sum(matrix * (own @ matrix))
    return float(max(0.0, difference) / energy) if energy > 0 else 0.0


def _parts(features: int) -> tuple[int, int]:
    """Into how many parts features are split, and by how many zeros they are filled up for it."""
    parts = -(-features // FEATURES)
    return parts, -features % parts
