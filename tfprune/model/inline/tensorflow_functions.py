"""Functions of TensorFlow, computed by `keras.ops` where they are given symbolic tensors.

Many write `tf.concat` or `tf.nn.relu` in the `call` of a layer. While it is traced, such a function computes by Keras
where it is given a symbolic tensor, and stays what it is for all others.
"""

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from tfprune.errors import listing
from tfprune.model.hooks import is_of_keras
from tfprune.model.inline.reasons import CannotOpenError
from tfprune.model.substitutes import instead

Symbolic = Callable[..., Any]


def _numbers(sizes: Any) -> Any:
    """Sizes and axes as Python numbers, also those that TensorFlow has put into a tensor."""
    return np.asarray(sizes).tolist() if ops.is_tensor(sizes) or isinstance(sizes, np.ndarray) else sizes


def _shape(shape: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in _numbers(shape))


def _tensor(value: Any, like: Any) -> Any:
    """A tensor, also of numbers in a list, in the type of another one."""
    return value if hasattr(value, "shape") else np.asarray(value, like.dtype)


def _split(x: Any, num_or_size_splits: Any, axis: int = 0) -> Any:
    parts = _numbers(num_or_size_splits)
    if isinstance(parts, int):
        return ops.split(x, parts, axis)
    rest = x.shape[axis] - sum(int(part) for part in parts if part != -1)
    ends = np.cumsum([rest if part == -1 else int(part) for part in parts])
    return ops.split(x, [int(end) for end in ends[:-1]], axis)


def _pad(x: Any, paddings: Any, mode: str = "CONSTANT", constant_values: Any = 0) -> Any:
    filled = {"constant_values": constant_values} if mode.lower() == "constant" else {}
    return ops.pad(x, _numbers(paddings), mode.lower(), **filled)


