"""One trace: the call of a model and of the layers in it that open, run on symbolic tensors of fixed sizes.

Keras still does at each call what it does always (dtypes, `training`, build); only where it would ask a layer for the
shape of its outputs, the layer's own `call` runs, and the calls of built-in layers and of `keras.ops` in it are
recorded. A weight that a layer uses by itself is a symbolic tensor meanwhile. The model is as it was afterwards.
"""

import contextlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune.model import hooks
from tfprune.model.inline.answers import ANSWERS, Flag, losses_told
from tfprune.model.inline.masks import masked
from tfprune.model.inline.reasons import CannotOpenError, reason_of, running_line
from tfprune.model.inline.sizes import Size, index_like, length
from tfprune.model.inline.tensorflow_functions import taking_symbols
from tfprune.model.tree import children, every_layer, places

SCALARS = (bool, int, float, str)


@dataclass(frozen=True, eq=False)
class TracedCall:
    """One call in a trace: of a layer that stays closed, or of an operation.

    `path` is that of the layer in the model; of an operation that of `owner`, the layer whose call it stands in (found
    at `place`), with the kind of operation. `line` is that of the code in its file.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Any]
    path: str
    place: str
    owner: Any
    line: tuple[str, int] = ("", 0)


@dataclass
class CallTrace:
    """What one run of a model's call did.

    Attributes:
        inputs: The symbolic inputs, flat.
        outputs: What the model gave, in its structure.
        steps: The calls that lead from the one to the other, each after those it needs.
        variables: The weight that each symbolic tensor stands for, by the tensor's id.
        constants: Likewise the arrays that closed layers were called on, or that a call gave back.
        asked: The layers whose call asked whether it is in training.
        opened: The layers that were opened, in order.
        losses: The layers whose call adds a loss.
    """

    inputs: list[Any] = field(default_factory=list)
    outputs: Any = None
    steps: list[TracedCall] = field(default_factory=list)
    variables: dict[int, Any] = field(default_factory=dict)
    constants: dict[int, tuple[Any, np.ndarray]] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)
    opened: list[Any] = field(default_factory=list)
    losses: list[Any] = field(default_factory=list)


def traced(
    model: Any,
    call: Callable[[Any], Any],
    inputs: Sequence[Any],
    opens: Callable[[Any], bool],
    ranges: Mapping[int, Size],
    training: bool = False,
) -> CallTrace:
    """Runs a model's call on symbolic tensors.

    Args:
        model: The model.
        call: Calls it on `inputs`.
        inputs: Symbolic tensors with fixed sizes, flat.
        opens: Which layers open.
        ranges: The sizes that stand for open ones, so that `arange` of one follows it.
        training: What the layers are told that ask.

    Raises:
        CannotOpenError: Names the layer whose call does what cannot be recorded.
    """
    tracer = _Tracer(model, opens, ranges, training)
    with tracer.tracing(), hooks.whole_tracebacks():
        tracer.trace.outputs = call(inputs)
        tracer.trace.inputs = list(inputs)
        tracer.trace.steps = tracer.steps(inputs)
    return tracer.trace


class _Tracer:
    def __init__(self, model: Any, opens: Callable[[Any], bool], ranges: Mapping[int, Size], training: bool):
        self.model, self.opens, self.ranges, self.training = model, opens, ranges, training
        self.trace = CallTrace()
        self.stack: list[Any] = []  # the layers whose call is running; None within one that stays closed
        self.told: list[Any] = [None]  # the values of `training` that were written out for those layers
        self.tensors: dict[int, Any] = {}  # the symbolic tensor of each weight
        self.owners: dict[int, Any] = {}
        self.lines: dict[int, tuple[str, int]] = {}  # of the code that called an operation
        self.called: dict[int, tuple[Any, Any]] = {}
        self.known = {id(layer) for layer in every_layer(model)}
        self.paths = {id(place.layer): place.path for place in places(model)}

    @property
    def owner(self) -> Any:
        """The opened layer whose call is running, None outside and within a closed one."""
        return self.stack[-1] if self.stack else None

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(hooks.layer_calls_by(self.call))
            stack.enter_context(hooks.symbolic_calls_told(self._note_owner))
            stack.enter_context(hooks.reads_told(self._note_read))
            stack.enter_context(hooks.weights_by(lambda layer, variable: self._symbolic(variable, layer)))
            stack.enter_context(hooks.arange_by(self._arange))
            stack.enter_context(hooks.plain_slices())
            stack.enter_context(losses_told(self._note_loss))
            for answer in ANSWERS:
                stack.enter_context(answer())
            try:
                yield
            finally:
                for layer, calls in self.called.values():
                    hooks.set_recorded_calls(layer, calls)

    def _note_owner(self, operation: Any) -> None:
        if self.owner is not None:
            self.owners.setdefault(id(operation), self.owner)
            self.lines[id(operation)] = running_line()

    def _note_loss(self, layer: Any) -> None:
        if layer not in self.trace.losses:
            self.trace.losses.append(layer)

    def _note_read(self, variable: Any) -> None:
        if self.owner is None:
            return
        if "seed_generator" in variable.path:
            raise CannotOpenError("it draws random numbers in inference", self.owner)
        raise CannotOpenError(
            f"its call reads the weight '{variable.path}' of another layer outside of the graph", self.owner
        )

    def _arange(self, plain: Callable[[], Any], start: Any, stop: Any, step: Any, dtype: Any) -> Any:
        first, last = (0, start) if stop is None else (start, stop)
        numbers = isinstance(first, int) and isinstance(last, int)
        if self.owner is None or not numbers:
            return plain()
        if step == -1 and first in self.ranges and last in (-first, 0, -1):  # down from an open size
            size = self.ranges[first]
            down = size._replace(times=1 + (last == -first), more=size.more + (last == -1))
            return keras.ops.cast(length(size) - index_like(down), dtype or "int32")
        if step not in (None, 1) or last - first not in self.ranges:
            return plain()
        size = self.ranges[last - first]
        symbolic = index_like(size)
        if first and abs(last) < abs(first):  # it counts up to a number, not from one
            symbolic = symbolic + (last - length(size))
        elif first:
            symbolic = symbolic + first
        return keras.ops.cast(symbolic, dtype or "int32")

    # Calls of layers

    def call(self, plain: Callable[..., Any], layer: Any, args: Any, kwargs: Any) -> Any:
        """What happens where Keras would call a layer."""
        if self.stack and self.owner is None:
            return plain(layer, *args, **kwargs)
        if not any(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten((args, kwargs))):
            if not self.stack or (layer.built and not layer.weights):
                return plain(layer, *args, **kwargs)
            # A layer with weights, called on constants: its result depends on the weights.
            args, kwargs = keras.tree.map_structure(lambda x: self._constant(x) if _is_array(x) else x, (args, kwargs))
        self.called.setdefault(id(layer), (layer, hooks.recorded_calls(layer)))
        self._note_owner(layer)
        if layer is self.model or self.opens(layer) or self._is_told_inference(layer, kwargs):
            return self._open(plain, layer, args, kwargs)
        outputs = self._closed(masked(plain), layer, args, kwargs)
        if id(layer) not in self.known and layer.trainable_weights:
            raise CannotOpenError(
                f"its call uses the layer '{layer.name}' ({type(layer).__name__}), which is not part of it; make it in "
                "__init__ and keep it in an attribute",
                self.owner,
            )
        return outputs

    def _is_told_inference(self, layer: Any, kwargs: Any) -> bool:
        """Whether a layer is told training=False in the code; in a graph of Keras it would be told what fit says."""
        told = self._told(kwargs)
        return told is False and bool(self.stack) and _takes(layer, "training") and not children(layer)

    def _told(self, kwargs: Any) -> Any:
        """The `training` that a call is told in the code; a graph writes down defaults, and tells what fit says."""
        return self.told[-1] if isinstance(self.owner, keras.Function) else kwargs.get("training", self.told[-1])

    def _closed(self, plain: Callable[..., Any], layer: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = keras.tree.map_structure(lambda x: None if isinstance(x, Flag) else x, (args, kwargs))
        in_graph = isinstance(self.owner, keras.Function)  # which writes down what is the default
        if self.told[-1] is not None and (in_graph or kwargs.get("training") is None) and _takes(layer, "training"):
            kwargs["training"] = self.told[-1]
        if kwargs.get("training") is True and layer.non_trainable_variables and not in_graph:  # seeds, or statistics
            raise CannotOpenError(f"its call tells '{layer.name}' to be in training always", self.owner)
        self.stack.append(None)
        try:
            outputs = plain(layer, *args, **kwargs)
            flat = keras.tree.flatten(outputs)
            if any(None in x.shape for x in flat):
                # A layer that was told an open shape gives it, whatever it is called on.
                computed = keras.tree.flatten(keras.Operation.compute_output_spec(layer, *args, **kwargs))
                for x, exact in zip(flat, computed):
                    hooks.set_shape(x, exact.shape)
            return outputs
        finally:
            self.stack.pop()

    def _open(self, plain: Callable[..., Any], layer: Any, args: Any, kwargs: Any) -> Any:
        given = kwargs.get("training")
        self.told.append(self._told(kwargs) if isinstance(given, bool) and self.stack else self.told[-1])
        found: dict[str, Any] = {}

        def symbolic_call(*call_args: Any, **call_kwargs: Any) -> Any:
            found["outputs"] = self._outputs(layer, call_args, call_kwargs)
            found["tensors"] = [x for x in keras.tree.flatten(found["outputs"]) if isinstance(x, keras.KerasTensor)]
            found["history"] = [hooks.history_of(x) for x in found["tensors"]]
            if not found["tensors"]:
                raise CannotOpenError("its call gives back no tensor", layer)
            return found["tensors"]

        if isinstance(given, Flag):
            kwargs = {**kwargs, "training": None}
        try:
            with hooks.symbolic_call_by(layer, symbolic_call):
                plain(layer, *args, **kwargs)
        except CannotOpenError as error:
            error.layer = error.layer or layer
            raise
        except Exception as error:  # in the innermost layer whose call does it
            raise CannotOpenError(reason_of(error), layer) from error
        finally:
            self.told.pop()
        # Keras has recorded the layer itself as the maker of its outputs.
        for tensor, history in zip(found["tensors"], found["history"]):
            hooks.set_history(tensor, history)
        return found["outputs"]

    def _outputs(self, layer: Any, args: Any, kwargs: Any) -> Any:
        """What a layer's call gives, constants as symbolic tensors too."""
        if isinstance(layer, keras.Function):
            kwargs.pop("training", None)  # each call in a graph has its own say
        elif _takes(layer, "training"):
            told = self.told[-1]
            kwargs["training"] = Flag(self.training, lambda: self._asks(layer)) if told is None else told
        if layer not in self.trace.opened:
            self.trace.opened.append(layer)
        self.stack.append(layer)
        try:
            with self._as_it_was(layer), self._symbolic_attributes(layer):
                outputs = getattr(layer.call, "python_function", layer.call)(*args, **kwargs)  # of a tf.function
        finally:
            self.stack.pop()
        return keras.tree.map_structure(lambda x: self._constant(x) if _is_array(x) else x, outputs)

    def _asks(self, layer: Any) -> None:
        if layer not in self.trace.asked:
            self.trace.asked.append(layer)

    @contextlib.contextmanager
    def _as_it_was(self, layer: Any) -> Iterator[None]:
        """Puts back the attributes that a call sets; one that goes on from call to call cannot be opened."""
        own = vars(layer)
        before = dict(own)
        entries = {name: list(value) for name, value in own.items() if isinstance(value, list)}
        try:
            yield
            changed = [
                name
                for name, value in before.items()
                if not hooks.is_bookkeeping(name)
                and not isinstance(own.get(name), Flag)  # what it was told at this call
                and (
                    (isinstance(value, SCALARS) and own.get(name) != value)
                    or (name in entries and len(entries[name]) != len(own.get(name, ())))
                )
            ]
            if changed:
                raise CannotOpenError(
                    f"its call keeps Python state between calls, in self.{changed[0]}; keep it in a variable that a "
                    "callback or a metric updates",
                    layer,
                )
        finally:
            for name in [name for name in own if name not in before]:
                del own[name]
            own.update(before)
            for name, value in entries.items():
                if len(own[name]) != len(value) and not hooks.is_bookkeeping(name):
                    own[name][:] = value

    @contextlib.contextmanager
    def _symbolic_attributes(self, layer: Any) -> Iterator[None]:
        """Puts symbolic tensors in the place of the weights in a layer's lists and dicts; functions take such."""
        own = vars(layer)
        changed = {
            name: value
            for name, value in own.items()
            if isinstance(value, (dict, list, tuple, types.FunctionType)) and not hooks.is_bookkeeping(name)
        }
        own.update(
            (name, taking_symbols(value) if callable(value) else self._symbolic(value, layer))
            for name, value in changed.items()
        )
        try:
            yield
        finally:
            own.update(changed)

    def _symbolic(self, value: Any, layer: Any) -> Any:
        """What a layer's call finds in the place of its weights, or of another layer's."""
        if isinstance(value, keras.Variable):
            return value if self.owner is None else self.weight(value, layer)
        entries = value.values() if isinstance(value, dict) else value
        if not any(isinstance(entry, keras.Variable) for entry in entries):
            return value
        if isinstance(value, dict):
            return {key: self._symbolic(entry, layer) for key, entry in value.items()}
        return [self._symbolic(entry, layer) for entry in value]

    def weight(self, variable: Any, layer: Any) -> Any:
        """The symbolic tensor that stands for a weight, in the type that the layer computes in."""
        if id(variable) not in self.tensors:
            is_float = keras.backend.is_float_dtype(variable.dtype)
            dtype = layer.compute_dtype if is_float and layer.autocast else variable.dtype
            tensor = keras.KerasTensor(tuple(variable.shape), dtype=dtype)
            self.tensors[id(variable)] = tensor
            self.trace.variables[id(tensor)] = variable
        return self.tensors[id(variable)]

    def _constant(self, value: Any) -> Any:
        array = np.asarray(value)
        tensor = keras.KerasTensor(array.shape, dtype=str(array.dtype))
        self.trace.constants[id(tensor)] = (tensor, array)
        return tensor

    def steps(self, inputs: Sequence[Any]) -> list[TracedCall]:
        """The calls that the outputs come from, each after those it needs; must be read before they are put back."""
        known = {id(x) for x in inputs}
        order: list[Any] = []
        done: set[int] = set()
        outputs = [x for x in keras.tree.flatten(self.trace.outputs) if isinstance(x, keras.KerasTensor)]
        stack = [(x, False) for x in reversed(outputs)]
        while stack:
            tensor, ready = stack.pop()
            history = hooks.history_of(tensor)
            if id(tensor) in known or history is None or history.operation is None:
                continue
            node = hooks.node_of(tensor)
            if id(node) in done:
                continue
            if ready:
                done.add(id(node))
                order.append(node)
            else:
                stack.append((tensor, True))
                stack.extend((x, False) for x in reversed(node.input_tensors))
        return [self._step(node) for node in order]

    def _step(self, node: Any) -> TracedCall:
        operation, owner = node.operation, self.owners.get(id(node.operation))
        place, line = self.paths.get(id(owner), ""), self.lines.get(id(operation), ("", 0))
        path = self.paths.get(id(operation))
        if path is None:
            path = operation.name if isinstance(operation, keras.Layer) else type(operation).__name__.lower()
            path = f"{place}/{path}" if place else path
        return TracedCall(operation, node.arguments.args, node.arguments.kwargs, node.outputs, path, place, owner, line)


def _takes(layer: Any, argument: str) -> bool:
    return argument in inspect.signature(layer.call).parameters


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and not isinstance(value, keras.KerasTensor)
