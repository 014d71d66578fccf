"""Reading data for a model: arrays, datasets and generators, checked against its inputs and brought into one form.

The error messages are half of this file: data that calibrate a model wrongly give a file that converts, runs, and is
wrong, so whatever can be seen in the data themselves is said before the conversion begins.
"""

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.errors import PruningError, listing, nearest
from tfprune.model.native import reason_of
from tfprune.model.signature import Input, Signature, flat_outputs
from tfprune.model.tree import as_array

CHUNK = 64
FEWEST = 4
USED = 500
ADVICE = "100 to 500 inputs of the kind the model will meet are enough"


class Batch(NamedTuple):
    """Samples for every input of a model, in its order, and their labels where the data have any."""

    arrays: list[np.ndarray]
    labels: Any = None


class Calibration(NamedTuple):
    """Single samples for the converter to run, each with a batch axis of one; what to say about them; and what the
    model answers to the first of them."""

    samples: list[list[np.ndarray]]
    notes: list[str]
    answers: Sequence[np.ndarray] = ()


def calibration(data: Any, signature: Signature, model: keras.Model, what: str = "representative_data") -> Calibration:
    """Reads and checks representative data.

    At most 500 samples are used: of arrays evenly spaced ones, of a stream the first.

    Args:
        data: An array; a list or dict of arrays for several inputs; a `tf.data.Dataset` of x, (x, y) or dicts; a Keras
            `PyDataset`; a generator, or a function that returns one. Batched or not.
        signature: The inputs of the model.
        model: The model, which is run on the first samples to see that they go through.
        what: How the messages call the data.

    Raises:
        PruningError: The data are empty or too few, of another shape or type, hold NaN or infinity, are all equal, lack
            an input, or do not run through the model.
    """
    inputs = signature.inputs
    total = _length(data, inputs)
    chosen = set(np.linspace(0, total - 1, USED).round().astype(int)) if total and total > USED else None
    samples: list[list[np.ndarray]] = []
    position = 0
    for batch in batches(data, inputs, what):
        for row in range(len(batch.arrays[0])):
            if chosen is None or position in chosen:
                samples.append([array[row : row + 1] for array in batch.arrays])
            position += 1
        if len(samples) >= USED:
            break
    samples = samples[:USED]
    if len(samples) < FEWEST:
        raise PruningError(
            f"{what} holds {len(samples)} sample{'s' * (len(samples) != 1)}, too few to learn the ranges of the "
            f"activations from; at least {FEWEST} are needed, and {ADVICE}."
        )
    if all(np.array_equal(array, first) for sample in samples for array, first in zip(sample, samples[0])):
        raise PruningError(f"The {len(samples)} samples of {what} are all equal, so they show no range; {ADVICE}.")
    answers = _answers(samples, signature, model, what)
    _warn_of_scale(samples, inputs, model, what)
    used = f"Calibrated on {len(samples):,} samples"
    more = f" of {total:,}" if chosen is not None else ", the first of more" if len(samples) == USED != total else ""
    return Calibration(samples, [f"{used}{more}."], answers)


def batches(data: Any, inputs: Sequence[Input], what: str = "data") -> Iterator[Batch]:
    """The samples of data in any accepted form, in batches, each array checked against the model's input.

    Args:
        data: As for `calibration`.
        inputs: The inputs of the model.
        what: How the messages call the data.

    Raises:
        PruningError: Something is wrong with the data; the message says what.
    """
    if data is None:
        raise PruningError(f"{what} is None; {ADVICE}.")
    seen = 0
    for batch in _pieces(data, inputs, what):
        arrays = [_as_input(array, given, what, seen) for array, given in zip(batch.arrays, inputs)]
        counts = {given.name: len(array) for array, given in zip(arrays, inputs)}
        if len(set(counts.values())) > 1:
            raise PruningError(f"The inputs in {what} have different numbers of samples: {counts}.")
        seen += len(arrays[0])
        yield Batch(arrays, batch.labels)
    if not seen:
        used_up = hasattr(data, "__next__")
        hint = " The generator is used up: give the function that makes it, or a list." if used_up else ""
        raise PruningError(f"{what} is empty.{hint}")


