"""Multiply-accumulates of one forward pass for one sample: what a layer's arithmetic costs, whatever the device.

Counted are products of inputs with weights, and of activations with one another in attention and `matmul`. Adding a
bias, normalisation, activations, pooling and moving data count as 0, as is usual when networks are compared.
"""

from dataclasses import dataclass, field
from typing import Any

import keras

from tfprune.model.graph import Call, flow, is_graph
from tfprune.model.layers import is_counted, layer_macs, shapes_of
from tfprune.model.tree import Place, own_weights, places


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates per sample, by layer.

    Attributes:
        layers: Layer path -> count over all its calls, for the layers that have weights or multiply activations;
            None where it cannot be known (a size in the graph is None, or the model is subclassed).
        unknown: Paths of the layers with weights of a kind not known here; they count as 0.
    """

    layers: dict[str, int | None] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    @property
    def total(self) -> int | None:
        """The sum over the layers, None when one of them is not known."""
        counts = list(self.layers.values())
        return None if None in counts else sum(count for count in counts if count is not None)


def model_macs(model: keras.Model, input_shape: Any = None) -> Macs:
    """Counts the multiply-accumulates of `model` for one sample, layer by layer.

    Args:
        model: Functional or Sequential; nested models are opened, and a layer that is called twice counts twice. A
            subclassed model, also one inside another, has no graph to read: its layers are listed with None.
        input_shape: Shape of one sample (a list of shapes for several inputs), for a model whose `Input` leaves sizes
            open; default: what the model says.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    >>> model_macs(model).total
    40
    """
    counts: dict[str, int | None] = {}
    unknown: dict[str, None] = {}
    if not is_graph(model):
        return Macs(dict(_not_known(model)))

    def visit(call: Call) -> list[keras.KerasTensor]:
        tensors = [x for x in keras.tree.flatten((call.args, call.kwargs)) if isinstance(x, keras.KerasTensor)]
        outputs = _specs(call, tensors)
        if isinstance(call.operation, keras.Model):
            counts.update(_not_known(call.operation, call.path + "/") or {call.path: None})
            return outputs
        count = layer_macs(call.operation, [x.shape for x in tensors], [x.shape for x in outputs])
        if not is_counted(call.operation):
            unknown[call.path] = None
        if count != 0 or getattr(call.operation, "weights", None):
            before = counts.get(call.path, 0)
            counts[call.path] = None if count is None or before is None else before + count
        return outputs

    flow(model, _input_specs(model, input_shape), visit)
    return Macs(counts, list(unknown))


def whole_layer(place: Place) -> tuple[str, keras.Layer]:
    """The outermost layer around a place that is no model: attention, say, and not the dense layers inside it."""
    owners = place.owners
    depth = next((depth for depth, owner in enumerate(owners) if not isinstance(owner, keras.Model)), len(owners) - 1)
    return "/".join(place.path.split("/")[: depth + 1]), owners[depth]


def _not_known(model: keras.Model, prefix: str = "") -> dict[str, None]:
    """The paths of a model's whole layers that have weights, each with None."""
    return {prefix + whole_layer(place)[0]: None for place in places(model) if own_weights(place.layer)}


def _input_specs(model: Any, input_shape: Any) -> list[keras.KerasTensor]:
    if input_shape is None:
        return list(model.inputs)
    return [keras.KerasTensor((None, *shape), x.dtype) for shape, x in zip(shapes_of(input_shape), model.inputs)]


def _specs(call: Call, tensors: list[keras.KerasTensor]) -> list[keras.KerasTensor]:
    """The outputs' shapes in this call: those recorded, unless the inputs have come with other shapes."""
    recorded = call.node.input_tensors
    if all(x.shape == y.shape for x, y in zip(tensors, recorded)):
        return list(call.outputs)
    return keras.tree.flatten(call.operation.compute_output_spec(*call.args, **call.kwargs))
