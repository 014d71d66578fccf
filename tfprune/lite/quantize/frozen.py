"""A model that has learned with the rounding of int8, made ready for the converter: plain layers, fixed ranges."""

from collections.abc import Collection
from typing import Any

import keras

from tfprune.errors import PruningError, listing
from tfprune.lite.quantize.fake_quantize import FakeQuantize
from tfprune.lite.quantize.kernel import QuantizedKernel
from tfprune.model.copying import remade
from tfprune.model.fresh import config_of
from tfprune.model.state import carry_state
from tfprune.model.tree import covers, every_layer


class StaysInFloat(keras.layers.Layer):
    """Stands before a layer that is to stay in float, for the converter has no int8 form of it.

    It would round whatever lies between two ranges. `lite.convert.float_layers` takes it out of the file again.
    """

    MARK = "stays_in_float"

    def call(self, inputs: Any) -> Any:
        """A function that nobody computes."""
        return keras.ops.sin(inputs)


def frozen(model: keras.Model, float_layers: Collection[str] = ()) -> keras.Model:
    """The model for the converter: plain layers whose kernels are on the int8 grid, between fixed ranges.

    Batch norms are folded for good. Its answers are those of `model` at inference (but for halves in average pooling,
    which the `.tflite` rounds as `model` does), and its zeros those of the `.tflite`.

    Args:
        model: What `quantize_aware` gave, calibrated or trained.
        float_layers: Names of layers that are to compute in float, with kernels that are not rounded.

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

    calls = _Calls(_in_float(model, float_layers))
    copy = keras.models.clone_model(model, clone_function=plain, call_function=calls)
    for layer, original in originals.values():
        if isinstance(original, QuantizedKernel):
            stays = layer.name in calls.in_float
            kernel, bias = original.in_float() if stays else original.deployed(calls.scales[id(layer)])
            layer.kernel.assign(kernel)
            layer.bias.assign(keras.ops.zeros_like(layer.bias) if bias is None else bias)
        else:
            carry_state(original, layer)
    return copy


class _Calls:
    """Calls the layers of the copy, and takes note of the scale that each meets.

    Args:
        in_float: Names of the layers that stay in float.

    Attributes:
        scales: The step of a `FakeQuantize` layer, by id of its symbol; then by id of the layer after.
    """

    def __init__(self, in_float: set[str]):
        self.in_float = in_float
        self.scales: dict[int, Any] = {}
        self._makers: dict[int, str] = {}  # the layer that made a symbol, by id
        self._symbols: list[Any] = []  # kept alive, so that ids stay theirs

    def __call__(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, FakeQuantize):
            return self._rounded(layer, *args, **kwargs)
        if getattr(layer, "name", None) in self.in_float:
            args, kwargs = keras.tree.map_structure(self._before_float, (args, kwargs))
        if "scale" in kwargs:
            step = self.scales[id(kwargs.pop("scale"))]
            # A shared layer meets several scales; the converter rounds its bias for each.
            self.scales[id(layer)] = None if id(layer) in self.scales else step
        results = layer(*args, **kwargs)
        self._symbols.append(results)
        self._makers[id(results)] = getattr(layer, "name", "")
        return results

    def _rounded(self, layer: FakeQuantize, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("halves_away_from_zero", None)  # the kernel's own doing
        results = layer(*args, **kwargs)
        self.scales[id(results[1])] = layer.step()
        self._symbols.append(results)
        if f"{self._makers.get(id(args[0]))}_activation" in self.in_float:
            return args[0], results[1]  # between a layer and its own activation, both in float
        return results

    def _before_float(self, value: Any) -> Any:
        is_data = isinstance(value, keras.KerasTensor) and value.shape and keras.backend.is_float_dtype(value.dtype)
        if not is_data or self._makers.get(id(value)) in self.in_float:
            return value
        self._symbols.append(StaysInFloat(name=f"{StaysInFloat.MARK}_{len(self._symbols)}")(value))
        return self._symbols[-1]


def _in_float(model: keras.Model, names: Collection[str]) -> set[str]:
    """The names of the layers that are meant, with their activations, which are layers here."""
    # An output has the name of the layer that makes it, which is called otherwise then.
    meant = [f"{name}_1" if name in (getattr(model, "output_names", None) or ()) else name for name in names]
    return {
        layer.name
        for layer in model.layers
        for name in meant
        if covers(name, layer.name) or layer.name == f"{name}_activation"
    }


def float32_copy(operation: Any, name: str) -> Any:
    """A new layer or operation of the same configuration that computes in float32, whatever the policy."""
    try:
        if not isinstance(operation, keras.Layer):
            copy = type(operation).from_config(_in_float32(operation.get_config()))
        elif isinstance(operation, keras.layers.Lambda):  # from_config refuses functions, lest a file bring them
            copy = keras.layers.Lambda(operation.function, arguments=operation.arguments, dtype="float32")
        else:
            config = {**_in_float32(config_of(operation)), "name": name}
            in_float32 = all(layer.dtype_policy.name == "float32" for layer in every_layer(operation))
            copy = remade(operation, config, same_sizes=in_float32)
            if copy.compute_dtype != "float32":  # of a class that takes no dtype
                copy.dtype_policy = "float32"
    except Exception as error:
        raise PruningError(
            f"The layer '{operation.name}' ({type(operation).__name__}) cannot be copied from its config: {error} "
            "Give it a get_config() that returns every argument of __init__."
        ) from error
    copy.name = name
    return copy


def _in_float32(config: Any) -> Any:
    """A layer's config with every dtype policy in it, those of inner layers too, replaced by float32."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return "float32" if _is_float_policy(config["config"]["name"]) else config
        return {
            key: "float32" if key == "dtype" and _is_float_policy(value) else _in_float32(value)
            for key, value in config.items()
        }
    return [_in_float32(entry) for entry in config] if isinstance(config, list) else config


def _is_float_policy(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("float", "bfloat", "mixed_"))