def _length(data: Any, inputs: Sequence[Input]) -> int | None:
    """The number of samples where it is known before reading them."""
    whole = _whole_arrays(data, inputs)
    if whole is None or np.ndim(whole[0]) != len(inputs[0].shape):
        return None
    return len(whole[0])


def _pieces(data: Any, inputs: Sequence[Input], what: str) -> Iterator[Batch]:
    whole = _whole_arrays(data, inputs)
    if whole is not None or isinstance(data, Mapping):
        labels = data[1] if isinstance(data, tuple) and whole is not None and whole[0] is data[0] else None
        arrays = [np.asarray(array) for array in (whole or _by_name(data, inputs, what))]
        if any(array.ndim != len(given.shape) for array, given in zip(arrays, inputs)):
            yield Batch(list(arrays))
            return
        for start in range(0, max(len(array) for array in arrays), CHUNK):
            part = slice(start, start + CHUNK)
            yield Batch([array[part] for array in arrays], None if labels is None else np.asarray(labels)[part])
        return
    for element in _elements(data, what):
        yield _element(element, inputs, what)


def _whole_arrays(data: Any, inputs: Sequence[Input]) -> list[Any] | None:
    """The arrays of all samples, one per input, where the data are such; None where they must be iterated."""
    if isinstance(data, Mapping):
        names = [given.name for given in inputs]
        return [data[name] for name in names] if all(name in data for name in names) else None
    if _is_array(data):
        return [data] if len(inputs) == 1 else None
    if isinstance(data, (list, tuple)) and data and all(_is_array(item) for item in data):
        ranks = [np.ndim(item) for item in data]
        if len(data) == len(inputs) and ranks == [len(given.shape) for given in inputs]:
            return list(data)
        if isinstance(data, tuple) and len(inputs) == 1 and len(data) == 2 and ranks[0] == len(inputs[0].shape):
            return [data[0]]
    return None


def _elements(data: Any, what: str) -> Iterable[Any]:
    if isinstance(data, keras.utils.PyDataset):
        return (data[index] for index in range(len(data)))
    if callable(data) and not isinstance(data, Iterable):
        data = data()
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes)):
        raise PruningError(
            f"{what} is {type(data).__name__}. Give an array, a list or dict of arrays, a tf.data.Dataset, or a "
            "generator of samples."
        )
    return data


def _element(element: Any, inputs: Sequence[Input], what: str) -> Batch:
    """One element of a stream, as `fit` takes them: x, (x, y), (x, y, weights), a list of inputs, or a dict."""
    labels = None
    if isinstance(element, tuple) and element and (len(inputs) == 1 or not _is_array(element[0])):
        labels = element[1] if len(element) > 1 else None
        element = element[0]
    if isinstance(element, Mapping):
        return Batch(_by_name(element, inputs, what), labels)
    if isinstance(element, (list, tuple)) and len(element) == len(inputs):
        return Batch([np.asarray(part) for part in element], labels)
    if len(inputs) > 1:
        came = f"{len(element)} arrays" if isinstance(element, (list, tuple)) else "one array"
        raise PruningError(
            f"An element of {what} holds {came}, but the model takes {len(inputs)} inputs: "
            f"{listing(given.name for given in inputs)}. Give a dict with these names, or a list in this order."
        )
    return Batch([np.asarray(element)], labels)


def _by_name(arrays: Mapping[str, Any], inputs: Sequence[Input], what: str) -> list[np.ndarray]:
    for given in inputs:
        if given.name not in arrays:
            raise PruningError(
                f"{what} lacks the input '{given.name}'; it has {listing(arrays)}. The model takes "
                f"{listing(known.name for known in inputs)}. {_likeness(given.name, arrays)}".rstrip()
            )
    return [np.asarray(arrays[given.name]) for given in inputs]


def _likeness(name: str, known: Iterable[Any]) -> str:
    text = nearest(name, [str(key) for key in known])
    return text.replace("Did you mean", "Is it called") if text.startswith("Did you mean") else ""


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) or (hasattr(value, "__array__") and hasattr(value, "shape"))


