"""What a converted file no longer holds: masks once for every head, and buffers that nothing reads."""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.compaction import compact
from tfprune.lite.file.edit import Graph

HEADS, LENGTH = 4, 6
RANDOM = np.random.default_rng(0)
CAUSAL = np.tril(np.ones((LENGTH, LENGTH), bool))


@keras.saving.register_keras_serializable("tests")
class Chosen(layers.Layer):
    """Its input where a mask says so, elsewhere what stands on the other side."""

    def __init__(self, mask, other=-3.0):
        super().__init__()
        self.mask, self.other = np.asarray(mask), np.asarray(other, np.float32)

    def call(self, inputs):
        return keras.ops.where(self.mask, inputs, self.other)


def converted(shape, mask, other=-3.0):
    """The file of such a layer, and its constants of booleans."""
    model = keras.Sequential([keras.Input(shape), Chosen(mask, other)])
    lite = tfprune.convert(model)
    inputs = RANDOM.normal(size=(3, *shape)).astype(np.float32)
    np.testing.assert_array_equal(lite(inputs), model.predict(inputs, verbose=0))
    return [shape_and_values for shape_and_values in constants(lite) if shape_and_values[1].dtype == bool]


def constants(lite):
    model = lite.file
    found = ((tensor, flatbuffer.stored_values(model, tensor)) for tensor in model.subgraphs[0].tensors)
    return [(flatbuffer.shape_of(tensor), values) for tensor, values in found if values is not None]


@pytest.mark.parametrize(
    ("mask", "stored"),
    [
        (np.broadcast_to(CAUSAL, (1, HEADS, LENGTH, LENGTH)), (1, 1, LENGTH, LENGTH)),
        (np.broadcast_to(CAUSAL[:1], (1, HEADS, LENGTH, LENGTH)), (1, 1, 1, LENGTH)),
        (np.broadcast_to(CAUSAL[:, 2:3], (1, HEADS, LENGTH, LENGTH)), (1, 1, LENGTH, 1)),
        (RANDOM.random((1, HEADS, LENGTH, LENGTH)) < 0.5, (1, HEADS, LENGTH, LENGTH)),
    ],
    ids=["causal", "columns", "rows", "none"],
)
def test_a_mask_is_stored_once_along_axes_that_it_repeats_along(mask, stored):
    assert [shape for shape, _ in converted((HEADS, LENGTH, LENGTH), mask)] == [stored]


def test_a_mask_that_makes_the_result_larger_stays_whole():
    """The other operands have one head, so the heads of the result are those of the mask."""
    mask = np.broadcast_to(CAUSAL, (1, HEADS, LENGTH, LENGTH))
    model = keras.Sequential([keras.Input((1, LENGTH, LENGTH)), Chosen(mask)])
    assert tfprune.convert(model).outputs[0].shape == (1, HEADS, LENGTH, LENGTH)
    assert [shape[1] for shape, _ in converted((1, LENGTH, LENGTH), mask)] == [HEADS]


@pytest.mark.parametrize("quantization", ["float32", "dynamic", "int8"])
def test_attention_keeps_one_causal_mask_for_all_heads(quantization):
    keras.utils.set_random_seed(0)
    tokens = keras.Input((16,), dtype="int32")
    x = layers.Embedding(20, 8)(tokens)
    for _ in range(2):
        x = x + layers.MultiHeadAttention(HEADS, 2)(x, x, use_causal_mask=True)
    model = keras.Model(tokens, layers.Dense(20)(x))
    samples = RANDOM.integers(0, 20, (30, 16)).astype(np.int32)
    lite = tfprune.convert(model, quantization, samples if quantization == "int8" else None)
    masks = [shape for shape, values in constants(lite) if values.dtype == bool]
    assert masks == [(1, 1, 16, 16)] * len(masks)
    assert masks
    wanted = model.predict(samples, verbose=0)
    bound = {"float32": 1e-5, "dynamic": 1e-5, "int8": 0.2}[quantization]
    assert np.abs(lite(samples) - wanted).max() < bound * np.abs(wanted).max()


def test_readers_are_looked_for_of_operands_that_could_be_shortened_alone(monkeypatch):
    """So a file takes time in proportion to its operators, not to their square."""
    asked = []
    users = Graph.users
    monkeypatch.setattr(Graph, "users", lambda graph, index: asked.append(index) or users(graph, index))
    parts = [layers.Dense(3, activation="relu") for _ in range(20)]
    file = tfprune.convert(keras.Sequential([keras.Input((3,)), *parts])).file
    asked.clear()
    compact(file)
    assert asked == []


def test_every_buffer_but_the_first_has_values_that_something_reads():
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten()])
    file = tfprune.convert(model, "int8", RANDOM.normal(size=(10, 8, 8, 3)).astype(np.float32)).file
    read = {holder.buffer for holder in [*file.subgraphs[0].tensors, *file.metadata]}
    assert read == set(range(len(file.buffers)))
    assert all(len(buffer.data) for buffer in file.buffers[1:])
    assert file.buffers[0].data is None or len(file.buffers[0].data) == 0
