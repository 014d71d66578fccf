"""The one backend that tfprune works with."""

import keras


def check_backend() -> None:
    """Raises ImportError unless Keras runs on TensorFlow, where TFLite conversion and compiled masks exist."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ImportError(
            f"tfprune works with Keras on TensorFlow, but Keras runs on {backend!r} here. Set the environment variable "
            'KERAS_BACKEND=tensorflow before keras is imported, or "backend": "tensorflow" in keras.json.'
        )