def _as_input(array: np.ndarray, given: Input, what: str, seen: int) -> np.ndarray:
    """An array for one input: checked, with a batch axis, in the input's type."""
    array = _with_batch_axis(array, given, what)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise PruningError(
            f"{what} for input '{given.name}' has dtype {array.dtype}, which holds no numbers; {given.dtype} is wanted."
        )
    if array.dtype.kind in "iub":
        return array.astype(given.dtype)
    bad = ~np.isfinite(array.astype(np.float32)).reshape(len(array), -1).all(axis=1)
    if bad.any():
        raise PruningError(
            f"{what} for input '{given.name}' holds NaN or infinite values in {int(bad.sum())} of the {len(array)} "
            f"samples read (first in sample {seen + int(bad.argmax())}). Repair or leave out these samples."
        )
    if np.dtype(given.dtype).kind in "iu" and (array != np.round(array)).any():
        raise PruningError(
            f"{what} for input '{given.name}' holds fractions (as {array[array != np.round(array)][0]:.6g}), but the "
            f"input takes {given.dtype}."
        )
    return array.astype(given.dtype)


def _with_batch_axis(array: np.ndarray, given: Input, what: str) -> np.ndarray:
    sample = given.shape[1:]
    if _fits(array.shape[1:], sample) and array.ndim == len(given.shape):
        return array
    if _fits(array.shape, sample) and array.ndim == len(sample):
        return array[None]
    raise PruningError(
        f"{what} for input '{given.name}' has shape {array.shape}, but a sample of the model has shape "
        f"{_text(sample)}, and a batch {_text((None, *sample))}.{_shape_hint(array.shape, sample)}"
    )


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(size is None or size == came for size, came in zip(wanted, shape))


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
    return (
        "(" + ", ".join("any" if size is None else str(size) for size in shape) + ("," if len(shape) == 1 else "") + ")"
    )


def _warn_of_scale(
    samples: Sequence[Sequence[np.ndarray]], inputs: Sequence[Input], model: keras.Model, what: str
) -> None:
    """Warns where the numbers look like pixels on another scale than the model's first layers suggest."""
    layers = getattr(model, "layers", [])
    scaling = [layer for layer in layers if isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization))]
    for index, given in enumerate(inputs):
        if given.dtype != "float32" or len(given.shape) != 4:
            continue
        lowest = min(float(sample[index].min()) for sample in samples)
        highest = max(float(sample[index].max()) for sample in samples)
        pixels = lowest >= 0 and 100 < highest <= 255
        shrinks = [
            layer for layer in scaling if isinstance(layer, keras.layers.Rescaling) and np.max(layer.scale) < 0.05
        ]
        if pixels and not scaling:
            _warn(
                f"{what} for input '{given.name}' lies in {lowest:g}..{highest:g} and '{model.name}' has no Rescaling "
                "or Normalization layer. If it was trained on x / 255, divide the data too."
            )
        elif shrinks and highest <= 1:
            _warn(
                f"{what} for input '{given.name}' lies in {lowest:g}..{highest:g}, but '{model.name}' divides its "
                f"input itself (layer '{shrinks[0].name}'). Give the data as they are before that."
            )


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=5)


def _answers(
    samples: Sequence[Sequence[np.ndarray]], signature: Signature, model: keras.Model, what: str, count: int = 16
) -> list[np.ndarray]:
    """What the model itself makes of the first samples; raises where it cannot run, or gives no finite numbers."""
    shapes = [array.shape for array in samples[0]]
    same = list(itertools.takewhile(lambda sample: [array.shape for array in sample] == shapes, samples[:count]))
    try:
        outputs = flat_outputs(signature.answers(model, [np.concatenate(arrays) for arrays in zip(*same)]))
    except Exception as error:  # whatever the user's layers raise
        raise PruningError(
            f"'{model.name}' cannot run on {what}: {reason_of(error)} Give what model.predict takes."
        ) from error
    arrays = [as_array(output) for output in outputs]
    if not all(np.isfinite(array).all() for array in arrays):
        raise PruningError(
            f"'{model.name}' gives NaN or infinite outputs on {what}. Look for NaN in its weights, and for inputs on "
            "another scale than it was trained on."
        )
    return arrays
