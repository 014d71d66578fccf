"""What a Keras model takes and gives: the names, shapes and types of its ends, flat and in order."""

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.errors import PruningError, listing
from tfprune.model.native import silence

HALF_PRECISION = ("float16", "bfloat16")


class Input(NamedTuple):
    """One input of a Keras model; the first axis of `shape` counts samples, None is a length that may vary."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Signature:
    """The inputs of a Keras model, and how they are passed to it.

    Args:
        inputs: The inputs in flat order: that of a list, or of the sorted keys of a dict, as in Keras.
        structure: The same inputs as the model takes them, by number: `0`, `[0, 1]`, `{"image": 0, "text": 1}`.
        keywords: Whether the keys of `structure` are arguments of the model's own `call`.
    """

    inputs: tuple[Input, ...]
    structure: Any
    keywords: bool = False

    def call(self, model: keras.Model, tensors: Sequence[Any]) -> Any:
        """The model's outputs in inference, given its inputs in flat order."""
        packed = keras.tree.map_structure(lambda number: tensors[number], self.structure)
        return model(**packed, training=False) if self.keywords else model(packed, training=False)

    def answers(self, model: keras.Model, arrays: Sequence[np.ndarray]) -> Any:
        """The model's outputs for data of any number of samples; states that a layer would keep are left as they were.

        Args:
            model: The model.
            arrays: One array per input, in flat order.
        """
        fixed = [given.shape[0] for given in self.inputs if given.shape[0] is not None]
        count = len(arrays[0])
        with silence(), keras.StatelessScope():  # TensorFlow warns of every new shape that it compiles operations for
            if not fixed or fixed[0] == count:
                return self.call(model, arrays)
            step = int(fixed[0])
            pieces = [
                self.call(model, [_filled(array[start : start + step], step) for array in arrays])
                for start in range(0, count, step)
            ]
        return keras.tree.map_structure(lambda *parts: keras.ops.concatenate(parts)[:count], *pieces)


def signature_of(model: keras.Model) -> Signature:
    """Reads what a built model takes.

    A functional or Sequential model knows its inputs. A subclassed one knows the shapes that it was first called with;
    its inputs are then floating point, and named after the arguments of `call`.

    Raises:
        PruningError: The model has never been called, or takes strings.
    """
    signature = recorded_signature(model) or _from_shapes(model)
    for given in signature.inputs:
        if given.dtype == "string":
            raise PruningError(
                f"Cannot convert '{model.name}': its input '{given.name}' takes strings. Convert the part of the model "
                "behind the text layers, which takes numbers."
            )
    return signature


def matched_inputs(ends: Sequence[str], signature: Signature, model: keras.Model) -> list[int]:
    """For each input of a file, the number of the model's input that goes there: by name, else by place.

    Args:
        ends: The names of the file's inputs.
        signature: The inputs of the model.
        model: The model, for the message.

    Raises:
        PruningError: The numbers of inputs differ.
    """
    names = [given.name for given in signature.inputs]
    if len(ends) != len(names):
        raise PruningError(
            f"The file takes {len(ends)} inputs and '{model.name}' takes {len(names)}: it was not made of this model."
        )
    return [names.index(end) for end in ends] if set(ends) == set(names) else list(range(len(names)))


def output_names(model: keras.Model, outputs: Any) -> list[str]:
    """The names of a model's outputs in flat order: dict keys, else the names of the layers that they come from.

    Args:
        model: The model.
        outputs: What a call of it gave.
    """
    _, leaves = _flat(outputs, _is_tensor)
    names = [name or "" for name, _ in leaves]
    if isinstance(outputs, Mapping):
        return _distinct(names)
    recorded = list(getattr(model, "output_names", None) or [])
    if isinstance(model, keras.Sequential):
        recorded = [model.layers[-1].name]
    if len(recorded) == len(names):
        return _distinct(recorded)
    return ["output"] if len(names) == 1 else [f"output_{index}" for index in range(len(names))]


def flat_outputs(outputs: Any) -> list[Any]:
    """The outputs of a model in flat order, that of `output_names`."""
    return [leaf for _, leaf in _flat(outputs, _is_tensor)[1]]


