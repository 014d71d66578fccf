"""Layers without a kernel in int8: sums and products, values in other places, pooling, resizing."""

from typing import Any

import keras
import numpy as np

from tfprune.lite.quantize.program import MOVED, SAME, Program, Value
from tfprune.lite.quantize.rules.registry import NoInt8KernelError, Use, require_channels_last, rule

layers = keras.layers


@rule(layers.Add, layers.Multiply)
def add_or_multiply(program: Program, use: Use) -> Value:
    """Two at a time, each result with a range of its own."""
    return in_pairs(program, use, type(use.operation))


@rule(layers.Average)
def average(program: Program, use: Use) -> Value:
    """The sum, then a product with one over their number."""
    total = in_pairs(program, use, layers.Add)
    return program.emit(program.scaled(1 / len(use.inputs), use.name), total, name=use.name)[0]


def in_pairs(program: Program, use: Use, kind: type) -> Value:
    """Joins the inputs by a layer that takes two."""
    value, *others = use.inputs
    for number, other in enumerate(others):
        name = use.operation.name if number == 0 else program.unique(f"{use.name}_pair")
        (value,) = program.emit(kind(name=name), [value, other], name=use.name, takes_relu=True)
    return value


@rule(layers.Subtract, "Add", "Subtract", "Multiply")
def of_two(program: Program, use: Use) -> Value:
    """A sum, difference or product of two tensors, or of a tensor and one number."""
    for x in keras.tree.flatten((use.args, use.kwargs)):
        if not isinstance(x, Value) and np.ndim(x) > 0:
            raise NoInt8KernelError("it takes a constant array")
    return program.emit(use.operation, *use.args, name=use.name, takes_relu=True, **use.kwargs)[0]


@rule(
    layers.Concatenate,
    layers.Maximum,
    layers.Minimum,
    layers.Flatten,
    layers.Reshape,
    layers.Permute,
    layers.RepeatVector,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.UpSampling1D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.Identity,
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.GaussianNoise,
    layers.GaussianDropout,
    layers.AlphaDropout,
    layers.ActivityRegularization,
    layers.RandomFlip,
    layers.RandomRotation,
    layers.RandomTranslation,
    layers.RandomZoom,
    layers.RandomContrast,
    layers.RandomBrightness,
    "Concatenate",
    "Reshape",
    "Transpose",
    "Squeeze",
    "ExpandDims",
    "GetItem",
)
def moved(program: Program, use: Use) -> Any:
    """Gives values that it takes, so they stay on their scale; what only acts in training is passed through."""
    require_channels_last(use.operation)
    return program.emit(use.operation, *use.args, name=use.name, result=MOVED, count=use.results, **use.kwargs)


@rule(layers.AveragePooling1D, layers.AveragePooling2D)
def average_pooling(program: Program, use: Use) -> Value:
    """TFLite's kernel keeps the scale of its input, and rounds halves in a way of its own."""
    require_channels_last(use.operation)
    (value,) = program.emit(use.operation, *use.args, name=use.name, result=SAME)
    value.halves_away_from_zero = True
    return value


@rule(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D)
def global_average_pooling(program: Program, use: Use) -> Value:
    """A mean, with a range of its own."""
    require_channels_last(use.operation)
    if len(use.inputs) > 1 or use.kwargs.get("mask") is not None:
        raise NoInt8KernelError("a mean over a mask")
    return program.emit(use.operation, *use.args, name=use.name)[0]


@rule(layers.UpSampling2D, layers.Resizing)
def resizing(program: Program, use: Use) -> Value:
    """Nearest neighbours move values; bilinear weights are computed on the scale of the input."""
    layer = use.operation
    require_channels_last(layer)
    if layer.interpolation not in ("nearest", "bilinear"):
        raise NoInt8KernelError(f"the interpolation {layer.interpolation!r}; int8 has 'nearest' and 'bilinear'")
    if getattr(layer, "crop_to_aspect_ratio", False) or getattr(layer, "pad_to_aspect_ratio", False):
        raise NoInt8KernelError("it keeps the aspect ratio")
    result = MOVED if layer.interpolation == "nearest" else SAME
    return program.emit(layer, *use.args, name=use.name, result=result)[0]
