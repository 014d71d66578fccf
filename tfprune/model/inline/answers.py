"""What a call asks of Keras while it is traced, answered so that it does what a graph can hold."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from tfprune.model.substitutes import instead


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
def no_known_backend() -> Iterator[None]:
    """Lets layers that have a way for one backend take the one of `keras.ops`, which they have for all others."""
    with instead(keras.config, "backend", lambda plain: lambda: "symbolic"):
        yield
