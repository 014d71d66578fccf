import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune.model import memory
from tfprune.model.memory import PIECE, empty, handed_over, zeroed


@pytest.mark.parametrize("shape", [(0, 3), (7,), (3, 5, 2), (PIECE + 3,), (2, PIECE)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_zeroes_are_exact_in_every_dtype_however_large_the_array(monkeypatch, dtype, shape):
    random = np.random.default_rng(0)
    values = random.normal(size=shape)
    odd = random.integers(0, 8, shape)
    values = np.where(odd == 0, np.inf, np.where(odd == 1, np.nan, np.where(odd == 2, -0.0, values)))
    values, kept = tf.cast(values, dtype), tf.constant(random.random(shape) < 0.5)
    bits = {2: tf.int16, 4: tf.int32, 8: tf.int64}[values.dtype.size]
    expected = tf.where(kept, tf.bitcast(values, bits), tf.zeros((), bits)).numpy()
    for large in (0, 1 << 40):
        monkeypatch.setattr(memory, "LARGE", large)
        found = zeroed(values, kept)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(tf.bitcast(found, bits).numpy(), expected)


def test_a_tensor_takes_over_the_memory_of_an_array():
    for dtype in ("bool", "float32", "int16"):
        array = empty((3, 1001), dtype)
        array[...] = 1
        assert np.asarray(handed_over(array)).ctypes.data == array.ctypes.data


def test_a_mask_that_is_changed_after_it_was_given_is_held_as_it_was():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="dense")])
    mask = np.random.default_rng(0).random((8, 8)) < 0.5
    tfprune.apply_masks(model, {"dense/kernel": mask})
    before = mask.copy()
    mask[...] = ~mask
    np.testing.assert_array_equal(tfprune.get_masks(model)["dense/kernel"], before)


def test_training_goes_on_from_memory_that_was_handed_over(monkeypatch):
    monkeypatch.setattr(memory, "LARGE", 0)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="dense")])
    model.compile("adam", "mse")
    pruned = tfprune.prune(model, tfprune.Percentile(0.5))
    weights, kept = pruned.layers[0].kernel.numpy(), tfprune.get_masks(pruned)["dense/kernel"]
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    pruned.compile("adam", "mse")
    pruned.fit(x, -x, epochs=2, verbose=0)
    trained = pruned.layers[0].kernel.numpy()
    assert np.all((trained != 0) == kept) and np.all(trained[kept] != weights[kept])
