"""All that a layer holds, weights or not: carried to its copy, and the copy compared with its original.

Weights are a part of it only. `adapt` leaves tables and constants, seeds are variables that count as no weights, and
classes of the user's keep values in plain attributes; a copy without them computes something else in silence.
"""

import copy
import functools
import inspect
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.model.fresh import is_told_by_name
from tfprune.model.graph import Call, called, flow, is_graph
from tfprune.model.tree import children, every_layer, own_variables, wrapped_layers

SMALL = 32  # the size of an image axis of unknown size in a probe: most stacks of strides and poolings fit in
TOLERANCE = 1e-5  # of the largest output; in half precision the epsilon of that type
WAY_OUT = (
    "Give its class save_own_variables() and load_own_variables() that write and read what it holds, or return it "
    "from get_config()."
)
PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic, np.ndarray)


def carry_state(source: keras.Layer, target: keras.Layer, beside_layers: bool = True) -> None:
    """Gives `target`, a copy of `source`, all that `source` and the layers inside it hold.

    Variables with the seeds among them; what the classes themselves save and load (tables, vocabularies, values
    derived from weights); and plain values in attributes. Either may hold its masks in wrappers where the other does
    not.

    Args:
        source: The layer or model.
        target: Its copy.
        beside_layers: Whether what they hold themselves is carried too, or that of the layers inside alone.

    Raises:
        PruningError: The copy has other layers or variables, or its class does not take the state.
    """
    for old, new in list(side_by_side(source, target))[0 if beside_layers else 1 :]:
        variables, copies = own_variables(old), own_variables(new)
        if [tuple(v.shape) for v in variables] != [tuple(v.shape) for v in copies]:
            raise PruningError(
                f"The copy of {_named(old)} has the variables {_shapes(copies)} instead of {_shapes(variables)}; does "
                "get_config() return every argument of __init__?"
            )
        for from_variable, to_variable in zip(variables, copies):
            to_variable.assign(from_variable)
        if type(old) is type(new) and _may_hold_more(old):
            _carry_saved(old, new)
            _carry_values(old, new)


def side_by_side(source: keras.Layer, target: keras.Layer) -> Iterator[tuple[keras.Layer, keras.Layer]]:
    """Every layer below `source` with its counterpart below `target`, and the two themselves; each pair once.

    Raises:
        PruningError: The copy lacks a layer, or has one of another class in its place.
    """
    seen: set[int] = set()

    def visit(old: keras.Layer, new: keras.Layer) -> Iterator[tuple[keras.Layer, keras.Layer]]:
        if hasattr(old, "holds_masks_of") != hasattr(new, "holds_masks_of"):
            old, new = getattr(old, "holds_masks_of", old), getattr(new, "holds_masks_of", new)
        if id(old) in seen:
            return
        seen.add(id(old))
        yield old, new
        inner, copies = children(old), children(new)
        kinds = [_plain_kind(layer) for layer in inner], [_plain_kind(layer) for layer in copies]
        if kinds[0] != kinds[1]:
            raise PruningError(
                f"The copy of {_named(old)} is made of {[kind.__name__ for kind in kinds[1]]} instead of "
                f"{[kind.__name__ for kind in kinds[0]]}; does get_config() return every argument of __init__?"
            )
        for pair in zip(inner, copies):
            yield from visit(*pair)

    yield from visit(source, target)


def check_copy(model: keras.Model, made: keras.Model) -> str | None:
    """Raises unless a copy gives the outputs of its original on a small probe, in inference.

    State that is known to be the whole of a layer is equal already, by `carry_state`. So only a model with layers of
    other classes than Keras' own, or with adapted ones, is run, once, on one sample.

    Returns:
        None where the outputs were compared or need not be, else why no probe could be made.

    Raises:
        PruningError: An output differs; names the first layer that gives something else.
    """
    if not holds_more(model):
        return None
    try:
        inputs = probe(model)
        expected = _outputs(model, inputs)
    except Exception as error:
        return f"'{model.name}' cannot be run on a probe: {' '.join(str(error).split())}"
    try:
        given = _outputs(made, inputs)
    except Exception as error:
        raise PruningError(f"The copy of '{model.name}' cannot be run: {' '.join(str(error).split())}") from error
    difference = _difference(expected, given)
    if not difference or _difference(expected, _outputs(model, inputs)):  # draws random numbers of its own
        return None
    place, difference = _first_difference(model, made, inputs) or (
        f"'{model.name}' ({type(model).__name__})",
        difference,
    )
    raise PruningError(
        f"The copy of '{model.name}' would compute something else: the first to differ is {place}, by {difference:.2g} "
        f"times the scale of its outputs. It holds something that is neither a weight nor in its config. {WAY_OUT}"
    )


