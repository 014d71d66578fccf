"""Data in every form, with one meaning, and what is said of data that do not fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfprune.errors import PruningError
from tfprune.model.data import Batch, batches, joined, whole_batch
from tfprune.model.signature import Input, Signature

IMAGES = np.random.default_rng(0).normal(size=(12, 4, 4, 1)).astype(np.float32)
LABELS = np.arange(12)
SHARES = np.linspace(0.5, 2, 12)
ZETA = np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32)
ALPHA = np.random.default_rng(2).normal(size=(12, 2)).astype(np.float32)
ONE = Signature((Input("image", (None, 4, 4, 1), "float32"),), 0)
TWO = Signature((Input("zeta", (None, 3), "float32"), Input("alpha", (None, 2), "float32")), [0, 1])


class Batches(keras.utils.PyDataset):
    def __init__(self, length=3):
        super().__init__()
        self._length = length

    def __len__(self):
        return self._length

    @property
    def num_batches(self):
        return self._length

    def __getitem__(self, index):
        part = slice(4 * (index % 3), 4 * (index % 3) + 4)
        return IMAGES[part], LABELS[part], SHARES[part]


def rows():
    yield from zip(IMAGES, LABELS, SHARES, strict=True)


WITH_TARGETS = {
    "arrays": lambda: (IMAGES, LABELS, SHARES),
    "lists of numbers": lambda: (IMAGES.tolist(), LABELS.tolist(), SHARES.tolist()),
    "dict": lambda: ({"image": IMAGES, "more": LABELS}, LABELS, SHARES),
    "list of one array": lambda: ([IMAGES], LABELS, SHARES),
    "list of batches": lambda: [(IMAGES[:8], LABELS[:8], SHARES[:8]), (IMAGES[8:], LABELS[8:], SHARES[8:])],
    "dataset": lambda: tf.data.Dataset.from_tensor_slices((IMAGES, LABELS, SHARES)).batch(5),
    "dataset of samples": lambda: tf.data.Dataset.from_tensor_slices((IMAGES, LABELS, SHARES)),
    "keras dataset": Batches,
    "generator of samples": rows,
    "function": lambda: rows,
    "batches read before": lambda: list(batches((IMAGES, LABELS, SHARES), ONE, "prune", 5)),
}


def read(data, takes, **more):
    return Batch(*joined([tuple(batch) for batch in batches(data, takes, "prune", 5, **more)]))


@pytest.mark.parametrize("form", WITH_TARGETS)
def test_a_tuple_is_inputs_targets_and_weights(form):
    found = read(WITH_TARGETS[form](), ONE)
    for part, wanted in zip(found, (IMAGES, LABELS, SHARES), strict=True):
        np.testing.assert_allclose(part, wanted, rtol=1e-7)


SEVERAL = {
    "list": lambda: [ZETA, ALPHA],
    "dict": lambda: {"alpha": ALPHA, "zeta": ZETA},
    "tuple that can be nothing else": lambda: (ZETA, ALPHA),
    "dataset of rows": lambda: tf.data.Dataset.from_tensor_slices((ZETA, ALPHA)),
    "generator for TFLite": lambda: lambda: ((z[None], a[None]) for z, a in zip(ZETA, ALPHA, strict=True)),
    "generator of lists": lambda: ([z, a] for z, a in zip(ZETA, ALPHA, strict=True)),
    "with targets": lambda: ([ZETA, ALPHA], LABELS),
    "dict with targets": lambda: ({"alpha": ALPHA, "zeta": ZETA}, LABELS),
    "dataset with targets": lambda: tf.data.Dataset.from_tensor_slices(((ZETA, ALPHA), LABELS)).batch(5),
    "generator with targets": lambda: (([z, a], y) for z, a, y in zip(ZETA, ALPHA, LABELS, strict=True)),
}


@pytest.mark.parametrize("form", SEVERAL)
def test_several_inputs_are_a_list_or_a_dict(form):
    found = read(SEVERAL[form](), TWO)
    np.testing.assert_array_equal(found.inputs[0], ZETA)
    np.testing.assert_array_equal(found.inputs[1], ALPHA)
    assert (found.targets is not None) == ("with targets" in form)
    assert found.targets is None or found.targets.tolist() == LABELS.tolist()


def test_inputs_come_as_the_model_takes_them():
    left, right = keras.Input((3,), name="zeta"), keras.Input((2,), name="alpha")
    model = keras.Model({"z": left, "a": right}, layers.Concatenate()([left, right]))
    (batch,) = batches({"a": ALPHA, "z": ZETA, "unused": LABELS}, model, "prune")
    assert set(batch.inputs) == {"a", "z"}
    assert model(batch.inputs).shape == (12, 5)


def test_a_model_that_does_not_say_what_it_takes_gets_the_data_as_they_are():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    found = list(batches(([ZETA, ALPHA], LABELS), Own(), "prune", 8))
    assert [batch.size for batch in found] == [8, 4]
    with pytest.raises(PruningError, match="arrays of 11 and 12 samples"):
        list(batches((ZETA, LABELS[:11]), Own(), "prune"))


def test_a_last_axis_of_one_may_be_left_to_keras():
    series = Signature((Input("series", (None, None, 1), "float32"),), 0)
    (batch,) = batches((ZETA, LABELS), series, "prune")
    assert batch.inputs.shape == (12, 3)


def test_a_batch_of_fixed_size_is_kept():
    fixed = Signature((Input("image", (4, 4, 4, 1), "float32"),), 0)
    assert [batch.size for batch in batches(IMAGES, fixed, "prune")] == [4, 4, 4]
    with pytest.raises(PruningError, match="a batch of 2 samples, but the model takes 4 at a time"):
        list(batches(IMAGES[:10], fixed, "prune"))


def test_the_first_samples_of_endless_data():
    endless = tf.data.Dataset.from_tensor_slices(IMAGES).repeat().batch(5)
    np.testing.assert_array_equal(read(endless, ONE, at_most=7).inputs, IMAGES[:7])
    assert len(read(Batches(None), ONE, at_most=30).inputs) == 30
    with pytest.raises(PruningError, match=r"prune needs data that end; write data=dataset.take\(10\)"):
        read(endless, ONE)
    with pytest.raises(PruningError, match="prune needs data that end; this PyDataset has no length. Give it __len__"):
        read(Batches(None), ONE)


def test_whole_arrays_can_be_told_from_batches():
    assert whole_batch((IMAGES, LABELS), ONE, "prune").size == 12
    assert whole_batch(list(IMAGES), ONE, "prune") is None
    assert whole_batch(rows, ONE, "prune") is None
    assert whole_batch((IMAGES, LABELS), ONE, "prune").taken(np.array([3, 1])).targets.tolist() == [3, 1]


WRONG = {
    "nothing": (None, r"prune needs data: write data=x, data=\(x, y\) or data=dataset; data is None"),
    "a number": (3, r"prune cannot read this: data is int. Give an array, .* a tuple \(x, y\)"),
    "no samples": (IMAGES[:0], "prune was given no samples: data is empty"),
    "four parts": ((IMAGES, LABELS, LABELS, LABELS), r"a tuple in data has 4 parts; it is .*: \(\[a, b\], y\)"),
    "a list for a tuple": ([IMAGES, LABELS], r"holds 2 arrays, .* 1 input: 'image'. .* write a tuple: data=\(x, y\)"),
    "another shape": (np.ones((9, 5, 5, 1)), r"prune: data for input 'image' has shape \(9, 5, 5, 1\), but a sample"),
    "too few labels": ((IMAGES, LABELS[:11]), "arrays of 11 and 12 samples.*'image': 12, 'targets': 11"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_are_refused_with_the_reason(case):
    data, message = WRONG[case]
    with pytest.raises(PruningError, match=message):
        list(batches(data, ONE, "prune"))


def test_a_used_up_generator_is_refused():
    once = rows()
    list(batches(once, ONE, "prune"))
    with pytest.raises(PruningError, match="The generator is used up: give the function that makes it"):
        list(batches(once, ONE, "prune"))
