"""What TensorFlow and Keras print and raise, cut down to what a reader needs."""

import re

import keras
import numpy as np
import pytest

from tfprune.model.native import reason_of


def raised(act):
    with pytest.raises(Exception) as caught:
        act()
    return caught.value


class Failing(keras.layers.Layer):
    def call(self, inputs):
        raise ValueError("the reason itself.")


def test_an_error_in_a_layers_call_is_told_without_its_frame():
    error = raised(lambda: Failing()(np.ones((1, 2))))
    assert "Arguments received by" in str(error) and reason_of(error) == "the reason itself."


def test_an_error_in_a_traced_function_is_told_without_its_traceback():
    import tensorflow as tf

    @tf.function
    def step():
        raise ValueError("the reason itself")

    error = raised(step)
    assert str(error).startswith("in user code:") and reason_of(error) == "ValueError: the reason itself."


def test_an_error_of_the_converter_is_told_without_the_place_in_its_source():
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((2, 2))])
    def function(x):
        return tf.linalg.det(x)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], function)
    reason = reason_of(raised(converter.convert))
    assert re.match("'tf.MatrixDeterminant' op is neither a custom op nor a flex op", reason), reason
    assert reason.endswith(".") and "loc(" not in reason


def test_long_and_empty_reasons():
    assert reason_of(ValueError("word " * 100)) == "word " * 60 + "..."
    assert reason_of(KeyError()) == "KeyError."
