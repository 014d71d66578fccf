"""The one reader of data: every form that `fit` takes, as batches of inputs, targets and sample weights.

What data mean is the same everywhere. A tuple is `(inputs, targets)` or `(inputs, targets, weights)`. Several inputs
are a list in the model's order, or a dict with their names. Whole arrays are cut into batches; all else is iterated,
and gives batches, or single samples, to which a first axis is added.

One case is told by the model: where it takes several inputs and a tuple begins with a single array, which cannot be all
of them, the tuple itself is the inputs. So `yield a, b`, as generators for TFLite have it, and rows of a
`tf.data.Dataset`, which holds no lists, are read as they are meant.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.errors import PruningError, listing, nearest
from tfprune.model.signature import Input, Signature, recorded_signature

BATCH_SIZE = 128


def real_array(value: Any, name: str) -> np.ndarray:
    """An array of real numbers or truth values.

    Args:
        value: An array, a tensor, or nested lists of numbers.
        name: What it is, the subject of the message.

    Raises:
        PruningError: It is ragged, or holds texts, objects or complex numbers.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise PruningError(f"{name} cannot be read as one array: {error}") from error
    if array.dtype.kind in "biuf" or array.dtype.name.startswith(("bfloat", "float8")):
        return array
    raise PruningError(f"{name} must be real numbers, and {array.dtype.name} came: {array.reshape(-1)[:1]}.")


class Batch(NamedTuple):
    """Some samples, inputs as the model takes them; `targets` and `weights` are None where the data have none."""

    inputs: Any
    targets: Any = None
    weights: Any = None

    @property
    def size(self) -> int:
        """The number of samples."""
        return int(keras.tree.flatten(self.inputs)[0].shape[0])

    def taken(self, rows: slice | np.ndarray) -> "Batch":
        """Some of the samples, by a slice or by their numbers."""

        def part(array: Any) -> Any:
            return None if array is None else (array if isinstance(rows, slice) else np.asarray(array))[rows]

        return Batch(*keras.tree.map_structure(part, tuple(self)))


def batches(
    data: Any,
    takes: keras.Model | Signature,
    purpose: str,
    batch_size: int = BATCH_SIZE,
    argument: str = "data",
    at_most: int | None = None,
) -> Iterator[Batch]:
    """Reads data batch by batch, once, each checked against the inputs of a model.

    Args:
        data: An array, or a list or dict of arrays for several inputs, alone or in a tuple `(x, y)` or `(x, y, w)`; a
            `tf.data.Dataset`, a Keras `PyDataset`, a generator or another iterable of any of these forms, batched or
            not; or a function that makes one.
        takes: The model that will read them, or its signature.
        purpose: What needs the data, the subject of the messages (`"reconstruct='obs'"`).
        batch_size: Samples in a batch of arrays; other data come in batches already.
        argument: How the caller calls the data.
        at_most: How many samples are wanted, the first; the data may then be endless.

    Raises:
        PruningError: No data, endless data, or inputs that do not fit the model.
    """
    reader = _Reader(takes, purpose, argument)
    seen = 0
    for found in reader.read(data, batch_size, at_most is not None):
        too_many = at_most is not None and seen + found.size > at_most
        batch = found.taken(slice(at_most - seen)) if too_many else found  # type: ignore[operator]
        seen += batch.size
        if batch.size:
            yield batch
        if seen == at_most:
            return
    if not seen:
        used_up = " The generator is used up: give the function that makes it, or a list."
        raise PruningError(
            f"{purpose} was given no samples: {argument} is empty.{used_up if isinstance(data, Iterator) else ''}"
        )


def finite(found: Iterable[Batch], purpose: str, argument: str = "data") -> Iterator[Batch]:
    """Batches as they are, while their inputs hold no NaN and nothing infinite.

    Raises:
        PruningError: They do.
    """
    for number, batch in enumerate(found):
        for array in keras.tree.flatten(batch.inputs):
            values = np.asarray(array)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise PruningError(
                    f"{purpose}: {argument} holds NaN or infinite values, in batch {number}. Take those samples out."
                )
        yield batch


def whole_batch(data: Any, takes: keras.Model | Signature, purpose: str, argument: str = "data") -> Batch | None:
    """All data as one batch where they are whole arrays; None where they have to be iterated.

    Args:
        data: As for `batches`, which reads the result as it reads them.
        takes: The model that will read them, or its signature.
        purpose: What needs the data.
        argument: How the caller calls the data.

    Raises:
        PruningError: No data, or inputs that do not fit the model.
    """
    return _Reader(takes, purpose, argument).whole(data)


def input_specs(collected: Sequence[Batch]) -> Any:
    """What a compiled function has to expect as inputs, so that it is traced once for all batches."""
    import tensorflow as tf

    def spec(*arrays: Any) -> Any:
        sizes = [set(size) for size in zip(*(array.shape for array in arrays))]
        shape = [None, *(size.pop() if len(size) == 1 else None for size in sizes[1:])]
        return tf.TensorSpec(shape, tf.as_dtype(arrays[0].dtype))

    return keras.tree.map_structure(spec, *(batch.inputs for batch in collected))