def check_ties(model: keras.Model, made: keras.Model) -> None:
    """Raises where a copy has more weights than its original: such as are shared there, and would train apart."""
    held, own = _weights_held(model), _weights_held(made)
    if own > held:
        raise PruningError(
            f"The copy of '{model.name}' would have {own} weights in the place of {held}, since layers that share a "
            "weight would each have one of their own. Give each layer that uses another's weight that layer in an "
            "attribute, or prune your own model in fit with a pruning callback."
        )


def _weights_held(model: keras.Model) -> int:
    """How many weights the layers of a model have, without what wrappers hold beside those of their layers."""
    weights = {id(weight) for weight in model.weights} - {id(weight) for weight in own_variables(model)}
    for wrapper in wrapped_layers(model):
        weights -= {id(weight) for weight in wrapper.weights} - {id(w) for w in wrapper.holds_masks_of.weights}
    return len(weights)


def probe(model: keras.Model) -> Any:
    """One sample of a model's own input shapes and types, the same at every call; axes of unknown size are small.

    Raises:
        PruningError: The model takes strings, or its input shapes are not known.
    """
    if is_graph(model):
        symbols = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    else:
        shape = (model.get_build_config() or {}).get("input_shape")
        if not isinstance(shape, (tuple, list)) or not all(size is None or isinstance(size, int) for size in shape):
            raise PruningError("its input shapes are not known.")
        symbols = keras.KerasTensor(tuple(shape), dtype=model.input_dtype if hasattr(model, "input_dtype") else None)
    generator = np.random.default_rng(0)

    def sample(symbol: Any) -> Any:
        if symbol.shape is None or symbol.dtype == "string":
            raise PruningError(f"its input '{symbol.name}' is of type {symbol.dtype} and shape {symbol.shape}.")
        small = SMALL if len(symbol.shape) > 3 else 8
        shape = [size or (small if axis else 1) for axis, size in enumerate(symbol.shape)]
        is_float = keras.backend.is_float_dtype(symbol.dtype)
        values = generator.normal(size=shape) if is_float else generator.integers(0, 2, shape)
        return keras.ops.cast(values, symbol.dtype)

    return keras.tree.map_structure(sample, symbols)


def _carry_saved(old: keras.Layer, new: keras.Layer) -> None:
    """Carries what a class saves by methods of its own, through those methods, and reads it back from the copy."""
    if type(old).load_own_variables is not keras.Layer.load_own_variables:
        saved = _saved_variables(old)
        if saved:
            new.load_own_variables(dict(saved))
            for from_variable, to_variable in zip(own_variables(old), own_variables(new)):
                to_variable.assign(from_variable)  # once more: some classes fit what they read to a size
        if not same_values(saved, _saved_variables(new)):
            raise PruningError(f"The copy of {_named(old)} did not take what save_own_variables() wrote. {WAY_OUT}")
    if hasattr(old, "save_assets"):
        tables = _saved_assets(old)
        if tables != _saved_assets(new):
            with tempfile.TemporaryDirectory() as folder:
                for name, content in tables.items():
                    path = Path(folder) / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                new.load_assets(folder)
        if tables != _saved_assets(new):
            raise PruningError(
                f"The copy of {_named(old)} did not take the vocabulary or table that save_assets() wrote. Give it "
                "to the layer's constructor in place of adapt(), or let load_assets() read what save_assets() writes."
            )


def _saved_variables(layer: keras.Layer) -> dict[str, np.ndarray]:
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    return {name: np.array(value) for name, value in store.items()}


def _saved_assets(layer: Any) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        layer.save_assets(folder)
        files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _carry_values(old: keras.Layer, new: keras.Layer) -> None:
    """Carries plain values in attributes: numbers, texts, arrays, constants, and containers of them."""
    skipped = _bookkeeping(isinstance(old, keras.Model))
    is_known = type(old).__module__.startswith("keras.")
    for name, value in list(vars(old).items()):
        own_function = is_known and inspect.isfunction(value) and _is_users(value)  # shared by reference
        if name in skipped or not (own_function or is_plain(value)):
            continue
        present = vars(new).get(name)
        if name in vars(new) and same_values(value, present):
            continue
        if hasattr(present, "assign"):  # a variable that Keras does not count as one
            present.assign(value)
        else:
            setattr(new, name, own_value(value, present))


@functools.cache
def _bookkeeping(is_model: bool) -> frozenset[str]:
    """The attributes that Keras keeps on every layer, or on every model, for itself."""
    names = names_on(keras.layers.Layer()) | {"seed"}
    if is_model:
        x = keras.Input((1,))
        names |= names_on(keras.Model(x, x)) | names_on(keras.Sequential([x]))
    return names


