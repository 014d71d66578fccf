"""The graph of two traces: every call made again on tensors whose open sizes are open.

The layers are shallow copies that share their weights with the model, so that the graph always has its values. A weight
that a layer used by itself is the table of an Embedding, called on a constant index: Keras alone can read that from a
file, and train it.
"""

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.model import hooks
from tfprune.model.fresh import is_told_by_name
from tfprune.model.inline.answers import Flag
from tfprune.model.inline.operations import REMAKES
from tfprune.model.inline.reasons import CannotOpenError, line_named, reason_of
from tfprune.model.inline.sizes import InputSpec, Pair, Size, index_like, placed, zeros_along
from tfprune.model.inline.tracing import CallTrace, TracedCall
from tfprune.model.scores import scores_as_long_as_keys

# What a subclass may define and still compute what its base does.
HARMLESS = {"__init__", "get_config", "from_config", "build", "compute_output_shape", "compute_output_spec"}


class Building:
    """Makes the graph.

    Args:
        specs: The model's inputs.
        sizes: The sizes of their axes in the two traces.
        traces: The two traces.
        names: The name of each weight, by its id.
    """

    def __init__(
        self,
        specs: Sequence[InputSpec],
        sizes: Sequence[Sequence[Pair]],
        traces: tuple[CallTrace, CallTrace],
        names: Mapping[int, str],
    ):
        self.first, self.second = traces
        self.weight_names = names
        self.used: set[str] = {spec.name for spec in specs}
        self.copies: dict[int, Any] = {}
        self.tables: dict[int, tuple[Any, Any]] = {}  # by id of a weight: the weight, and the Embedding that holds it
        self.read: dict[int, Any] = {}
        self.inputs = [keras.Input(batch_shape=spec.shape, dtype=spec.dtype, name=spec.name) for spec in specs]
        self.values: dict[int, Any] = {id(old): new for old, new in zip(self.first.inputs, self.inputs)}
        self.named: dict[int, str] = {}
        self.paths: dict[int, str] = {}
        self.open: list[tuple[Pair, Any, int]] = []
        self.derived: dict[Pair, Size] = {}  # of what comes of inputs, as behind a convolution with strides
        for tensor, pairs in zip(self.inputs, sizes):
            for axis, pair in enumerate(pairs):
                if pair[0] != pair[1] and not any(pair == known for known, _, _ in self.open):
                    self.open.append((pair, tensor, axis))
        self._zero: Any = None
        layers = {id(step.operation): step for step in self.first.steps if isinstance(step.operation, keras.Layer)}
        self.holders = {id(variable): step for step in layers.values() for variable in step.operation.weights}

    @scores_as_long_as_keys()
    def outputs(self) -> Any:
        """Makes every call; gives the outputs in the structure of the model's.

        Raises:
            CannotOpenError: Names the layer whose call does what does not follow the open sizes.
        """
        first, second = self.first.steps, self.second.steps
        for a, b in zip(first, second):
            try:
                if type(a.operation) is not type(b.operation):
                    raise CannotOpenError("it does something else for other sizes")
                self._call(a, b)
            except Exception as error:
                reason = reason_of(error)
                line = line_named(*a.line)
                raise CannotOpenError(reason if reason.endswith(line) else reason + line, a.owner) from error
        if len(first) != len(second):
            raise CannotOpenError("it makes another number of steps for other sizes")
        last = TracedCall(None, (), {}, [], "the output", "", None)
        structure = _without_none(self.first.outputs)
        flat = [keras.tree.flatten(_without_none(each.outputs)) for each in (self.first, self.second)]
        new = [self.tensor(self.merged(one, two, last)) for one, two in zip(*flat)]
        return keras.tree.pack_sequence_as(structure, new)

    def name(self, path: str) -> str:
        """A name for a layer that no other has."""
        wanted = path.replace("/", ".") or "layer"
        name, count = wanted, 1
        while name in self.used:
            count += 1
            name = f"{wanted}_{count}"
        self.used.add(name)
        return name

    def open_size(self, one: Any, two: Any) -> Size | None:
        """The open size that is so large in the two traces, None where there is none."""
        if not isinstance(one, (int, np.integer)) or not isinstance(two, (int, np.integer)):
            return None
        one, two = int(one), int(two)
        for pair, tensor, axis in self.open:
            if (one, two) == pair:
                return Size(tensor, axis)
        if (one, two) in self.derived:
            return self.derived[one, two]
        for (first, second), tensor, axis in self.open:
            if axis and (one, two) == (2 * first, 2 * second):
                return Size(tensor, axis, times=2)
        for (first, second), tensor, axis in self.open:
            if axis and one - two == first - second and one > 0:
                return Size(tensor, axis, one - first)
        return None

    # Calls

    def _call(self, a: TracedCall, b: TracedCall) -> None:
        operation = a.operation
        remake = None if isinstance(operation, keras.Layer) else REMAKES.get(type(operation).__name__)
        result = remake(self, a, b) if remake else None
        if result is None:
            if not isinstance(operation, keras.Layer):
                _require_same_settings(operation, b.operation)
                if a.place:  # of a layer, which may stay closed
                    _require_known_functions(a)
            args, kwargs = self.arguments(a, b)
            result = self._copy(a)(*args, **kwargs)
        for tensor, other, new in zip(a.outputs, b.outputs, keras.tree.flatten(result), strict=True):
            self.values[id(tensor)] = new
            for axis, pair in enumerate(zip(tensor.shape, other.shape)):
                if pair[0] != pair[1]:
                    self.derived.setdefault(pair, Size(new, axis))
            maker = hooks.maker_of(new)
            self.named.setdefault(id(maker), a.path)
            self.paths.setdefault(id(maker), a.path if isinstance(operation, keras.Layer) else a.place)

    def _copy(self, step: TracedCall) -> Any:
        """A shallow copy of a layer or an operation, made once, with a name of its own and no calls yet."""
        operation = step.operation
        if id(operation) not in self.copies:
            made = hooks.shallow_copy(operation)
            if isinstance(operation, keras.Layer):
                made.__dict__["name"] = self.name(step.path)
                made.__class__ = _plain_class(type(operation))
            self.copies[id(operation)] = made
        return self.copies[id(operation)]

    def arguments(self, a: TracedCall, b: TracedCall) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of one call, with new tensors."""

        def both(one: Any, two: Any) -> Any:
            if isinstance(one, (list, tuple)):  # one that a layer holds is a list of Keras' own class
                entries = [both(x, y) for x, y in zip(one, two, strict=True)]
                if isinstance(one, list):
                    return entries
                return tuple(entries) if type(one) is tuple else type(one)(*entries)
            if isinstance(one, dict):
                return {key: both(value, two[key]) for key, value in one.items()}
            return self.merged(one, two, a)

        kwargs = {key: value for key, value in a.kwargs.items() if not isinstance(value, Flag)}
        args = tuple(both(x, y) for x, y in zip(a.args, b.args, strict=True))
        return args, {key: both(value, b.kwargs[key]) for key, value in kwargs.items()}

    def merged(self, one: Any, two: Any, step: TracedCall) -> Any:
        """What stands in the place of a value that a call took in the two traces."""
        if isinstance(one, keras.KerasTensor):
            return self._tensor_of(one, two, step)
        if isinstance(one, keras.Variable):
            return self.weight(one, keras.backend.standardize_dtype(one.dtype))
        if isinstance(one, (bool, str, type(None), type)) or callable(one):
            return one
        if isinstance(one, slice):
            ends = zip((one.start, one.stop, one.step), (two.start, two.stop, two.step))
            return slice(*(self.merged(x, y, step) for x, y in ends))
        if hasattr(one, "shape"):
            return self._array(np.asarray(one), np.asarray(two))
        if isinstance(one, (int, float)) and one != two and (one == one or two == two):
            raise CannotOpenError(f"a number in it depends on open sizes: {one} and {two} in two traces")
        return one

    def tensor(self, value: Any) -> Any:
        """A value as a symbolic tensor."""
        if isinstance(value, keras.KerasTensor):
            return value
        array = np.asarray(value)
        zero = keras.ops.cast(keras.ops.reshape(self.zero(), (1,) * array.ndim), str(array.dtype))
        return keras.ops.logical_or(zero, array) if array.dtype == bool else zero + array

    def _tensor_of(self, one: Any, two: Any, step: TracedCall) -> Any:
        if id(one) in self.values:
            return self.values[id(one)]
        if id(one) in self.first.variables:
            return self.weight(self.first.variables[id(one)], one.dtype)
        if id(one) in self.first.constants:
            return self.tensor(self.merged(self.first.constants[id(one)][1], self.second.constants[id(two)][1], step))
        raise CannotOpenError("it uses a tensor that does not come from the model's inputs")

    # Weights and constants

    def zero(self) -> Any:
        """One zero that hangs on the model's input, of a shape that is known."""
        if self._zero is None:
            entry = self.inputs[0][(0,) * len(self.inputs[0].shape)]
            self._zero = keras.ops.zeros_like(keras.ops.reshape(keras.ops.cast(entry, "int32"), (1,)))
        return self._zero

    def weight(self, variable: Any, dtype: str) -> Any:
        """The tensor of a weight that a layer uses by itself: all rows of an Embedding, in the weight's shape."""
        if id(variable) not in self.read:
            shape = tuple(variable.shape)
            if not keras.backend.is_float_dtype(variable.dtype):
                if variable.trainable:
                    raise CannotOpenError(f"it trains a weight of type {variable.dtype}, '{variable.path}'")
                self.read[id(variable)] = self.tensor(np.asarray(variable))
            else:
                layer = self._holder(variable) if id(variable) in self.holders else self._table(variable, dtype)
                value = layer(self.zero() + np.arange(layer.input_dim, dtype="int32"))
                self.read[id(variable)] = value if tuple(value.shape) == shape else keras.ops.reshape(value, shape)
        return self.read[id(variable)]

    def _holder(self, variable: Any) -> Any:
        """The Embedding that another layer reads the table of, as where the words at both ends are tied."""
        step = self.holders[id(variable)]
        if type(step.operation) is not keras.layers.Embedding or variable is not step.operation.embeddings:
            raise CannotOpenError(f"it computes with '{variable.path}', a weight of the layer '{step.path}'")
        return self._copy(step)

    def _table(self, variable: Any, dtype: str) -> Any:
        """The Embedding that holds a weight: a row for each place on the axes before the last."""
        shape = tuple(variable.shape)
        rows, width = (int(np.prod(shape[:-1], dtype=int)), shape[-1]) if shape else (1, 1)
        stored = keras.backend.standardize_dtype(variable.dtype)
        plain = dtype in (stored, "float32", "float64")  # one of float64 in a layer of float32 is rounded
        policy = dtype if plain else keras.DTypePolicy(f"mixed_{dtype}")
        layer = keras.layers.Embedding(
            rows,
            width,
            name=self.name(self.weight_names.get(id(variable), variable.path)),
            dtype=policy,
            trainable=variable.trainable,
        )
        layer.build()
        layer.embeddings.assign(np.asarray(variable).reshape(rows, width))
        self.tables[id(variable)] = (variable, layer)
        self.paths[id(layer)] = self.weight_names.get(id(variable), variable.path).rpartition("/")[0]
        return layer

    def _array(self, a: np.ndarray, b: np.ndarray) -> Any:
        """A constant, or what it is as a function of the open sizes."""
        if a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            return a
        if a.ndim != b.ndim or a.shape == b.shape:
            raise CannotOpenError(f"a constant of shape {a.shape} in it depends on open sizes")
        sizes = {axis: self.open_size(one, two) for axis, (one, two) in enumerate(zip(a.shape, b.shape)) if one != two}
        common = tuple(slice(0, min(one, two)) for one, two in zip(a.shape, b.shape))
        if None in sizes.values() or not np.array_equal(a[common], b[common]):
            raise CannotOpenError(
                f"a constant in it of shape {a.shape} and {b.shape} in two traces depends on open sizes"
            )
        known = {axis: size for axis, size in sizes.items() if size is not None}
        result = next((found for way in (_even, _counting, _band) if (found := way(a, b, known)) is not None), None)
        if result is None:
            raise CannotOpenError(f"a constant in it of shape {a.shape} changes along an open size")
        return result


