"""Masks of padded steps, which Keras carries on tensors from call to call, as arguments that a graph holds.

An operation between two layers drops what Keras has noted on a tensor, and the layer that notes it anew is gone once
its call is opened.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from tfprune.model.hooks import forget_mask, mask_of


def masked(plain: Callable[..., Any]) -> Callable[..., Any]:
    """A call of a layer that is told the masks that Keras would fill in, which Keras' records leave out."""

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        attends = isinstance(layer, keras.layers.MultiHeadAttention)
        try:
            given = inspect.signature(layer.call).bind_partial(*args, **kwargs).arguments
        except TypeError:  # Keras says better what is wrong with it
            return plain(layer, *args, **kwargs)
        filled = _filled(layer, given)
        outputs = plain(layer, *args, **{**kwargs, **(_of_attention(given, filled) if attends else filled)})
        if attends:  # as its call does when it runs
            for value in (given.get(name) for name in ("query", "value", "key")):
                if value is not None and keras.backend.standardize_dtype(value.dtype) == layer.input_dtype:
                    forget_mask(value)
        return outputs

    return call


def _filled(layer: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The masks that a layer takes, was not given, and finds on the tensors that it was given."""
    taken = inspect.signature(layer.call).parameters
    tensors = {name: value for name, value in given.items() if _is_of_tensors(value)}
    found = {"mask" if len(tensors) == 1 else f"{name}_mask": value for name, value in tensors.items()}
    masks = {
        name: keras.tree.map_structure(mask_of, value)
        for name, value in found.items()
        if name in taken and (given.get(name) is None or name == "query_mask")
    }
    return {name: mask for name, mask in masks.items() if any(x is not None for x in keras.tree.flatten(mask))}


def _is_of_tensors(value: Any) -> bool:
    flat = keras.tree.flatten(value)
    return bool(flat) and all(isinstance(x, keras.KerasTensor) or keras.ops.is_tensor(x) for x in flat)


def _of_attention(given: Mapping[str, Any], filled: Mapping[str, Any]) -> dict[str, Any]:
    """One mask of all that were found: attention reads that of its queries off the tensor, whatever it is given."""
    masks = [keras.ops.expand_dims(mask, -1 if name == "query_mask" else -2) for name, mask in filled.items()]
    if not masks:
        return {}
    if given.get("attention_mask") is not None:
        masks.append(given["attention_mask"])
    together, *others = (keras.ops.cast(mask, "bool") for mask in masks)
    for other in others:
        together = keras.ops.logical_and(together, other)
    return {"attention_mask": together}