def _matmul(x: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    return ops.matmul(ops.swapaxes(x, -1, -2) if transpose_a else x, ops.swapaxes(b, -1, -2) if transpose_b else b)


def _one_hot(x: Any, depth: Any, axis: int | None = None, dtype: Any = "float32") -> Any:
    return ops.one_hot(x, int(depth), -1 if axis is None else axis, dtype)


def _segments(function: Symbolic) -> Symbolic:
    return lambda x, segment_ids, num_segments: function(x, _array(segment_ids), num_segments)


def _array(numbers: Any) -> Any:
    return numbers if hasattr(numbers, "shape") else np.asarray(numbers, "int32")


def _segment_mean(x: Any, segment_ids: Any, num_segments: int) -> Any:
    ones = ops.sum(ops.zeros_like(x), tuple(range(1, len(x.shape))), keepdims=True) + 1  # one a row, of no channel
    counts = ops.maximum(ops.segment_sum(ones, segment_ids, num_segments), 1)
    return ops.segment_sum(x, segment_ids, num_segments) * ops.reciprocal(counts)


class Complex(NamedTuple):
    """A complex tensor as `keras.ops` has it."""

    real: Any
    imag: Any


def _cast(x: Any, dtype: Any) -> Any:
    is_complex = keras.backend.standardize_dtype(dtype).startswith("complex")
    return Complex(x, ops.zeros_like(x)) if is_complex else ops.cast(x, dtype)


def _conv1d(x: Any, filters: Any, stride: Any, padding: str, dilations: Any = 1) -> Any:
    steps = stride if isinstance(stride, int) else tuple(stride)[len(stride) // 2]
    return ops.conv(x, filters, steps, padding.lower(), "channels_last", dilations)


def _norm(x: Any, axis: Any = None, keepdims: bool | None = None) -> Any:
    return ops.sqrt(ops.sum(ops.square(x), axis=_numbers(axis), keepdims=bool(keepdims)))


def _l2_normalize(x: Any, axis: Any = None, epsilon: float = 1e-12) -> Any:
    squares = ops.sum(ops.square(x), axis=_numbers(axis), keepdims=True)
    return x * ops.rsqrt(ops.maximum(squares, epsilon))


def _silu(x: Any, beta: float = 1.0) -> Any:
    return x * ops.sigmoid(beta * x)


def _resize(x: Any, size: Any, method: str = "bilinear", antialias: bool = False) -> Any:
    settings = {"interpolation": method, "antialias": antialias, "data_format": "channels_last"}
    resized = ops.image.resize(x, _shape(size), **settings)
    return resized if method == "nearest" else ops.cast(resized, "float32")


def _extract_patches(x: Any, sizes: Any, strides: Any, rates: Any, padding: str) -> Any:
    size, stride, rate = (_of_image(each) for each in (sizes, strides, rates))
    return ops.image.extract_patches(x, tuple(size), tuple(stride), tuple(rate), padding.lower(), "channels_last")


def _crop(x: Any, offset_height: int, offset_width: int, target_height: int, target_width: int) -> Any:
    rows = slice(offset_height, offset_height + target_height)
    return x[..., rows, offset_width : offset_width + target_width, :]


def _place(x: Any, offset_height: int, offset_width: int, target_height: int, target_width: int) -> Any:
    *others, height, width, _ = x.shape
    rows = (offset_height, target_height - offset_height - height)
    return ops.pad(x, [*[(0, 0)] * len(others), rows, (offset_width, target_width - offset_width - width), (0, 0)])


def _depth_to_space(x: Any, block_size: int) -> Any:
    if hasattr(ops.nn, "depth_to_space"):  # which takes images of any size
        return ops.nn.depth_to_space(x, block_size, "channels_last")
    _, height, width, channels = x.shape
    blocks = ops.reshape(x, (-1, height, width, block_size, block_size, channels // block_size**2))
    return ops.reshape(_swapped(blocks), (-1, height * block_size, width * block_size, blocks.shape[-1]))


def _space_to_depth(x: Any, block_size: int) -> Any:
    if hasattr(ops.nn, "space_to_depth"):
        return ops.nn.space_to_depth(x, block_size, "channels_last")
    _, height, width, channels = x.shape
    blocks = ops.reshape(x, (-1, height // block_size, block_size, width // block_size, block_size, channels))
    return ops.reshape(_swapped(blocks), (-1, height // block_size, width // block_size, block_size**2 * channels))


def _swapped(blocks: Any) -> Any:
    return ops.transpose(blocks, (0, 1, 3, 2, 4, 5))


def _of_image(sizes: Any) -> Any:
    """Sizes of a window over the axes of an image, without those of samples and channels."""
    return tuple(sizes)[1:3] if isinstance(sizes, Sequence) and len(sizes) == 4 else sizes


def _convolution(function: Symbolic) -> Symbolic:
    def convolution(x: Any, strides: Any, padding: str, dilations: Any = 1, **kernel: Any) -> Any:
        (filters,) = kernel.values()  # "filters" or "filter"
        return function(x, filters, _of_image(strides), padding.lower(), "channels_last", _of_image(dilations))

    return convolution


def _pooling(function: Symbolic) -> Symbolic:
    def pooling(x: Any, ksize: Any, strides: Any, padding: str) -> Any:
        return function(x, _of_image(ksize), _of_image(strides), padding.lower(), "channels_last")

    return pooling


def _reduction(function: Symbolic) -> Symbolic:
    return lambda x, axis=None, keepdims=False: function(x, axis=_numbers(axis), keepdims=keepdims)


def _places(function: Symbolic) -> Symbolic:
    return lambda x, axis=None, output_type="int64": ops.cast(function(x, axis=axis or 0), output_type)


def _along(function: Symbolic) -> Symbolic:
    return lambda x, axis=None: function(x, axis=-1 if axis is None else axis)


# Those of tf.image, which has others of the names below.
OF_IMAGES: dict[str, Symbolic] = {
    "resize": _resize,
    "extract_patches": _extract_patches,
    "crop_to_bounding_box": _crop,
    "pad_to_bounding_box": _place,
}
# Each takes the first argument of TensorFlow's function by its place, and the others by TensorFlow's names.
FUNCTIONS: dict[str, Symbolic] = {
    "concat": lambda x, axis: ops.concatenate(list(x), _numbers(axis)),
    "stack": lambda x, axis=0: ops.stack(list(x), axis),
    "unstack": lambda x, num=None, axis=0: ops.unstack(x, num, axis),
    "split": _split,
    "shape": lambda x, out_type=None: tuple(x.shape),
    "rank": lambda x: len(x.shape),
    "reshape": lambda x, shape: ops.reshape(x, _shape(shape)),
    "transpose": lambda x, perm=None: ops.transpose(x, _numbers(perm)),
    "expand_dims": lambda x, axis: ops.expand_dims(x, _numbers(axis)),
    "squeeze": lambda x, axis=None: ops.squeeze(x, _numbers(axis)),
    "tile": lambda x, multiples: ops.tile(x, _shape(multiples)),
    "repeat": lambda x, repeats, axis=None: ops.repeat(x, _numbers(repeats), axis),
    "broadcast_to": lambda x, shape: ops.broadcast_to(x, _shape(shape)),
    "pad": _pad,
    "reverse": lambda x, axis: ops.flip(x, _numbers(axis)),
    "roll": lambda x, shift, axis: ops.roll(x, _numbers(shift), _numbers(axis)),
    "gather": lambda x, indices, axis=None: ops.take(x, indices, axis=axis or 0),
    "cast": _cast,
    "real": lambda x: x.real if isinstance(x, Complex) else x,
    "imag": lambda x: x.imag if isinstance(x, Complex) else ops.zeros_like(x),
    "fft2d": lambda x: Complex(*ops.fft2(x)),
    "identity": lambda x: x,
    "stop_gradient": ops.stop_gradient,
    "zeros_like": lambda x, dtype=None: ops.zeros_like(x, dtype),
    "ones_like": lambda x, dtype=None: ops.ones_like(x, dtype),
    "one_hot": _one_hot,
    "where": lambda condition, x, y: ops.where(condition, x, y),  # noqa: PLW0108 (by TensorFlow's names)
    "einsum": lambda x, inputs: ops.einsum(x, *inputs),
    "matmul": _matmul,
    "tensordot": lambda x, b, axes: ops.tensordot(x, b, _numbers(axes)),
    "clip_by_value": lambda x, clip_value_min, clip_value_max: ops.clip(x, clip_value_min, clip_value_max),  # noqa: PLW0108
    "cumsum": lambda x, axis=0: ops.cumsum(x, axis),
    "norm": _norm,
    "l2_normalize": _l2_normalize,
    "unsorted_segment_sum": _segments(ops.segment_sum),
    "unsorted_segment_max": _segments(ops.segment_max),
    "unsorted_segment_mean": _segments(_segment_mean),
    "top_k": lambda x, k=1: ops.top_k(x, int(k)),
    "argmax": _places(ops.argmax),
    "argmin": _places(ops.argmin),
    "softmax": _along(ops.softmax),
    "log_softmax": _along(ops.log_softmax),
    "gelu": lambda x, approximate=False: ops.gelu(x, approximate),
    "silu": _silu,
    "swish": _silu,
    "leaky_relu": lambda x, alpha=0.2: ops.leaky_relu(x, alpha),
    "bias_add": lambda x, bias: ops.add(x, _tensor(bias, x)),
    "moments": lambda x, axes, keepdims=False: tuple(
        moment(x, _numbers(axes), keepdims=keepdims) for moment in (ops.mean, ops.var)
    ),
    "conv1d": _conv1d,
    "conv2d": _convolution(ops.conv),
    "depthwise_conv2d": _convolution(ops.depthwise_conv),
    "max_pool2d": _pooling(ops.max_pool),
    "avg_pool2d": _pooling(ops.average_pool),
    **OF_IMAGES,
    "depth_to_space": _depth_to_space,
    "space_to_depth": _space_to_depth,
    "ensure_shape": lambda x, shape: x,
    "check_numerics": lambda x, message: x,
    **{
        f"reduce_{name}": _reduction(getattr(ops, name)) for name in ("mean", "sum", "max", "min", "prod", "any", "all")
    },
    "reduce_std": _reduction(ops.std),
    "reduce_variance": _reduction(ops.var),
    "reduce_logsumexp": _reduction(ops.logsumexp),
}
# The same tensors in the same order as the function of `keras.ops`, and nothing else.
UNARY = (
    *("abs", "exp", "log", "sqrt", "rsqrt", "square", "sin", "cos", "sign", "floor", "round", "negative", "reciprocal"),
    *("sigmoid", "tanh", "relu", "relu6", "elu", "selu", "softplus", "softsign", "erf", "logical_not"),
)
BINARY = (
    *("add", "subtract", "multiply", "divide", "maximum", "minimum", "pow", "floordiv"),
    *("equal", "not_equal", "greater", "less", "greater_equal", "less_equal", "logical_and", "logical_or"),
)
IN_KERAS = {"pow": "power", "floordiv": "floor_divide"}


@contextlib.contextmanager
def tensorflow_by_keras() -> Iterator[None]:
    """Lets functions of TensorFlow take symbolic tensors, and count up to an open size as `keras.ops.arange` does."""
    import tensorflow as tf

    with contextlib.ExitStack() as stack:
        for module, name, _ in _places_of_functions():
            stack.enter_context(instead(module, name, functools.partial(_taking_symbols, name)))
        for name in (each for each in dir(tf.debugging) if each.startswith("assert")):
            stack.enter_context(instead(tf.debugging, name, _asserting))
        stack.enter_context(instead(tf, "range", _counting))
        yield


def taking_symbols(function: Any) -> Any:
    """A function of TensorFlow that an attribute holds, as one that takes symbolic tensors; all others as they are."""
    name = next((name for _, name, plain in _places_of_functions() if plain is function), None)
    return function if name is None else _taking_symbols(name, function)


@functools.cache
def _places_of_functions() -> list[tuple[Any, str, Callable[..., Any]]]:
    """The modules and names under which TensorFlow has its functions; asked before any of them is exchanged."""
    import tensorflow as tf

    modules = (tf, tf.math, tf.nn, tf.linalg, tf.signal)
    places = [(module, name) for module in modules for name in (*FUNCTIONS, *UNARY, *BINARY)]
    places += [(tf.image, name) for name in OF_IMAGES]  # tf.image.transpose is another one than tf.transpose
    places += [(tf.debugging, "check_numerics")]
    found = [(module, name, getattr(module, name, None)) for module, name in places]
    return [(module, name, plain) for module, name, plain in found if isinstance(plain, types.FunctionType)]


def _taking_symbols(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        if not _symbolic(args, kwargs):
            return plain(*args, **kwargs)
        given = _given(plain, args, kwargs)
        symbolic = FUNCTIONS.get(name)
        if symbolic is None:
            return _alike(name, list(given.values()))
        first = given.pop(next(iter(given)))
        try:
            inspect.signature(symbolic).bind(first, **given)
        except TypeError as error:
            raise CannotOpenError(
                f"it calls TensorFlow's {name}() with {listing(given)}, which keras.ops does not have so; write the "
                "functions of keras.ops"
            ) from error
        return symbolic(first, **given)

    return function


def _asserting(plain: Callable[..., Any]) -> Callable[..., Any]:
    """What is asserted of symbolic tensors is left to the model itself."""

    def asserting(*args: Any, **kwargs: Any) -> Any:
        return None if _symbolic(args, kwargs) else plain(*args, **kwargs)

    return asserting


def _symbolic(*given: Any) -> bool:
    return any(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten(given))


def _given(plain: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by their names, in the order of the function; without its name and what is as always."""
    bound = inspect.signature(plain).bind(*args, **kwargs)
    defaults = {key: parameter.default for key, parameter in bound.signature.parameters.items()}
    return {
        key: value
        for key, value in bound.arguments.items()
        if key != "name" and not (isinstance(value, str | int | float) and value == defaults[key])
    }


def _alike(name: str, tensors: list[Any]) -> Any:
    like = next(x for x in tensors if isinstance(x, keras.KerasTensor))
    return getattr(ops, IN_KERAS.get(name, name))(*(_tensor(x, like) for x in tensors))


def _counting(plain: Callable[..., Any]) -> Callable[..., Any]:
    def counting(*args: Any, **kwargs: Any) -> Any:
        frame: Any = inspect.currentframe()  # below it what chose this function, and below that the code that counts
        given = _given(plain, args, kwargs)
        dtype = given.pop("dtype", None)
        if is_of_keras(frame.f_back.f_back) or not all(isinstance(each, int) for each in given.values()):
            return plain(*args, **kwargs)
        return ops.arange(given["start"], given.get("limit"), given.get("delta", 1), dtype or "int32")

    return counting
