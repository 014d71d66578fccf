"""What criteria look at besides the weights, gathered in one compiled pass over data: gradients, curvature, inputs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune.deciding.methods import BoundMethod
from tfprune.deciding.salience import DataCriterion, Movement
from tfprune.errors import PruningError, listing
from tfprune.model.activations import activated, has_activation, observed
from tfprune.model.copying import clone_with_weights
from tfprune.model.data import Batch, batches
from tfprune.model.prunable import PrunableWeight, every_weight
from tfprune.model.regression import LinearForm, linear_form
from tfprune.model.tree import places


@dataclass(frozen=True)
class Statistics:
    """What was gathered.

    Attributes:
        extras: Key of a weight -> name of the statistic -> array of the weight's shape.
        batches: How many batches were read; 0 where no data are needed.
        samples: How many samples they held.
    """

    extras: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    batches: int = 0
    samples: int = 0

    def __str__(self) -> str:
        return f"{len(self.extras)} weights, from {self.samples} samples in {self.batches} batches"


def gather(model: keras.Model, keys: Iterable[str], criterion: DataCriterion, data: Any = None) -> Statistics:
    """Gathers what a criterion needs for some weights of a model; the model is left as it is.

    Args:
        model: A built model.
        keys: Keys of the weights.
        criterion: Says what it needs, and with which loss.
        data: Anything that `fit` takes; with targets where the criterion uses a loss.

    Raises:
        PruningError: No data, targets missing or not fitting, no loss, a loss that is NaN, or a weight for which the
            statistic is not defined.
    """
    copy = clone_with_weights(model)
    by_key = {weight.key: weight for weight in every_weight(copy)}
    weights = [by_key[key] for key in keys]
    if criterion.needs == "synaptic_flow":
        return Statistics({w.key: {criterion.needs: flow} for w, flow in zip(weights, _synaptic_flow(copy, weights))})
    purpose = repr(criterion)
    kind = _Slopes if criterion.uses_loss else _Reach
    step = kind(copy, weights, criterion)
    totals: list[np.ndarray] = []
    count = samples = 0
    for batch in _shown(batches(data, copy, purpose), purpose):
        found = step(batch)
        totals = [total + new for total, new in zip(totals, found)] if totals else found
        count, samples = count + 1, samples + batch.size
    arrays = step.finish(totals, count)
    return Statistics({w.key: {criterion.needs: array} for w, array in zip(weights, arrays)}, count, samples)


def inform(bound: BoundMethod, model: keras.Model, data: Any = None) -> Statistics:
    """Gives a bound method what its criterion needs to know of the data; nothing where it looks at weights alone."""
    criterion = bound.method.criterion
    if not isinstance(criterion, DataCriterion) or isinstance(criterion, Movement):
        return Statistics()
    found = gather(model, [weight.key for weight in bound.scored], criterion, data)
    bound.extras = found.extras
    return found


class _Slopes:
    """Gradients of the loss and what follows from them, for each batch."""

    def __init__(self, model: keras.Model, weights: Sequence[PrunableWeight], criterion: DataCriterion):
        import tensorflow as tf

        if criterion.loss is None and not model.compiled:
            raise PruningError(
                f"{criterion!r} needs a loss, but '{model.name}' is not compiled. Compile it, or name the loss: "
                f'{type(criterion).__name__}(loss="sparse_categorical_crossentropy").'
            )
        self.model, self.criterion = model, criterion
        self.variables = [weight.variable.value for weight in weights]
        self.signs = tf.random.Generator.from_seed(0)
        self._step = tf.function(self._gradients, reduce_retracing=True, autograph=False)

    def __call__(self, batch: Batch) -> list[np.ndarray]:
        if batch.targets is None:
            raise PruningError(f"{self.criterion!r} needs targets for its loss; write data=(x, y).")
        try:
            loss, found = self._step(batch.inputs, batch.targets, batch.weights)
        except (ValueError, TypeError) as error:
            raise PruningError(
                f"{self.criterion!r}: the loss cannot be computed for targets of shape "
                f"{[tuple(np.shape(target)) for target in keras.tree.flatten(batch.targets)]}. "
                f"{str(error).splitlines()[-1].strip()}"
            ) from error
        if not np.isfinite(loss):
            raise PruningError(
                f"{self.criterion!r}: the loss is {float(loss)} on a batch of the data, so no importance follows from "
                "it. Look for NaN in the inputs or the weights."
            )
        return [np.asarray(array, np.float32) for array in found]

    def finish(self, totals: list[np.ndarray], count: int) -> list[np.ndarray]:
        return [total / count for total in totals]

    def _loss(self, inputs: Any, targets: Any, sample_weight: Any) -> Any:
        outputs = self.model(inputs, training=False)
        if self.criterion.loss is None:
            return self.model.compute_loss(inputs, targets, outputs, sample_weight, training=False)
        return keras.ops.mean(keras.losses.get(self.criterion.loss)(targets, outputs))

    def _gradients(self, inputs: Any, targets: Any, sample_weight: Any) -> Any:
        import tensorflow as tf

        def slope(tape: Any, value: Any) -> list[Any]:
            found = tape.gradient(value, self.variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return [tf.convert_to_tensor(gradient) for gradient in found]  # embeddings give slices

        needs = self.criterion.needs
        with tf.GradientTape() as outer:
            outer.watch(self.variables)
            with tf.GradientTape() as inner:
                inner.watch(self.variables)
                loss = self._loss(inputs, targets, sample_weight)
            gradients = slope(inner, loss)
            if needs == "curvature":
                signs = [self._signs(gradient) for gradient in gradients]
            else:
                signs = [tf.stop_gradient(gradient) for gradient in gradients]
            along = tf.add_n([tf.reduce_sum(g * sign) for g, sign in zip(gradients, signs)])
        if needs == "gradient":
            return loss, gradients
        if needs == "squared_gradient":
            return loss, [gradient * gradient for gradient in gradients]
        products = slope(outer, along)  # Hessian x signs, or Hessian x gradient
        if needs == "curvature":
            return loss, [sign * product for sign, product in zip(signs, products)]
        return loss, products

    def _signs(self, like: Any) -> Any:
        import tensorflow as tf

        draw = self.signs.uniform(tf.shape(like), 0, 2, tf.int32)
        return tf.cast(2 * draw - 1, like.dtype)


class _Reach:
    """What reaches a layer's kernel, or leaves the layer, for each batch."""

    def __init__(self, model: keras.Model, weights: Sequence[PrunableWeight], criterion: DataCriterion):
        import tensorflow as tf

        self.model, self.needs, self.criterion = model, criterion.needs, criterion
        self.shapes = [weight.shape for weight in weights]
        self.layers = [weight.place.layer for weight in weights]
        ends = activated(model, self.layers)
        self.ends = [ends[id(layer)] for layer in self.layers]
        forms = [linear_form(weight) for weight in weights]
        unknown = [weight.key for weight, form in zip(weights, forms) if form is None]
        if unknown:
            raise PruningError(
                f"{criterion!r} is not defined for {listing(unknown)}, which multiply their inputs in another way than "
                'dense and convolution layers do; leave them out with layers=, or use "magnitude" or "taylor".'
            )
        self.forms: list[LinearForm] = [form for form in forms if form is not None]
        self._step = tf.function(self._reached, reduce_retracing=True, autograph=False)

    def __call__(self, batch: Batch) -> list[np.ndarray]:
        return [np.asarray(array, np.float64) for array in self._step(batch.inputs)]

    def finish(self, totals: list[np.ndarray], count: int) -> list[np.ndarray]:
        return [self._in_shape(form, total / count) for form, total in zip(self.forms, totals)]

    def _in_shape(self, form: LinearForm, mean: np.ndarray) -> np.ndarray:
        groups, features, outputs = form.to_matrix(np.empty(form.kernel_shape, np.bool_)).shape
        if self.needs == "input_scale":
            matrix = np.sqrt(mean)[:, :, None]
        else:
            matrix = mean.reshape(groups, 1, outputs) / features
        return form.to_kernel(np.broadcast_to(matrix, (groups, features, outputs))).astype(np.float32)

    def _reached(self, inputs: Any) -> Any:
        import tensorflow as tf

        given: dict[int, list[Any]] = {id(layer): [] for layer in self.layers}
        result: dict[int, list[Any]] = {id(layer): [] for layer in self.ends}

        def record(layer: keras.Layer, taken: Any, outputs: Any) -> None:
            given.setdefault(id(layer), []).append(taken)
            result.setdefault(id(layer), []).append(outputs)

        with observed({id(layer): layer for layer in [*self.layers, *self.ends]}.values(), record):
            self.model(inputs, training=False)
        found = []
        for layer, end, form in zip(self.layers, self.ends, self.forms):
            if self.needs == "input_scale":
                rows = tf.concat([form.rows(taken) for taken in given[id(layer)]], axis=1)
                found.append(tf.reduce_mean(tf.square(tf.cast(rows, tf.float32)), axis=1))
            else:
                calls = result[id(end)]
                sizes = [_size(self.criterion, form, has_activation(end), outputs) for outputs in calls]
                found.append(tf.add_n(sizes) / len(calls))
        return found


