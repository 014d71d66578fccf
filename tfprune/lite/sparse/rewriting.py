"""A model written anew as XNNPACK's kernels need it: paddings explicit, the image turned, the head Dense."""

from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.lite.sparse.cluster import Cluster
from tfprune.model.copying import scope_of
from tfprune.model.fresh import fresh_layer
from tfprune.model.graph import Call, flow, model_like
from tfprune.model.tree import as_array

NEAR = 1e-4  # of the answers' scale; sums over turned kernels are rounded in another order


def rewritten(model: keras.Model, cluster: Cluster) -> keras.Model:
    """An equal model whose layers have the same names, for XNNPACK's cluster; it shares nothing with the first.

    Raises:
        PruningError: It answers something else.
    """
    fresh: dict[int, Any] = {}
    weights: list[tuple[Any, Any, str]] = []
    unpadded: dict[int, Any] = {}

    def visit(call: Call) -> list[Any]:
        layer = getattr(call.operation, "holds_masks_of", call.operation)
        if id(layer) not in fresh:
            fresh[id(layer)] = _fresh(layer, call.path, cluster)
            if getattr(layer, "weights", None):
                weights.append((layer, fresh[id(layer)], call.path))
        args = call.args
        if call.path in cluster.pads:
            x = unpadded.get(id(args[0]), args[0])
            if call.path == cluster.stem and cluster.turned:
                x = keras.ops.flip(x, axis=(1, 2))
            args = (keras.layers.ZeroPadding2D(cluster.pads[call.path], name=f"{layer.name}_padding")(x), *args[1:])
        results = keras.tree.flatten(fresh[id(layer)](*args, **call.kwargs))
        if isinstance(layer, keras.layers.ZeroPadding2D):
            unpadded[id(results[0])] = args[0]
        return results

    with scope_of(model):
        inputs = [keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name) for x in model.inputs]
        outputs = flow(model, inputs, visit)
        outputs = [
            x if x.shape == old.shape else keras.layers.Reshape(old.shape[1:])(x)
            for x, old in zip(outputs, model.outputs)
        ]
        new = model_like(model, inputs, outputs)
    for old, layer, path in weights:
        layer.set_weights([_values(variable, path, cluster) for variable in old.weights])
    _check(model, new)
    return new


def _fresh(layer: Any, path: str, cluster: Cluster) -> Any:
    """A new layer in the place of one."""
    config = layer.get_config()
    if path in cluster.heads:
        shared = ("name", "trainable", "dtype", "activation", "use_bias", "kernel_regularizer", "bias_regularizer")
        return keras.layers.Dense.from_config({"units": layer.filters, **{key: config[key] for key in shared}})
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        # What comes back into the cluster has four axes; what leaves it must not, or XNNPACK fails on a Dense layer.
        config["keepdims"] = path in cluster.means or (config["keepdims"] and not cluster.heads)
    return fresh_layer(layer, {**config, "padding": "valid"} if path in cluster.pads else config)


def _values(variable: keras.Variable, path: str, cluster: Cluster) -> np.ndarray:
    """A weight as the new layer has it."""
    values = as_array(variable)
    if path in cluster.heads and values.ndim == 4:
        return values[0, 0]
    if cluster.turned and path in cluster.turning and values.ndim == 4:
        return values[::-1, ::-1]
    return values


def _check(model: keras.Model, new: keras.Model) -> None:
    generator = np.random.default_rng(0)
    inputs = [generator.uniform(-1, 1, [size or 1 for size in x.shape]).astype(np.float32) for x in model.inputs]
    wanted, given = (
        [as_array(x) for x in keras.tree.flatten(each(inputs[0] if len(inputs) == 1 else inputs, training=False))]
        for each in (model, new)
    )
    for one, other in zip(wanted, given):
        error = float(np.abs(one - other).max(initial=0.0)) / max(float(np.abs(one).max(initial=0.0)), 1e-6)
        if not error <= NEAR:
            raise PruningError(
                f"'{model.name}' written for XNNPACK answers otherwise (off by {error:.2%}): a layer of it depends on "
                "where in the image it looks. Write ZeroPadding2D(1) and padding='valid' before its convolutions of "
                "stride 2 yourself, and train it."
            )
