"""Numbers of rows that come as floats stay as they are in a model that trains with the rounding of int8."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune
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


def test_a_file_whose_table_is_read_by_rounded_numbers_says_what_to_write():
    keras.utils.set_random_seed(0)
    words = keras.Input((6,))
    x = layers.Embedding(1000, 8, name="table")(ops.clip(words, 0, 999))
    model = keras.Model(words, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    rows = np.random.default_rng(0).integers(0, 1000, (64, 6)).astype("float32")
    with pytest.warns(UserWarning, match=r"comes in at 'table'.*The rows of a table.*dtype='int32'.*quantize_aware"):
        tfprune.convert(model, "int8", rows)


@pytest.mark.parametrize("way", ["as they come", "of an inner model", "clipped and moved", "cast", "taken"])
def test_a_file_by_the_default_arguments_reads_the_rows_of_its_model(way):
    keras.utils.set_random_seed(1)
    numbers, other = keras.Input((1,), name="numbers"), keras.Input((4,), name="other")
    rows = layers.Flatten()(WAYS[way](numbers))
    model = keras.Model([numbers, other], layers.Dense(2)(layers.Concatenate()([rows, layers.Dense(3)(other)])))
    data = [NUMBERS.astype("float32"), np.random.default_rng(0).normal(size=(300, 4)).astype("float32")]
    quantized = quantize_aware(model, data)
    lite = tfprune.convert(quantized, "int8")
    taken = {end.name: end.dtype for end in lite.inputs}
    assert taken["other"] == "int8" and taken["numbers"] in ("int32", "float32")
    wanted = quantized.predict(data, verbose=0)
    assert np.abs(lite(data) - wanted).max() < 0.02 * np.abs(wanted).max()
    if taken["numbers"] == "float32":
        assert "The input 'numbers' is float32, for rows are read by its numbers." in lite.notes