def joined(parts: Iterable[Any]) -> Any:
    """One part of all batches as whole arrays; None where there is none."""

    def join(*arrays: Any) -> Any:
        return None if arrays[0] is None else np.concatenate([np.asarray(each) for each in arrays])

    return keras.tree.map_structure(join, *parts)


class _Reader:
    """Reads data for one model; a subclassed one does not say what it takes, so its data stay as they are."""

    def __init__(self, takes: keras.Model | Signature, purpose: str, argument: str):
        self.signature = takes if isinstance(takes, Signature) else recorded_signature(takes)
        self.inputs: Sequence[Input] = self.signature.inputs if self.signature else ()
        self.purpose, self.argument = purpose, argument

    def read(self, data: Any, batch_size: int, may_be_endless: bool) -> Iterator[Batch]:
        whole = self.whole(data)
        fixed = {given.shape[0] for given in self.inputs if given.shape[0] is not None}
        if whole is None:
            found = (self._batch(element) for element in self._elements(data, may_be_endless))
        else:
            size = fixed.pop() if len(fixed) == 1 else batch_size
            found = (whole.taken(slice(start, start + size)) for start in range(0, whole.size, size))
        for batch in found:
            self._check_size(batch)
            yield batch

    def whole(self, data: Any) -> Batch | None:
        if data is None:
            name = self.argument
            raise PruningError(
                f"{self.purpose} needs data: write {name}=x, {name}=(x, y) or {name}=dataset; {name} is None."
            )
        if isinstance(data, list):
            if not data or not all(map(_is_array, data)):
                return None
            # To a model of one input, a list of several arrays that each fit it is a list of batches or of samples.
            one = len(self.inputs) == 1 and len(data) > 1
            several = one and all(_fits_somehow(array.shape, self.inputs[0].shape) for array in data)
            return None if several else self._batch(data, whole=True)
        return self._batch(data, whole=True) if isinstance(data, (Mapping, tuple)) or _is_array(data) else None

    def _elements(self, data: Any, may_be_endless: bool) -> Iterable[Any]:
        if isinstance(data, keras.utils.PyDataset):
            if data.num_batches is None and not may_be_endless:
                raise PruningError(
                    f"{self.purpose} needs data that end; this PyDataset has no length. Give it __len__."
                )
            return (data[index] for index in (itertools.count() if data.num_batches is None else range(len(data))))
        if callable(data) and not isinstance(data, Iterable):
            data = data()
        if not isinstance(data, Iterable) or isinstance(data, (str, bytes)):
            raise PruningError(
                f"{self.purpose} cannot read this: {self.argument} is {type(data).__name__}. Give an array, a list or "
                "dict of arrays for several inputs, a tuple (x, y), a tf.data.Dataset, a PyDataset, or a generator."
            )
        if hasattr(data, "cardinality") and int(data.cardinality()) == -1 and not may_be_endless:
            raise PruningError(f"{self.purpose} needs data that end; write {self.argument}=dataset.take(10).")
        return data

    def _batch(self, element: Any, whole: bool = False) -> Batch:
        inputs, targets, weights = (_as_arrays(part) for part in self._parts(element))
        if self.signature is None:
            self._check_counts(keras.tree.flatten(inputs), targets, weights)
            return Batch(inputs, targets, weights)
        arrays = self._in_order(inputs)
        given = [(array, spec) for array, spec in zip(arrays, self.inputs) if array is not None]
        if all(_fits(array.shape, spec.shape[1:]) and not (whole and _lacks_one(array, spec)) for array, spec in given):
            arrays, targets, weights = keras.tree.map_structure(_with_axis, (arrays, targets, weights))
        else:
            for array, spec in given:
                if not _fits(array.shape[1:], spec.shape[1:]) and not _lacks_one(array, spec):
                    raise PruningError(f"{self.purpose}: {misfit(array.shape, spec, self.argument)}")
        self._check_counts(arrays, targets, weights)
        packed = keras.tree.map_structure(lambda number: arrays[number], self.signature.structure)
        return Batch(packed, targets, weights)

    def _parts(self, element: Any) -> Sequence[Any]:
        """Inputs, targets and sample weights of an element: here alone it is decided what a tuple means."""
        if not isinstance(element, tuple):
            return element, None, None
        if len(self.inputs) > 1 and element and _is_array(element[0]):
            return list(element), None, None
        if not 1 <= len(element) <= 3:
            raise PruningError(
                f"{self.purpose}: a tuple in {self.argument} has {len(element)} parts; it is (inputs, targets) or "
                "(inputs, targets, weights). Several inputs are a list or a dict: ([a, b], y)."
            )
        return (*element, None, None)[:3]

    def _in_order(self, inputs: Any) -> list[Any]:
        """The arrays of all inputs in the model's order."""
        if isinstance(inputs, Mapping):
            if all(given.name in inputs for given in self.inputs):
                return [_as_arrays(inputs[given.name]) for given in self.inputs]
            if not _same_structure(inputs, self.signature.structure):  # type: ignore[union-attr]
                raise PruningError(self._unnamed(inputs))
        arrays = keras.tree.flatten(inputs)
        if len(arrays) != len(self.inputs):
            came = "one array" if len(arrays) == 1 else f"{len(arrays)} arrays"
            known = listing(given.name for given in self.inputs)
            advice = "Give a dict with these names, or a list in this order."
            if len(self.inputs) == 1:
                advice = f"For data with targets write a tuple: {self.argument}=(x, y)."
            raise PruningError(
                f"{self.purpose}: an element of {self.argument} holds {came}, but the model takes {len(self.inputs)} "
                f"input{'s' * (len(self.inputs) != 1)}: {known}. {advice}"
            )
        return arrays

    def _unnamed(self, inputs: Mapping[str, Any]) -> str:
        missing = next(given.name for given in self.inputs if given.name not in inputs)
        likeness = nearest(missing, [str(key) for key in inputs])
        likeness = likeness.replace("Did you mean", "Is it called") if likeness.startswith("Did you mean") else ""
        return (
            f"{self.purpose}: {self.argument} lacks the input '{missing}'; it has {listing(inputs)}. The model takes "
            f"{listing(known.name for known in self.inputs)}. {likeness}".rstrip()
        )

    def _check_counts(self, arrays: Sequence[Any], targets: Any, weights: Any) -> None:
        named = [(given.name, array) for given, array in zip(self.inputs, arrays)]
        for name, part in (("inputs", [] if named else arrays), ("targets", targets), ("weights", weights)):
            found = keras.tree.flatten(part)
            named += [(name if len(found) == 1 else f"{name} {index}", array) for index, array in enumerate(found)]
        counts = {name: int(array.shape[0]) for name, array in named if array is not None and len(array.shape)}
        sizes = sorted(set(counts.values()))
        if len(sizes) > 1:
            raise PruningError(
                f"{self.purpose} was given arrays of {' and '.join(map(str, sizes))} samples, and all must be of the "
                f"same length; {self.argument} has different numbers of samples: {counts}."
            )

    def _check_size(self, batch: Batch) -> None:
        for given in self.inputs:
            if given.shape[0] not in (None, batch.size):
                raise PruningError(
                    f"{self.purpose} was given a batch of {batch.size} samples, but the model takes {given.shape[0]} "
                    f"at a time: its input '{given.name}' has shape {given.shape}. Give batches of that size."
                )


