"""Numbers of rows that come as floats stay as they are in a model that trains with the rounding of int8."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfprune.lite.quantize import quantize_aware

NUMBERS = np.arange(300)[:, None]
WAYS = {
    "as they come": layers.Embedding(300, 4),
    "of an inner model": keras.Sequential([keras.Input((1,)), layers.Embedding(300, 4)]),
    "clipped and moved": lambda x: layers.Embedding(300, 4)(layers.Reshape((1,))(ops.clip(x, 0, 299))),
    "cast": lambda x: layers.Embedding(300, 4)(ops.cast(x + 0.0, "int32")),
    "taken": lambda x: ops.take(np.eye(300, dtype="float32"), ops.cast(x * 1.0, "int32"), axis=0),
    "one-hot": lambda x: ops.one_hot(ops.cast(x, "float32") * 1.0, 300),
    "encoded": lambda x: layers.CategoryEncoding(300, "one_hot")(x)[:, None],
}


@pytest.mark.parametrize("way", WAYS)
def test_rows_that_floats_name_are_the_rows_that_are_read(way):
    numbers = keras.Input((1,))
    rows = WAYS[way](numbers)
    flat = layers.Flatten(name="rows")(rows)
    model = keras.Model(numbers, layers.Dense(2)(flat))
    read = keras.Model(numbers, flat)
    quantized = quantize_aware(read, NUMBERS.astype("float32"))
    # Half a step of the rounded rows, and one of the moving average of their range.
    apart = np.abs(np.asarray(quantized(NUMBERS.astype("float32"))) - np.asarray(read(NUMBERS))).max()
    assert apart <= 0.2 * np.abs(np.asarray(read(NUMBERS))).max()
    quantize_aware(model).predict(NUMBERS[:4].astype("float32"), verbose=0)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_numbers_of_rows_are_observed_alike_in_every_type(dtype):
    def quantized(dtype):
        keras.utils.set_random_seed(3)
        numbers = keras.Input((1,), dtype=dtype)
        model = keras.Model(numbers, layers.Dense(2)(layers.Flatten()(layers.Embedding(300, 4)(numbers))))
        return np.asarray(quantize_aware(model, NUMBERS.astype(dtype))(NUMBERS.astype(dtype)))

    np.testing.assert_array_equal(quantized(dtype), quantized("int64"))
