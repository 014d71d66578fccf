"""Every private name of Keras and TensorFlow that the package reads, each behind a function that says why.

All of them were seen at work in Keras 3.10 and 3.15.1 on TensorFlow 2.21. tests/model/test_hooks.py has a test for
each that fails when it moves, and one that no other file uses such a name.
"""

import importlib
from typing import Any

import keras
from keras.src.backend.common import global_state


def check_backend() -> None:
    """Raises ImportError unless Keras runs on TensorFlow, where TFLite conversion and compiled masks exist."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ImportError(
            f"tfprune works with Keras on TensorFlow, but Keras runs on {backend!r} here. Set the environment variable "
            'KERAS_BACKEND=tensorflow before keras is imported, or "backend": "tensorflow" in keras.json.'
        )


# Layers


def layers_inside(layer: keras.Layer) -> list[keras.Layer]:
    """The layers directly inside a composite layer (attention, recurrent cells, wrappers); only models list theirs."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def is_bookkeeping(name: str) -> bool:
    """Whether an attribute of a layer is one in which Keras or TensorFlow note its layers for themselves."""
    return name in ("_layers", "_tracked") or name.startswith("_self_")


def class_of_applications(module: str, name: str) -> type | None:
    """A layer class that models of keras.applications hold, but Keras does not export; None where it has moved.

    Without it the channels around that layer would be left alone.
    """
    try:
        return getattr(importlib.import_module(f"keras.src.applications.{module}"), name, None)
    except ImportError:
        return None


# Calls: the public ways to the records of them build new layers or call the old ones again


def convolutional_cell() -> type[keras.Layer]:
    """The class of the cell in ConvLSTM1D, 2D and 3D, which owns their kernels; Keras exports only the layers."""
    return importlib.import_module("keras.src.layers.rnn.conv_lstm").ConvLSTMCell


def operation_name(operation: Any) -> str | None:
    """The class of a `keras.ops` operation ("Matmul" for `keras.ops.matmul`), None for all else.

    Keras exports the functions, but not the classes of the operations that they record in a graph.
    """
    kind = type(operation)
    known = not isinstance(operation, keras.Layer) and kind.__module__.startswith("keras.")
    return kind.__name__ if known else None


def maker_of(tensor: Any) -> Any:
    """The layer or operation whose call made a symbolic tensor."""
    return tensor._keras_history.operation


def node_of(tensor: Any) -> Any:
    """The record of the call that made a symbolic tensor, which is what Keras builds a functional model from."""
    return maker_of(tensor)._inbound_nodes[tensor._keras_history.node_index]


def carries_mask(tensor: Any) -> bool:
    """Whether Keras knows which steps of a tensor are padding."""
    return getattr(tensor, "_keras_mask", None) is not None


def forget_calls(operation: Any) -> None:
    """Makes a shallow copy of an operation forget the original's calls, else it would count as part of its model."""
    operation._inbound_nodes, operation._outbound_nodes = [], []


# Training


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """The arguments of `compile` as they were given.

    The public `get_compile_config` writes them as JSON, which cannot be read back where they are not registered.
    """
    return dict(model._compile_config.config)


def learning_rate_of(optimizer: Any) -> Any:
    """The learning rate or the schedule of it; the public `learning_rate` is only the present value."""
    return getattr(optimizer, "_learning_rate", None)


def optimizer_at_work() -> Any:
    """The optimizer whose step is being taken, or None.

    A constraint is not told whose it is, and the optimizer may be anybody's: of `fit`, of a loop of the user's, of a
    model that was loaded. But Keras opens a name scope with the optimizer as caller around every step.
    """
    scopes = global_state.get_global_attribute("name_scope_stack") or []
    return next((scope.caller for scope in reversed(scopes) if hasattr(scope.caller, "use_ema")), None)


def variables_of(optimizer: Any) -> list[keras.Variable]:
    """The variables that an optimizer trains, in the order of its gradients."""
    return optimizer._trainable_variables


def moving_averages_of(optimizer: Any) -> list[keras.Variable]:
    """The moving averages (`use_ema=True`) that an optimizer keeps, in the order of `variables_of`."""
    return optimizer._model_variables_moving_average


def is_resumed(model: keras.Model) -> bool:
    """Whether BackupAndRestore has brought weights back in this `fit`, of which it leaves no public sign."""
    return getattr(model, "_initial_epoch", None) is not None


# Keras 2


def is_graph_of_keras_2(model: Any) -> bool:
    """Whether a tf_keras model is functional; it has no public class of its own."""
    return getattr(model, "_is_graph_network", False)