def _even(a: np.ndarray, b: np.ndarray, sizes: Mapping[int, Size]) -> Any:
    """A constant that is the same all along its open axes."""
    if any((each != each.take([0], axis)).any() for each in (a, b) for axis in sizes):
        return None
    small = a[tuple(slice(0, 1) if axis in sizes else slice(None) for axis in range(a.ndim))]
    one, *others = (zeros_along(size, a.ndim, axis) for axis, size in sizes.items())
    zeros = keras.ops.cast(functools.reduce(keras.ops.subtract, others, one), str(small.dtype))
    return keras.ops.logical_or(zeros, small) if small.dtype == bool else keras.ops.subtract(small, zeros)


def _counting(a: np.ndarray, b: np.ndarray, sizes: Mapping[int, Size]) -> Any:
    """A constant that counts on in even steps along its only axis, apart from some of length 1."""
    lines, (axis, *others) = (a.ravel(), b.ravel()), sizes
    if others or a.shape[axis] != a.size or a.dtype.kind not in "iuf" or min(map(len, lines)) < 2:
        return None
    start, step = lines[0][0], lines[0][1] - lines[0][0]
    if not all(np.array_equal(each, start + step * np.arange(len(each))) for each in lines):
        return None
    return placed(keras.ops.cast(index_like(sizes[axis]), str(a.dtype)) * step + start, a.ndim, axis)


