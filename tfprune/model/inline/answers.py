"""What a call asks of Keras while it is traced, answered so that it does what a graph can hold."""

import contextlib
import functools
import inspect
import string
from collections.abc import Callable, Iterator
from typing import Any

import keras

from tfprune.model.hooks import is_of_keras
from tfprune.model.inline.tensorflow_functions import tensorflow_by_keras
from tfprune.model.scores import scores_as_long_as_keys
from tfprune.model.substitutes import attribute, instead, property_instead

BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Flag:
    """Stands for `training` while a layer's call is traced, and notes that it is asked."""

    def __init__(self, value: bool, note: Callable[[], None]):
        self.value, self.note = value, note

    def __bool__(self) -> bool:
        self.note()
        return self.value


@contextlib.contextmanager
def losses_told(note: Callable[[Any], None]) -> Iterator[None]:
    """Tells `note` of every layer that adds a loss, which no symbolic tensor can be."""
    with instead(keras.Layer, "add_loss", lambda plain: lambda layer, loss: note(layer)):
        yield


@contextlib.contextmanager
def numbers_of_axes() -> Iterator[None]:
    """Lets `keras.ops.ndim` be a number, which code counts and compares with; Keras gives a symbolic tensor."""

    def counted(plain: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x: len(x.shape) if isinstance(x, keras.KerasTensor) else plain(x)

    with instead(keras.ops, "ndim", counted), instead(keras.ops.numpy, "ndim", counted):
        yield


@contextlib.contextmanager
def compared_with_symbols() -> Iterator[None]:
    """Lets `==`, `<` and their kin compare symbolic tensors entry by entry, as they do others, in the user's code.

    TensorFlow does not ask Keras what it does not know itself, and Keras has no `==` for its symbolic tensors.
    """
    import tensorflow as tf

    def asking(plain: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x, y: NotImplemented if isinstance(y, keras.KerasTensor) else plain(x, y)

    def equal(plain: Callable[..., Any]) -> Callable[..., Any]:
        def compared(x: Any, y: Any) -> Any:
            frame: Any = inspect.currentframe()  # below it the exchanged method, and below that the code that compares
            comparable = hasattr(y, "shape") or isinstance(y, (int, float))
            if is_of_keras(frame.f_back.f_back) or not comparable:
                return plain(x, y)
            return keras.ops.equal(x, y)

        return compared

    with contextlib.ExitStack() as stack:
        for name in ("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"):
            stack.enter_context(instead(tf.Tensor, name, asking))
        stack.enter_context(instead(keras.KerasTensor, "__eq__", equal))
        yield


@contextlib.contextmanager
def arrays_give_way() -> Iterator[None]:
    """Lets `array * x` be what `x * array` is: NumPy would take a symbolic tensor for an array, and fail."""
    with attribute(keras.KerasTensor, "__array_ufunc__", None):
        yield


@contextlib.contextmanager
def equations_in_capitals() -> Iterator[None]:
    """Lets `keras.ops.einsum` take capitals for axes, of which Keras' shapes know some only."""

    def small(plain: Callable[..., Any]) -> Callable[..., Any]:
        def einsum(subscripts: str, *operands: Any, **kwargs: Any) -> Any:
            capitals = sorted({letter for letter in subscripts if letter.isupper()})
            free = [letter for letter in string.ascii_lowercase if letter not in subscripts]
            renamed = subscripts.translate({ord(one): other for one, other in zip(capitals, free)})
            return plain(renamed, *operands, **kwargs)

        return einsum

    with instead(keras.ops, "einsum", small), instead(keras.ops.numpy, "einsum", small):
        yield


@contextlib.contextmanager
def triangles_of_any_size() -> Iterator[None]:
    """Lets `keras.ops.triu` and `tril` take a diagonal outside of a matrix, as a window longer than a sequence has."""

    def within(plain: Callable[..., Any]) -> Callable[..., Any]:
        def triangle(x: Any, k: Any = 0) -> Any:
            rows, columns = x.shape[-2:]
            return plain(x, max(-rows, min(k, columns)) if isinstance(k, int) and rows and columns else k)

        return triangle

    with contextlib.ExitStack() as stack:
        for module in (keras.ops, keras.ops.numpy):
            for name in ("triu", "tril"):
                stack.enter_context(instead(module, name, within))
        yield


@contextlib.contextmanager
def bounds_as_operands() -> Iterator[None]:
    """Lets `keras.ops.clip` take tensors as bounds, which its operation would hold as settings that cannot be saved."""

    def bounded(plain: Callable[..., Any]) -> Callable[..., Any]:
        def clip(x: Any, x_min: Any, x_max: Any) -> Any:
            if not isinstance(x, keras.KerasTensor) or not any(hasattr(bound, "shape") for bound in (x_min, x_max)):
                return plain(x, x_min, x_max)
            low, high = (keras.ops.cast(bound, x.dtype) for bound in (x_min, x_max))
            return keras.ops.maximum(keras.ops.minimum(x, high), low)  # the order counts where low is above high

        return clip

    with instead(keras.ops, "clip", bounded), instead(keras.ops.numpy, "clip", bounded):
        yield


LONGEST_LOOP = 512  # passes that are written out; a graph of more is of no use to anyone


@contextlib.contextmanager
def loops_written_out() -> Iterator[None]:
    """Lets `keras.ops.fori_loop` between two numbers be the passes of its body, which may use tensors around it."""

    def written_out(plain: Callable[..., Any]) -> Callable[..., Any]:
        def loop(lower: Any, upper: Any, body_fun: Callable[[int, Any], Any], init_val: Any) -> Any:
            if not (isinstance(lower, int) and isinstance(upper, int) and upper - lower <= LONGEST_LOOP):
                return plain(lower, upper, body_fun, init_val)
            return functools.reduce(lambda value, step: body_fun(step, value), range(lower, upper), init_val)

        return loop

    with instead(keras.ops, "fori_loop", written_out):
        yield


class ListedShape(tuple[int, ...]):
    """The shape of a symbolic tensor, with what TensorFlow's shapes have."""

    def as_list(self) -> list[int]:
        """The sizes of all axes."""
        return list(self)

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self)


@contextlib.contextmanager
def shapes_as_lists() -> Iterator[None]:
    """Lets `x.shape.as_list()` and `x.shape.rank` be what they are of TensorFlow's tensors, in the user's code."""

    def shape(plain: Callable[..., Any]) -> Callable[..., Any]:
        def sizes(x: Any) -> Any:
            frame: Any = inspect.currentframe()  # below it the exchanged property, and below that the code that asks
            return plain(x) if is_of_keras(frame.f_back.f_back) else ListedShape(plain(x))

        return sizes

    with property_instead(keras.KerasTensor, "shape", shape):
        yield


@contextlib.contextmanager
def sizes_by_name() -> Iterator[None]:
    """Lets the user's layers be called on sizes by their places, which Keras allows of TensorFlow's tensors alone."""

    def calling(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            first = next((place for place, x in enumerate(args) if isinstance(x, int)), len(args))
            names = [each.name for each in inspect.signature(layer.call).parameters.values() if each.kind in BY_NAME]
            if first == len(args) or len(names) < len(args):
                return plain(layer, *args, **kwargs)
            return plain(layer, *args[:first], **dict(zip(names[first:], args[first:])), **kwargs)

        return call

    with instead(keras.Layer, "__call__", calling):
        yield


@contextlib.contextmanager
def no_known_backend() -> Iterator[None]:
    """Lets layers that have a way for one backend take the one of `keras.ops`, which they have for all others."""
    with instead(keras.config, "backend", lambda plain: lambda: "symbolic"):
        yield


@contextlib.contextmanager
def preprocessing_by_operations() -> Iterator[None]:
    """Lets what Keras' preprocessing computes by its backend be computed by `keras.ops`, also of symbolic tensors."""

    def operations(plain: Callable[..., Any]) -> Callable[..., Any]:
        def found(self: Any, name: str) -> Any:
            if name in ("numpy", "nn", "math", "linalg"):
                return keras.ops
            return getattr(keras.ops, name, None) or plain(self, name)

        return found

    with instead(_backend_of_preprocessing(), "__getattr__", operations):
        yield


@functools.cache
def _backend_of_preprocessing() -> type:
    return type(keras.layers.Rescaling(1.0, name="asked").backend)  # its own name, so that the next Rescaling has its


ANSWERS = (
    numbers_of_axes,
    compared_with_symbols,
    arrays_give_way,
    equations_in_capitals,
    triangles_of_any_size,
    bounds_as_operands,
    loops_written_out,
    shapes_as_lists,
    no_known_backend,
    preprocessing_by_operations,
    scores_as_long_as_keys,
    sizes_by_name,
    tensorflow_by_keras,
)