def names_on(layer: keras.Layer) -> frozenset[str]:
    """The attributes of one of Keras' own layers, or of a model once it is compiled and has been trained."""
    if not isinstance(layer, keras.Model):
        return frozenset(vars(layer))
    layer.compile("sgd", "mse")
    return frozenset(vars(layer)) | {"stop_training", "history"}


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a text, an array, a constant, or a container of such."""
    if isinstance(value, Mapping):
        return all(map(is_plain, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(is_plain, value))
    if isinstance(value, keras.Variable):
        return False
    return isinstance(value, PLAIN) or (keras.ops.is_tensor(value) and hasattr(value, "numpy"))


def same_values(a: Any, b: Any) -> bool:
    """Whether two plain values are equal, NaN to NaN."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same_values(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same_values, a, b))
    if isinstance(a, (set, frozenset)) or a is None or b is None or callable(a):
        return bool(a == b)
    one, other = np.asarray(a), np.asarray(b)
    numbers = one.dtype.kind in "fc" and other.dtype.kind in "fc"
    return one.shape == other.shape and bool(np.array_equal(one, other, equal_nan=numbers))


def own_value(value: Any, present: Any = None) -> Any:
    """A copy of a plain value that shares nothing with it; of the type of what it replaces, where that is a tensor."""
    if isinstance(value, Mapping):
        return {key: own_value(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        # What a model holds is wrapped by Keras and TensorFlow, and a wrapper hangs on the model.
        return (list if isinstance(value, list) else tuple)(own_value(entry) for entry in value)
    if isinstance(value, (set, frozenset)):
        return set(value) if isinstance(value, set) else frozenset(value)
    if keras.ops.is_tensor(value) and keras.ops.is_tensor(present):
        return keras.ops.cast(value, present.dtype)
    return copy.deepcopy(value)


def holds_more(layer: keras.Layer) -> bool:
    """Whether more than variables and config may decide what a layer computes, or one inside it."""
    return any(map(_may_hold_more, every_layer(layer)))


def _may_hold_more(layer: keras.Layer) -> bool:
    known = type(layer).__module__.startswith(("keras.", "tfprune."))
    return not known or hasattr(layer, "finalize_state") or any(map(_is_users, vars(layer).values()))


def _is_users(value: Any) -> bool:
    """Whether a value of a layer is a function that no config tells, or another callable that is none of Keras'."""
    if inspect.isfunction(value) and value.__module__.startswith("keras."):
        return not is_told_by_name(value)
    module = value.__module__ if inspect.isfunction(value) else type(value).__module__
    return callable(value) and not str(module).startswith(("keras.", "tfprune.", "builtins", "tensorflow."))


def _outputs(model: keras.Model, inputs: Any) -> list[np.ndarray]:
    with keras.StatelessScope():  # no seed, no statistic moves on
        return [np.asarray(array) for array in keras.tree.flatten(model(inputs, training=False))]


def _difference(expected: Sequence[np.ndarray], given: Sequence[np.ndarray]) -> float:
    """The largest difference in units of the scale of the output; 0.0 where it is within rounding."""
    return max((_apart(one, other) for one, other in zip(expected, given, strict=True)), default=0.0)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    tolerance = TOLERANCE if one.dtype.itemsize > 2 else 1e-2
    if one.dtype.kind in "fiub" or one.dtype.name == "bfloat16":
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        finite = np.isfinite(one)
        if one.shape == other.shape and np.array_equal(one[~finite], other[~finite], equal_nan=True):
            scale = float(np.abs(one[finite]).max(initial=0.0)) or 1.0
            apart = float(np.abs(one[finite] - other[finite]).max(initial=0.0)) / scale
            return apart if not apart <= tolerance else 0.0
    return 0.0 if np.array_equal(one, other) else np.inf


def _first_difference(model: keras.Model, made: keras.Model, inputs: Any) -> tuple[str, float] | None:
    if not (is_graph(model) and is_graph(made)):
        return None
    for (call, expected), (_, given) in zip(_results(model, inputs), _results(made, inputs)):
        difference = _difference(expected, given)
        if difference:
            return f"'{call.path}' ({type(call.operation).__name__})", difference
    return None


def _results(model: keras.Model, inputs: Any) -> list[tuple[Call, list[np.ndarray]]]:
    results = []

    def visit(call: Call) -> Sequence[Any]:
        values = called(call)
        results.append((call, [np.asarray(value) for value in values]))
        return values

    with keras.StatelessScope():
        flow(model, keras.tree.flatten(inputs), visit)
    return results


def _plain_kind(layer: keras.Layer) -> type:
    """The class of a layer without its masks; a graph stays the same function in a plain functional model."""
    plain = getattr(layer, "holds_masks_of", layer)
    if is_graph(plain) and not isinstance(plain, keras.Sequential):
        return keras.Model
    return type(plain)


def _named(layer: keras.Layer) -> str:
    return f"'{layer.name}' ({type(layer).__name__})"


def _shapes(variables: Sequence[keras.Variable]) -> list[str]:
    return [f"{variable.name} {tuple(variable.shape)}" for variable in variables]