def recorded_signature(model: keras.Model) -> Signature | None:
    """What a functional or Sequential model takes; None for one that does not say so."""
    tensors = getattr(model, "inputs", None)
    if not tensors:
        return None
    structure, leaves = _flat(tensors[0] if isinstance(model, keras.Sequential) else model.input, _is_tensor)
    # The keys of a dict are what a caller writes; Keras lets the tensors have other names.
    names = _distinct([name or tensor.name for name, tensor in leaves])
    dtypes = [keras.backend.standardize_dtype(tensor.dtype) for _, tensor in leaves]
    inputs = [Input(name, tuple(tensor.shape), _full(dtype)) for name, dtype, (_, tensor) in zip(names, dtypes, leaves)]
    return Signature(tuple(inputs), structure)


def _from_shapes(model: keras.Model) -> Signature:
    """The inputs of a subclassed model, from the shapes that it was built with."""
    config = model.get_build_config() or {}
    shapes, keywords = config.get("input_shape"), False
    if config.get("shapes_dict"):
        shapes = {key.removesuffix("_shape"): shape for key, shape in config["shapes_dict"].items()}
        keywords = True
    if shapes is None:
        shapes = _default_of_build(model)
    if shapes is None and model.built:
        raise PruningError(
            f"Cannot convert '{model.name}': its build() was called without a shape, so that nothing tells the shape "
            "of its inputs. Make a model of an example that tells it, tfprune.inline(model, data=images[:1])."
        )
    if shapes is None:
        raise PruningError(
            f"Cannot convert '{model.name}': it does not know the shape of its inputs. Call it once on a batch first, "
            "model(images[:1])."
        )
    arguments = _arguments(model)
    if not keywords and len(arguments) > 1:
        raise PruningError(
            f"Cannot convert '{model.name}': its call takes {listing(arguments)}, and Keras has kept the shape of the "
            f"first only. Give the model a build({', '.join(f'{name}_shape' for name in arguments)}), or let it take "
            "one list or dict."
        )
    structure, leaves = _flat(shapes, _is_shape, arguments[0] if arguments else "inputs")
    dtype = _full(keras.backend.standardize_dtype(model.input_dtype))
    names = _distinct([name or "inputs" for name, _ in leaves])
    # The batch is that of the call that built the model, which binds nobody.
    inputs = [Input(name, (None, *shape[1:]), dtype) for name, (_, shape) in zip(names, leaves)]
    return Signature(tuple(inputs), structure, keywords)


def _default_of_build(model: keras.Model) -> Any:
    """The shape that the `build` of a class takes where it is given none; None where there is no such thing."""
    parameters = list(inspect.signature(model.build).parameters.values())
    shape = parameters[0].default if len(parameters) == 1 else None
    return shape if shape and _is_shape(shape) else None


def _arguments(model: keras.Model) -> list[str]:
    """The arguments of a model's `call` that carry data."""
    parameters = inspect.signature(model.call).parameters.values()
    required = [
        entry.name for entry in parameters if entry.default is entry.empty and entry.kind == entry.POSITIONAL_OR_KEYWORD
    ]
    return [name for name in required if name not in ("training", "mask")]


def _full(dtype: str) -> str:
    # Half precision is a matter of training: the converted model computes in float32, or in integers.
    return "float32" if dtype in HALF_PRECISION else dtype


def _flat(
    structure: Any, is_leaf: Callable[[Any], bool], name: str | None = None
) -> tuple[Any, list[tuple[str | None, Any]]]:
    """A nested structure with numbers for its leaves, and the leaves in that order with names from their places."""
    leaves: list[tuple[str | None, Any]] = []

    def visit(part: Any, name: str | None) -> Any:
        if is_leaf(part):
            leaves.append((name, part))
            return len(leaves) - 1
        if isinstance(part, Mapping):
            return {key: visit(part[key], str(key)) for key in sorted(part)}
        return [visit(item, None if name is None else f"{name}_{index}") for index, item in enumerate(part)]

    return visit(structure, name), leaves


def _is_tensor(part: Any) -> bool:
    return not isinstance(part, (Mapping, list, tuple))


def _is_shape(part: Any) -> bool:
    return isinstance(part, (list, tuple)) and all(size is None or isinstance(size, int) for size in part)


def _filled(array: np.ndarray, size: int) -> np.ndarray:
    """The array with its last sample repeated until it has `size` of them."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number behind every repetition."""
    taken = set(names)
    counts: Counter[str] = Counter()
    result = []
    for name in names:
        new = name
        while counts[name] and new in taken:
            new = f"{name}_{counts[name]}"
            counts[name] += 1
        counts[name] += counts[name] == 0
        taken.add(new)
        result.append(new)
    return result
