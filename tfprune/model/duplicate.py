"""A layer or a subclassed model made again from its parts, where no config tells how its class is called.

Keras makes a copy by calling the class once more, and a class without `get_config`, as most people write theirs, does
not say with what. Here `__init__` is not called: every attribute is taken over, with new layers and variables in the
place of the old. What `compile` and `fit` have left on a model stays behind.
"""

import contextlib
import copy
import functools
import inspect
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Set
from typing import Any

import keras
import tensorflow as tf

from tfprune.errors import PruningError
from tfprune.model.graph import is_graph
from tfprune.model.hooks import is_bookkeeping
from tfprune.model.state import is_plain, names_on, own_value, same_values, side_by_side
from tfprune.model.tree import children, every_layer

# Values that no copy changes: initializers, types, signatures, lookup tables.
SHARED = ("builtins", "inspect", "keras.", "tensorflow.")
WITH_CONFIG = (keras.metrics.Metric, keras.losses.Loss, keras.optimizers.Optimizer, keras.random.SeedGenerator)


def duplicate(layer: keras.Layer, copy_graph: Callable[[keras.Model], keras.Model]) -> keras.Layer:
    """A layer or model of the same class with variables of its own, and equal values in them; it is not compiled.

    Args:
        layer: A built layer, or a subclassed model.
        copy_graph: Makes the copy of a functional or Sequential model inside, which has a graph to go by.

    Raises:
        PruningError: Something in it cannot be taken over, such as a function that holds a layer: its attribute is
            named. Or Keras lists a variable or layer that stands in no attribute.
    """
    made: keras.Layer = _Parts(copy_graph).of(layer)
    if {id(variable) for variable in layer.variables} & {id(variable) for variable in made.variables}:
        raise PruningError(f"a copy of '{layer.name}' would share variables with it.")
    return made


def duplicating(copy_graph: Callable[[keras.Model], keras.Model], unwrap: bool) -> Callable[[keras.Layer], keras.Layer]:
    """A function that duplicates one layer after another; what they share inside, their copies share too.

    With `unwrap`, plain layers take the place of those that hold masks.
    """
    parts = _Parts(copy_graph, unwrap)
    return parts.of


