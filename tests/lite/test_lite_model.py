"""The converted model: saved whole or not at all, loaded with a check, run on any number of samples."""

import copy
import os
import pickle
from pathlib import Path

import keras
import lite_models
import numpy as np
import pytest
from keras import layers

from tfprune.errors import PruningError
from tfprune.lite import LiteModel, benchmark, convert, time_operators, verify
from tfprune.lite.file import flatbuffer


@pytest.fixture(scope="module")
def model():
    return lite_models.convolutional()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).normal(size=(33, 12, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def lite(model, images):
    return convert(model, "int8", images)


@pytest.fixture(scope="module")
def two():
    return convert(lite_models.two_inputs())


ZETA = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
ALPHA = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


def contents(folder):
    return [path.name for path in folder.iterdir()]


def test_saved_and_loaded_models_answer_alike(lite, images, tmp_path):
    path = lite.save(tmp_path / "model.tflite")
    assert path.read_bytes() == lite.content
    loaded = LiteModel.load(path)
    assert loaded.quantization == "int8"
    np.testing.assert_array_equal(loaded(images), lite(images))
    assert contents(tmp_path) == ["model.tflite"]


def test_saving_replaces_an_old_file(lite, tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"old")
    lite.save(str(tmp_path / "model.tflite"))
    assert (tmp_path / "model.tflite").read_bytes() == lite.content


def test_saving_into_no_folder_is_refused(lite, tmp_path):
    with pytest.raises(PruningError, match="there is no folder '.*missing'. Make it first"):
        lite.save(tmp_path / "missing" / "model.tflite")


def test_saving_under_a_file_is_refused(lite, tmp_path):
    (tmp_path / "file").write_text("content")
    with pytest.raises(PruningError, match="there is no folder '.*file'"):
        lite.save(tmp_path / "file" / "model.tflite")
    assert (tmp_path / "file").read_text() == "content"


def test_saving_to_a_folder_is_refused(lite, tmp_path):
    (tmp_path / "inside.txt").write_text("kept")
    with pytest.raises(PruningError, match="it is a folder. Give a file in it, '.*model.tflite'"):
        lite.save(tmp_path)
    assert contents(tmp_path) == ["inside.txt"]


def test_a_write_that_fails_leaves_the_old_file_whole(lite, tmp_path):
    target = tmp_path / "model.tflite"
    target.write_bytes(b"old")
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (lite.size // 2, limits[1]))  # as on a full disk
    try:
        with pytest.raises(
            PruningError, match="Cannot write .*model.tflite': File too large. The old file, if any, is whole"
        ):
            lite.save(target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert target.read_bytes() == b"old"
    assert contents(tmp_path) == ["model.tflite"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that takes no files")
def test_saving_into_a_folder_that_takes_no_files_is_refused(lite):
    with pytest.raises(PruningError, match="Cannot write '/proc/model.tflite': "):
        lite.save("/proc/model.tflite")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_saving_into_a_folder_without_permission_is_refused(lite, tmp_path):
    old = tmp_path / "model.tflite"
    old.write_bytes(b"old")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PruningError, match="Permission denied. The old file, if any, is whole"):
            lite.save(old)
        assert old.read_bytes() == b"old"
    finally:
        tmp_path.chmod(0o700)


def test_loading_what_is_no_model_is_refused(lite, tmp_path):
    path = tmp_path / "some.tflite"
    with pytest.raises(PruningError, match="some.tflite' is not a file"):
        LiteModel.load(path)
    path.write_bytes(b"")
    with pytest.raises(PruningError, match="is not a .tflite model: it is empty"):
        LiteModel.load(path)
    path.write_text("hello, this is text")
    with pytest.raises(PruningError, match="lacks the mark 'TFL3'"):
        LiteModel.load(path)
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(PruningError, match="looks like an HDF5 file"):
        LiteModel.load(path)
    keras.Sequential([keras.Input((2,)), layers.Dense(1)]).save(tmp_path / "model.keras")
    with pytest.raises(PruningError, match=r"looks like a .keras file, which keras.models.load_model reads"):
        LiteModel.load(tmp_path / "model.keras")
    with pytest.raises(PruningError, match="Cannot read a .tflite model from int"):
        LiteModel(3)


@pytest.mark.parametrize("share", [0.005, 0.1, 0.5, 0.9])
def test_truncated_files_are_refused(lite, tmp_path, share):
    path = tmp_path / "part.tflite"
    path.write_bytes(lite.content[: int(len(lite.content) * share)])
    with pytest.raises(PruningError, match="truncated or damaged|LiteRT cannot load"):
        LiteModel.load(path)


def test_any_number_of_samples_goes_through(lite, images):
    whole = lite(images)
    assert whole.shape == (33, 5)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(lite(images[:1]), whole[:1])
    np.testing.assert_array_equal(lite([images[:2]]), whole[:2])
    np.testing.assert_array_equal(lite({"image": images[:3]}), whole[:3])
    assert lite(images[:0]).shape == (0, 5)


def test_integer_ends_are_quantized_and_cut_off(lite):
    end = lite.inputs[0]
    low, high = ((limit - end.zero_point) * end.scale for limit in (-128, 127))
    inside = np.full((1, 12, 12, 3), high, np.float32)
    np.testing.assert_array_equal(lite(inside * 100), lite(inside))
    np.testing.assert_array_equal(lite(np.full_like(inside, low * 100)), lite(np.full_like(inside, low)))


def test_several_inputs_go_in_by_place_or_name_and_come_out_by_both(two):
    by_place = two([ZETA, ALPHA])
    by_name = two({"alpha": ALPHA, "zeta": ZETA})
    second, first = by_place
    np.testing.assert_array_equal(second, by_name["second"])
    np.testing.assert_array_equal(first, by_name["first"])
    assert by_place.names == ("second", "first")
    with pytest.raises(PruningError, match="No output 'frist'. Did you mean 'first'"):
        by_place["frist"]


def test_wrong_inputs_are_refused(lite, two, images):
    with pytest.raises(
        PruningError, match=r"'image' takes shape \(n, 12, 12, 3\), and \(12, 12, 3\) came. Add an axis .*x\[None\]"
    ):
        lite(images[0])
    with pytest.raises(PruningError, match=r"takes shape \(n, 12, 12, 3\), and \(33, 12, 12, 2\) came"):
        lite(images[..., :2])
    with pytest.raises(PruningError, match="takes 2 inputs, and ndarray came. .* these names: 'zeta', 'alpha'"):
        two(ZETA)
    with pytest.raises(PruningError, match="takes 2 inputs, and 3 arrays came"):
        two([ZETA, ALPHA, ALPHA])
    with pytest.raises(PruningError, match="Inputs missing: 'alpha'"):
        two({"zeta": ZETA})
    with pytest.raises(PruningError, match="has no input 'alfa'. Did you mean 'alpha'"):
        two({"zeta": ZETA, "alfa": ALPHA})
    with pytest.raises(PruningError, match=r"different numbers of samples: \{'zeta': 5, 'alpha': 3\}"):
        two([ZETA, ALPHA[:3]])


def test_models_can_be_copied_and_pickled(lite, images):
    lite(images[:1])
    for other in (copy.deepcopy(lite), pickle.loads(pickle.dumps(lite))):
        np.testing.assert_array_equal(other(images[:2]), lite(images[:2]))


def test_a_file_is_read_once_by_all_who_look_into_it(model, images, monkeypatch):
    read = []
    whole = flatbuffer.schema().ModelT.InitFromPackedBuf
    monkeypatch.setattr(
        flatbuffer.schema().ModelT,
        "InitFromPackedBuf",
        lambda content, start: read.append(content) or whole(content, start),
    )
    lite = convert(model, "int8", images)
    assert len(read) == 1  # what TensorFlow's converter gave
    lite.inspect()
    assert lite.origin["quantization"] == "int8"
    verify(model, lite, images, layers=True)
    benchmark({"lite": lite}, runs=1)
    time_operators(lite, runs=1)
    assert len(read) == 1
    loaded = LiteModel(lite.content)
    assert len(read) == 2
    assert loaded.inspect().to_dict() == lite.inspect().to_dict()
    assert loaded.inputs == lite.inputs and loaded.outputs == lite.outputs and loaded.operators == lite.operators
    assert len(read) == 2
    convert(model, "int8", images, bias_correction=True)
    assert len(read) == 4  # what the converter gave, and a copy to correct


def test_sizes_are_those_of_the_file(lite):
    assert lite.size == len(lite.content)
    assert 0 < lite.gzip_size < lite.size
    assert lite.gzip_size == lite.inspect().gzip_size


def test_a_model_says_what_it_is(lite):
    assert repr(lite).startswith("LiteModel(int8, ")
    assert "(image: int8) -> (scores: int8)" in repr(lite)
