"""Files written from objects of the schema: nothing is stored twice, and nothing is lost."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune.lite.file import flatbuffer

VALUES = np.random.default_rng(0).normal(size=1000).astype(np.float32)


@pytest.fixture(scope="module")
def convolutions() -> tfprune.LiteModel:
    """An int8 file with ten layers of 64 channels, each of which has 64 zero points and a shape like the others'."""
    keras.utils.set_random_seed(0)
    parts = [keras.layers.Conv2D(64, 1, activation="relu", bias_initializer="uniform") for _ in range(10)]
    model = keras.Sequential([keras.Input((4, 4, 64)), *parts])
    images = np.random.default_rng(0).normal(size=(20, 4, 4, 64)).astype(np.float32)
    return tfprune.convert(model, "int8", images)


def of_two_constants(second: np.ndarray) -> bytes:
    """A file with two constants more than a small one."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    file = flatbuffer.read_model(tfprune.convert(model).content)
    for values in (VALUES, second):
        buffer = flatbuffer.schema().BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        file.buffers.append(buffer)
    return flatbuffer.write_model(file)


def fields(value: object) -> object:
    """An object of the schema as plain lists and dicts, which can be compared."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.tolist())
    if isinstance(value, list):
        return [fields(each) for each in value]
    return {name: fields(each) for name, each in vars(value).items()} if hasattr(value, "__dict__") else value


def test_equal_constants_are_stored_once():
    alone = len(of_two_constants(VALUES + 1))
    assert alone - len(of_two_constants(VALUES.copy())) > VALUES.nbytes - 2 * flatbuffer.CONSTANT_ALIGNMENT


def test_zero_points_of_all_layers_are_stored_once(convolutions):
    file = flatbuffer.read_model(convolutions.content)
    channels = [tensor for tensor in file.subgraphs[0].tensors if len(flatbuffer.zero_points(tensor).ravel()) == 64]
    assert len(channels) >= 10
    assert convolutions.content.count(bytes(64 * 8)) == 1


def test_what_was_written_is_read_again_whole(convolutions):
    file = flatbuffer.read_model(convolutions.content)
    again = flatbuffer.write_model(file)
    assert fields(flatbuffer.read_model(again)) == fields(file)


def test_constants_begin_at_multiples_of_16(convolutions):
    """As the schema asks: processors without unaligned loads, and kernels that load vectors, count on it."""
    content = np.frombuffer(convolutions.content, np.uint8)
    file = flatbuffer.schema().Model.GetRootAs(convolutions.content, 0)
    constants = [file.Buffers(place).DataAsNumpy() for place in range(file.BuffersLength())]
    stored = [values for values in constants if isinstance(values, np.ndarray) and values.size]
    assert len(stored) >= 20
    places = [values.ctypes.data - content.ctypes.data for values in stored]
    assert [place % 16 for place in places] == [0] * len(places)


def test_a_name_that_is_also_a_constant_stays_a_name():
    """A string ends in a zero byte, so a vector of the same bytes must not take its place."""
    file = flatbuffer.read_model(of_two_constants(VALUES + 1))
    file.description = b"abcd"
    file.buffers[-1].data = np.frombuffer(b"abcd", np.uint8)
    again = flatbuffer.read_model(flatbuffer.write_model(file))
    assert again.description == b"abcd"
    assert bytes(again.buffers[-1].data) == b"abcd"
    assert flatbuffer.write_model(file).count(b"abcd\0") == 1
