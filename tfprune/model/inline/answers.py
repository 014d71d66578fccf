"""What a call asks of Keras while it is traced, answered so that it does what a graph can hold."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras


@contextlib.contextmanager
def losses_told(note: Callable[[Any], None]) -> Iterator[None]:
    """Tells `note` of every layer that adds a loss, which no symbolic tensor can be."""
    plain = keras.Layer.add_loss

    def add_loss(layer: Any, loss: Any) -> None:
        note(layer)

    keras.Layer.add_loss = add_loss
    try:
        yield
    finally:
        keras.Layer.add_loss = plain


@contextlib.contextmanager
def numbers_of_axes() -> Iterator[None]:
    """Lets `keras.ops.ndim` be a number, which code counts and compares with; Keras gives a symbolic tensor."""
    plain = keras.ops.ndim

    def ndim(x: Any) -> Any:
        return len(x.shape) if isinstance(x, keras.KerasTensor) else plain(x)

    keras.ops.ndim = keras.ops.numpy.ndim = ndim
    try:
        yield
    finally:
        keras.ops.ndim = keras.ops.numpy.ndim = plain


@contextlib.contextmanager
def no_known_backend() -> Iterator[None]:
    """Lets layers that have a way for one backend take the one of `keras.ops`, which they have for all others."""
    plain = keras.config.backend
    keras.config.backend = lambda: "symbolic"
    try:
        yield
    finally:
        keras.config.backend = plain