def _band(a: np.ndarray, b: np.ndarray, sizes: Mapping[int, Size]) -> Any:
    """A constant that is 1 on some diagonals of two open axes side by side, as below the first, or near it."""
    if len(sizes) != 2:
        return None
    (i, j), rank = sizes, a.ndim
    numbers = [np.arange(each.shape[i])[:, None] - np.arange(each.shape[j]) for each in (a, b)]
    seen = np.moveaxis(a, (i, j), (0, 1)).reshape(*numbers[0].shape, -1)[..., 0]
    if not seen.any():
        return None
    # A diagonal at the edge of the smaller one goes on in the larger.
    low, high = (int(edge(numbers[0][seen != 0])) for edge in (np.min, np.max))
    open_ends = low == numbers[0].min(), high == numbers[0].max()
    for each, places in zip((a, b), numbers):
        inside = (open_ends[0] | (places >= low)) & (open_ends[1] | (places <= high))
        shape = [each.shape[axis] if axis in sizes else 1 for axis in range(rank)]
        if not np.array_equal(each, np.broadcast_to(inside.reshape(shape), each.shape).astype(each.dtype)):
            return None
    rows, columns = (placed(index_like(sizes[axis]), rank, axis) for axis in (i, j))
    within = [] if open_ends[0] else [rows - columns >= low]
    within += [] if open_ends[1] else [rows - columns <= high]
    if not within:
        return None
    return keras.ops.cast(functools.reduce(keras.ops.logical_and, within), str(a.dtype))