def _size(criterion: DataCriterion, form: LinearForm, is_activated: bool, outputs: Any) -> Any:
    """The measure of each output channel; they lie along the last axes, in the order of the kernel."""
    ops = keras.ops
    if getattr(form.layer, "data_format", None) == "channels_first":
        outputs = ops.moveaxis(outputs, 1, -1)
    groups, _, channels = form.to_matrix(np.empty(form.kernel_shape, np.bool_)).shape
    flat = ops.reshape(ops.cast(outputs, "float32"), (-1, groups * channels))
    measure = getattr(criterion, "measure", "mean")
    if measure == "nonzero":
        return ops.mean(ops.cast(ops.not_equal(flat, 0) if is_activated else flat > 0, "float32"), axis=0)
    if measure == "percentile":
        return ops.quantile(ops.abs(flat), getattr(criterion, "percentile", 90.0) / 100.0, axis=0)
    return ops.mean(ops.abs(flat), axis=0)


def _synaptic_flow(model: keras.Model, weights: Sequence[PrunableWeight]) -> list[np.ndarray]:
    """The gradient of the sum of outputs, for an input of ones and absolute weights."""
    import tensorflow as tf

    if not getattr(model, "inputs", None):
        raise PruningError(f"SynapticFlow needs to know the inputs of '{model.name}'; write it as keras.Model.")
    ones = [tf.ones([size or 1 for size in tensor.shape], tensor.dtype) for tensor in model.inputs]
    for place in places(model):
        if getattr(place.layer, "activation", None) is keras.activations.softmax:
            place.layer.activation = keras.activations.linear  # the sum of a softmax is 1, whatever flows into it
    for weight in every_weight(model):
        weight.variable.assign(np.abs(weight.variable))
    variables = [weight.variable.value for weight in weights]
    with tf.GradientTape() as tape:
        tape.watch(variables)
        outputs = model(ones[0] if len(ones) == 1 else ones, training=False)
        total = tf.add_n([tf.reduce_sum(output) for output in keras.tree.flatten(outputs)])
    found = tape.gradient(total, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [np.asarray(tf.convert_to_tensor(gradient), np.float32) for gradient in found]


def _shown(read: Iterable[Batch], description: str) -> Iterable[Batch]:
    """The same batches, with a progress bar where a terminal can show one."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(read, description, console=console, transient=True, disable=not console.is_terminal)
