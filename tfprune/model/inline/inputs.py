"""What a model takes, for a trace: its inputs as Keras tells them, or as an example shows them."""

import inspect
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.model.data import batches
from tfprune.model.inline.reasons import reason_of
from tfprune.model.inline.sizes import InputSpec
from tfprune.model.signature import recorded_signature, signature_of
from tfprune.model.tree import has_no_call


class Inputs:
    """The inputs of a model, flat, and how they are passed to it.

    Args:
        specs: The inputs in flat order.
        structure: Their structure, as the model takes them.
        keywords: Whether the keys of the structure are arguments of the model's `call`.
        types_known: Whether the types are those of real inputs; else they are floating point until a trace tells.
        example: The shapes of an example, where there is one beside what the model says itself.
    """

    def __init__(
        self,
        specs: Sequence[InputSpec],
        structure: Any,
        keywords: bool = False,
        types_known: bool = True,
        example: Sequence[tuple[int, ...]] | None = None,
    ):
        self.specs, self.structure, self.keywords, self.types_known = list(specs), structure, keywords, types_known
        self.example = example

    @property
    def are_fixed(self) -> bool:
        """Whether no size but the number of samples is open."""
        return all(None not in spec.shape[1:] for spec in self.specs)

    def pack(self, flat: Sequence[Any]) -> Any:
        """Flat values in the structure of the inputs."""
        return keras.tree.pack_sequence_as(self.structure, list(flat))

    def call(self, model: Any, flat: Sequence[Any], **kwargs: Any) -> Any:
        """Calls a model that takes these inputs as the original does."""
        packed = self.pack(flat)
        return model(**packed, **kwargs) if self.keywords else model(packed, **kwargs)

    def with_dtypes(self, dtypes: Sequence[str]) -> "Inputs":
        """The same inputs of other types."""
        specs = [spec._replace(dtype=dtype) for spec, dtype in zip(self.specs, dtypes)]
        return Inputs(specs, self.structure, self.keywords)

    def with_shapes(self, shapes: Sequence[tuple[int | None, ...]]) -> "Inputs":
        """The same inputs of other shapes."""
        specs = [spec._replace(shape=shape) for spec, shape in zip(self.specs, shapes)]
        return Inputs(specs, self.structure, self.keywords, self.types_known)


def inputs_of(model: keras.Model, data: Any = None) -> Inputs:
    """Reads what a model takes; the first axis of what a subclassed model was called with is open.

    Args:
        model: The model.
        data: Example inputs in any form that `fit` takes. Default: what the model says itself.

    Raises:
        PruningError: The model has never been called, and there is no example.
    """
    if recorded_signature(model) is not None:
        structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
        flat = keras.tree.flatten(structure)
        specs = [InputSpec(_plain(x.name), tuple(x.shape), str(x.dtype)) for x in flat]
        example = None if data is None else [np.shape(array) for array in keras.tree.flatten(_example(model, data))]
        return Inputs(specs, structure, example=example)
    if has_no_call(model):
        raise PruningError(
            f"'{model.name}' ({type(model).__name__}) has no call() of its own, so that it is no graph of layers: its "
            "train_step calls its parts. Give one of them, such as model.generator; masks that tfprune.prune() has put "
            "on a part are held while the whole is trained."
        )
    if data is not None:
        return _from_example(model, data)
    if model.built and model.get_build_config() is None:
        raise PruningError(
            f"'{model.name}' ({type(model).__name__}) does not know the shapes of its inputs, since Keras could not "
            "trace its call when it was built. Give an example: tfprune.inline(model, data=images[:1])."
        )
    if not model.built:
        raise PruningError(
            f"'{model.name}' ({type(model).__name__}) has never been called, so the shapes of its inputs are not "
            "known. Call it once on a batch, model(images[:1]), or give an example: tfprune.inline(model, "
            "data=images[:1])."
        )
    try:
        signature = signature_of(model)
    except PruningError as error:
        text = str(error).replace("Cannot convert", "Cannot read the inputs of")
        way_out = "" if "tfprune.inline" in text else " Or give an example: tfprune.inline(model, data=inputs)."
        raise PruningError(f"{text}{way_out}") from error
    specs = [InputSpec(_plain(given.name), given.shape, given.dtype) for given in signature.inputs]
    structure = keras.tree.map_structure(lambda number: specs[number].name, signature.structure)
    order = [specs[number] for number in keras.tree.flatten(signature.structure)]
    return Inputs(order, structure, signature.keywords, types_known=False)


def _example(model: keras.Model, data: Any) -> Any:
    """The inputs of one sample, in the structure that the model takes."""
    return next(iter(batches(data, model, "Opening a model", at_most=1))).inputs


def _from_example(model: keras.Model, data: Any) -> Inputs:
    structure = _example(model, data)
    if not model.built:
        _call(model, structure)
    paths = keras.tree.flatten_with_path(structure)
    called = _shapes_of_the_call(model)
    argument = next(iter(inspect.signature(model.call).parameters), "inputs")
    specs = []
    for path, value in paths:
        name = "_".join(map(str, path)) if path else argument
        array = np.asarray(value)
        name = f"{argument}_{name}" if name.isdigit() else name
        specs.append(InputSpec(_plain(name), (None, *array.shape[1:]), _dtype(array)))
    if [len(shape) for shape in called] == [len(spec.shape) for spec in specs]:
        # A model that was called with one size and takes another leaves that axis open.
        specs = [
            spec._replace(shape=tuple(size if size == known else None for size, known in zip(spec.shape, shape)))
            for spec, shape in zip(specs, called)
        ]
    shown = [np.shape(value) for _, value in paths] if any(None in spec.shape[1:] for spec in specs) else None
    return Inputs(specs, structure, example=shown)


def _call(model: keras.Model, inputs: Any) -> None:
    """Calls a model for the first time, which builds it."""
    try:
        with keras.StatelessScope():
            model(inputs, training=False)
    except Exception as error:  # the user's own code runs there
        raise PruningError(
            f"'{model.name}' ({type(model).__name__}) fails when it is called on the example: {reason_of(error)}. "
            "Mend its call, or give an example that it takes."
        ) from error


def _shapes_of_the_call(model: keras.Model) -> list[tuple[int | None, ...]]:
    """The shapes that a subclassed model was first called with, flat; none where Keras does not know them."""
    try:
        signature = signature_of(model)
    except PruningError:
        return []
    return [signature.inputs[number].shape for number in keras.tree.flatten(signature.structure)]


def _dtype(array: np.ndarray) -> str:
    return "float32" if array.dtype == np.float64 else str(array.dtype)


def _plain(name: str) -> str:
    return name.replace("/", ".").replace(":", "_")


def sample(spec: InputSpec, sizes: Sequence[int], generator: np.random.Generator) -> Any:
    """One array for an input, with fixed sizes: normal, or 0 and 1 where it holds whole numbers."""
    if keras.backend.is_float_dtype(spec.dtype):
        return keras.ops.cast(generator.normal(size=sizes), spec.dtype)
    return keras.ops.cast(generator.integers(0, 2, sizes), spec.dtype)