def _require_same_settings(operation: Any, other: Any) -> None:
    for name, value in vars(operation).items():
        if name.startswith("_") or name == "name" or not isinstance(value, (int, float, str, tuple, list)):
            continue
        if value != vars(other)[name]:
            raise CannotOpenError(
                f"{type(operation).__name__}.{name} depends on open sizes: {value} and {vars(other)[name]} in two "
                "traces"
            )


def _require_known_functions(step: TracedCall) -> None:
    """Raises where an operation is told a function that Keras could not read from the file of the opened model."""
    for value in (*keras.tree.flatten((step.args, step.kwargs)), *vars(step.operation).values()):
        if not inspect.isfunction(value) or is_told_by_name(value):
            continue
        if keras.saving.get_registered_name(value) == value.__name__:
            raise CannotOpenError(
                f"it gives keras.ops.{type(step.operation).__name__.lower()} the function '{value.__name__}', which no "
                "file holds; write what it does for whole batches, or register it by "
                "keras.saving.register_keras_serializable"
            )


def _plain_class(kind: type) -> type:
    """The class of Keras that a class computes like, or the class itself."""
    for index, base in enumerate(kind.__mro__):
        if base.__module__.startswith("keras."):
            own = [(name, value) for cls in kind.__mro__[:index] for name, value in vars(cls).items()]
            above = {name for name, value in own if callable(value) or isinstance(value, property)}
            return base if above <= HARMLESS and base not in (keras.Layer, keras.Model) else kind
    return kind


def computes_like_keras(kind: type) -> bool:
    """Whether a class is one of Keras' own layers, or computes what one of them does."""
    return _plain_class(kind).__module__.startswith("keras.") and not issubclass(kind, keras.Model)


def _without_none(outputs: Any) -> Any:
    """Outputs without the entries of a dict that are None."""
    return {key: value for key, value in outputs.items() if value is not None} if isinstance(outputs, dict) else outputs