class _Parts:
    """What has been taken over so far, so that what is shared inside of the first is shared inside of the copy."""

    def __init__(self, copy_graph: Callable[[keras.Model], keras.Model], unwrap: bool = False):
        self.copy_graph, self.unwrap = copy_graph, unwrap
        self.made: dict[int, Any] = {}
        self.place: list[str] = []

    def of(self, value: Any) -> Any:
        """The counterpart of any value in the copy."""
        if id(value) in self.made:
            return self.made[id(value)]
        if isinstance(value, keras.Variable):
            return self._noted(value, _fresh_variable(value))
        if isinstance(value, keras.Model) and is_graph(value):
            return self._graph(value)
        if isinstance(value, keras.Layer):
            return self._layer(value)
        if isinstance(value, WITH_CONFIG):
            return self._by_config(value)
        if isinstance(value, (list, tuple, set, frozenset, dict)):
            return self._container(value)
        if inspect.ismethod(value):
            return type(value)(value.__func__, self.of(value.__self__))
        if callable(value) and [*_held_by(value)]:
            raise PruningError(f"{self._here()} is a function that holds a layer or a variable.")
        return self._other(value)

    def _noted(self, value: Any, counterpart: Any) -> Any:
        self.made[id(value)] = counterpart
        return counterpart

    def _here(self) -> str:
        return f"its attribute '{'.'.join(self.place)}'"

    def _layer(self, layer: keras.Layer) -> keras.Layer:
        if hasattr(layer, "holds_masks_of"):
            if self.unwrap:
                return self._noted(layer, self.of(layer.holds_masks_of))
            raise PruningError(f"{self._here()} is a wrapper that holds masks.")
        for part in every_layer(layer):  # before what they share with attributes beside them
            if isinstance(part, keras.Model) and is_graph(part) and id(part) not in self.made:
                self._graph(part)
        kind: Any = type(layer)
        fresh = self._noted(layer, kind.__new__(kind))
        base = keras.Model if isinstance(layer, keras.Model) else keras.Layer
        base.__init__(fresh, name=layer.name, dtype=layer.dtype_policy)
        if layer.input_spec is not None:
            fresh.input_spec = layer.input_spec
        _carry_notes(layer, fresh, _names_of_keras(keras.Layer))
        for name, part in list(vars(layer).items()):
            if name not in _names_of_keras(base) and not is_bookkeeping(name):
                self.place.append(name)
                setattr(fresh, name, self.of(part))  # Keras notes which are weights and layers
                self.place.pop()
        if len(fresh.variables) != len(layer.variables) or len(children(fresh)) != len(children(layer)):
            raise PruningError(
                f"'{layer.name}' ({type(layer).__name__}) has weights or layers that stand in none of its attributes."
            )
        return fresh

    def _graph(self, model: keras.Model) -> keras.Model:
        made = self.copy_graph(model)
        for old, new in side_by_side(model, made):
            if self.made.setdefault(id(old), new) is not new:
                raise PruningError(f"'{old.name}' is a part of '{model.name}' and stands beside it too.")
            for variable, counterpart in zip(old.variables, new.variables):
                self.made[id(variable)] = counterpart
                _carry_notes(variable, counterpart, vars(variable).keys())
        return made

    def _by_config(self, value: Any) -> Any:
        fresh = self._noted(value, type(value).from_config(value.get_config()))
        for variable, counterpart in zip(_variables_of(value), _variables_of(fresh)):
            counterpart.assign(variable)
        return fresh

    def _container(self, value: Any) -> Any:
        if isinstance(value, dict):
            entries = {self.of(key): self.of(part) for key, part in value.items()}
            if isinstance(value, defaultdict):
                return self._noted(value, defaultdict(value.default_factory, entries))
            return self._noted(value, OrderedDict(entries) if isinstance(value, OrderedDict) else entries)
        parts = [self.of(part) for part in value]
        with contextlib.suppress(AttributeError):  # unless it has names for its parts
            return value._replace(**dict(zip(value._asdict(), parts)))
        kinds = (kind for kind in (list, tuple, set, frozenset) if isinstance(value, kind))
        return self._noted(value, next(kinds)(parts))

    def _other(self, value: Any) -> Any:
        module = str(type(value).__module__)
        variable = isinstance(value, tf.Variable)  # one that Keras does not know
        if isinstance(value, type) or inspect.isroutine(value) or (module.startswith(SHARED) and not variable):
            return value
        try:
            return self._noted(value, copy.deepcopy(value, dict(self.made)))
        except Exception as error:
            raise PruningError(
                f"{self._here()} ({type(value).__name__}) cannot be copied: {' '.join(str(error).split())[:200]}"
            ) from error


@functools.cache
def _names_of_keras(kind: type) -> frozenset[str]:
    """The attributes that Keras, or a run of pruning, keeps on every layer or on every model for itself."""
    return names_on(kind()) | ({"make_train_function"} if kind is keras.Model else set())


def _fresh_variable(variable: keras.Variable) -> keras.Variable:
    fresh = type(variable)(
        keras.ops.copy(variable.value),
        dtype=variable.dtype,
        trainable=variable.trainable,
        name=variable.name,
        aggregation=variable.aggregation,
    )
    _carry_notes(variable, fresh, vars(variable).keys())
    fresh.regularizer = variable.regularizer
    fresh.constraint = getattr(variable.constraint, "holds_masks_of", variable.constraint)
    return fresh


def _carry_notes(old: Any, fresh: Any, names: Set[str]) -> None:
    """Gives a layer or variable the path and all else that Keras has noted of another one in plain values."""
    for name in vars(old).keys() & names:
        part = vars(old)[name]
        if not isinstance(part, tf.Variable) and is_plain(part) and not same_values(part, vars(fresh).get(name)):
            vars(fresh)[name] = own_value(part)


def _variables_of(value: Any) -> list[keras.Variable]:
    if isinstance(value, keras.random.SeedGenerator):
        return [value.state]
    return [] if isinstance(value, keras.optimizers.Optimizer) else list(getattr(value, "variables", []))


def _held_by(function: Any) -> Iterator[Any]:
    """The layers and variables that a function carries in its closure, its defaults or its fixed arguments."""
    if isinstance(function, functools.partial):
        held = [*function.args, *function.keywords.values()]
        yield from _held_by(function.func)
    else:
        function = getattr(function, "python_function", function)  # of tf.function
        closure = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
        held = [*closure, *(getattr(function, "__defaults__", None) or ()), getattr(function, "__self__", None)]
    for part in keras.tree.flatten(held):
        if isinstance(part, (keras.Layer, keras.Variable, tf.Variable)):
            yield part