def misfit(shape: Sequence[int], given: Input, what: str) -> str:
    """What to say of an array of this shape that an input of a model does not take, with what may help."""
    shape, sample = tuple(shape), given.shape[1:]
    return (
        f"{what} for input '{given.name}' has shape {shape}, but a sample of the model has shape {_text(sample)}, and "
        f"a batch {_text((None, *sample))}.{_shape_hint(shape, sample)}"
    )


def _shape_hint(shape: tuple[int, ...], sample: tuple[int | None, ...]) -> str:
    if sample and sample[-1] == 1 and (_fits(shape[1:], sample[:-1]) or _fits(shape, sample[:-1])):
        return " Add the channel axis: x[..., None]."
    if len(sample) == 3 and (_fits((*shape[-2:], shape[-3]) if len(shape) >= 3 else (), sample)):
        return " Its channels come first; move them last: np.moveaxis(x, -3, -1)."
    if len(sample) == 1 and sample[0] is not None and int(np.prod(shape[1:])) == sample[0]:
        return f" Flatten it: x.reshape(len(x), {sample[0]})."
    if len(shape) == len(sample) + 2:
        return " It has one axis too many: is it batched twice?"
    return ""


def _text(shape: Sequence[int | None]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)}{',' * (len(shape) == 1)})"


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(size is None or size == came for size, came in zip(wanted, shape))


def _lacks_one(array: Any, given: Input) -> bool:
    """Whether a batch lacks the last axis of 1, which Keras adds by itself."""
    return given.shape[-1] == 1 and len(given.shape) > 1 and _fits(array.shape[1:], given.shape[1:-1])


def _fits_somehow(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return _fits(shape, wanted[1:]) or _fits(shape[1:], wanted[1:])


def _with_axis(array: Any) -> Any:
    return None if array is None else np.asarray(array)[None]


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape")


def _as_arrays(part: Any) -> Any:
    """A part of a batch with arrays for what is none yet, as lists of numbers."""
    if isinstance(part, Mapping):
        return {name: _as_arrays(entry) for name, entry in part.items()}
    if isinstance(part, (list, tuple)) and any(_is_array(leaf) for leaf in keras.tree.flatten(part)):
        return [_as_arrays(entry) for entry in part]
    return part if part is None or hasattr(part, "dtype") else np.asarray(part)


def _same_structure(first: Any, second: Any) -> bool:
    try:
        keras.tree.assert_same_structure(first, second)
    except (ValueError, TypeError):
        return False
    return True
