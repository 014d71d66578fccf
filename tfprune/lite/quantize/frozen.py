"""A model that has learned with the rounding of int8, made ready for the converter: plain layers, fixed ranges."""

from typing import Any

import keras

from tfprune.errors import PruningError, listing
from tfprune.lite.quantize.fake_quantize import FakeQuantize
from tfprune.lite.quantize.kernel import QuantizedKernel
from tfprune.model.state import carry_state


def frozen(model: keras.Model) -> keras.Model:
    """The model for the converter: plain layers whose kernels are on the int8 grid, between fixed ranges.

    Batch norms are folded for good. Its answers are those of `model` at inference (but for halves in average pooling,
    which the `.tflite` rounds as `model` does), and its zeros those of the `.tflite`.

    Args:
        model: What `quantize_aware` gave, calibrated or trained.

    Raises:
        PruningError: A range has never seen data.
    """
    unseen = [layer for layer in model.layers if isinstance(layer, FakeQuantize) and not layer.is_observed()]
    if unseen:
        names = listing(name for layer in unseen for name in layer.sources)
        raise PruningError(
            f"The int8 ranges of {names} are unknown, for the model has seen no data since quantize_aware(). Train it "
            "(fit), or give samples: quantize_aware(model, data=images) or calibrate(quantized, images)."
        )
    originals: dict[int, tuple[keras.Layer, keras.Layer]] = {}  # new and old layer, by id of the new
    scales: dict[int, Any] = {}  # the step of a FakeQuantize layer, by id of its symbol; then by id of the layer after

    def plain(layer: Any) -> Any:
        if isinstance(layer, FakeQuantize):
            return layer.fixed()
        layer = getattr(layer, "holds_masks_of", layer)
        if isinstance(layer, QuantizedKernel):
            config = {**layer.layer.get_config(), "name": layer.name, "use_bias": True}
            fresh = type(layer.layer).from_config(config)
        else:
            fresh = float32_copy(layer, layer.name)
        if isinstance(layer, keras.Layer):
            originals[id(fresh)] = fresh, layer
        return fresh

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, FakeQuantize):
            kwargs.pop("halves_away_from_zero", None)  # the kernel's own doing
            results = layer(*args, **kwargs)
            scales[id(results[1])] = layer.step()
            symbols.append(results)
            return results
        if "scale" in kwargs:
            step = scales[id(kwargs.pop("scale"))]
            # A shared layer meets several scales; the converter rounds its bias for each.
            scales[id(layer)] = None if id(layer) in scales else step
        return layer(*args, **kwargs)

    symbols: list[Any] = []  # kept alive, so that ids stay theirs
    copy = keras.models.clone_model(model, clone_function=plain, call_function=call)
    for layer, original in originals.values():
        if isinstance(original, QuantizedKernel):
            kernel, bias = original.deployed(scales[id(layer)])
            layer.kernel.assign(kernel)
            layer.bias.assign(keras.ops.zeros_like(layer.bias) if bias is None else bias)
        else:
            carry_state(original, layer)
    return copy


def float32_copy(operation: Any, name: str) -> Any:
    """A new layer or operation of the same configuration that computes in float32, whatever the policy."""
    config = _in_float32(operation.get_config())
    try:
        if isinstance(operation, keras.layers.Lambda):  # from_config refuses functions, lest a file bring them
            copy = keras.layers.Lambda(operation.function, arguments=operation.arguments, name=name, dtype="float32")
        elif isinstance(operation, keras.Layer):
            copy = type(operation).from_config({**config, "name": name})
        else:
            copy = type(operation).from_config(config)
            copy.name = name
    except Exception as error:
        raise PruningError(
            f"The layer '{operation.name}' ({type(operation).__name__}) cannot be copied from its config: {error} "
            "Give it a get_config() that returns every argument of __init__."
        ) from error
    return copy


def _in_float32(config: Any) -> Any:
    """A layer's config with every dtype policy in it, those of inner layers too, replaced by float32."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return "float32"
        return {
            key: "float32" if key == "dtype" and _is_float_policy(value) else _in_float32(value)
            for key, value in config.items()
        }
    return [_in_float32(entry) for entry in config] if isinstance(config, list) else config


def _is_float_policy(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("float", "bfloat", "mixed_"))
