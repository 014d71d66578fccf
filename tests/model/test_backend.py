import keras
import pytest

from tfprune.model.backend import check_backend


def test_tensorflow_is_accepted():
    check_backend()


def test_another_backend_is_refused_with_the_setting_to_change(monkeypatch):
    # Another backend cannot be loaded beside TensorFlow in one process, so its name is all that is exchanged.
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ImportError, match=r"Keras runs on 'jax' here\. Set the environment variable KERAS_BACKEND"):
        check_backend()
