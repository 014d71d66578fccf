"""Models that several threads call, convert and train at once."""

import copy
import os
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from tfprune import Percentile, PruningCallback, convert, get_masks


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input((256,)), keras.layers.Dense(1024), keras.layers.Dense(256)])


@pytest.fixture(scope="module")
def batches():
    """Batches of several sizes, which an interpreter has to be prepared for anew each time."""
    generator = np.random.default_rng(0)
    return [generator.normal(size=(20 + number % 5, 256)).astype(np.float32) for number in range(60)]


@pytest.mark.parametrize("batch_size", [1, None])
def test_one_model_called_by_three_threads(model, batches, batch_size):
    lite = convert(model, batch_size=batch_size)
    alone = [copy.copy(lite)(batch) for batch in batches]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lite, batches))
    for one, other in zip(alone, together):
        np.testing.assert_array_equal(one, other)


def test_three_conversions_at_once_make_the_file_of_one_and_leave_the_streams():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.GRU(4, dtype="mixed_float16"), keras.layers.Dense(2)])
    data = np.random.default_rng(0).normal(size=(8, 4, 3)).astype(np.float32)
    stream, policy = os.fstat(2).st_ino, model.layers[0].dtype_policy.name
    alone = convert(model, "int8", data)
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: convert(model, "int8", data), range(3)))
    for lite in made:
        np.testing.assert_array_equal(lite(data), alone(data))
    assert os.fstat(2).st_ino == stream
    assert (model.layers[0].dtype_policy.name, model.layers[0].unroll) == (policy, False)


def test_two_fits_in_two_threads_give_the_masks_of_one_after_the_other(digits):
    images, labels = digits

    def masks(seed):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(16, kernel_initializer=keras.initializers.GlorotUniform(seed), activation="relu"),
                keras.layers.Dense(10, kernel_initializer=keras.initializers.GlorotUniform(seed + 1)),
            ]
        )
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(
            images[:128], labels[:128], epochs=2, shuffle=False, verbose=0, callbacks=[PruningCallback(Percentile(0.7))]
        )
        return {key: np.asarray(mask) for key, mask in get_masks(model).items()}

    alone = [masks(seed) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(masks, (0, 1)))
    for one, other in zip(alone, together):
        assert list(one) and [np.array_equal(a, b) for a, b in zip(one.values(), other.values())] == [True] * len(one)
