"""Keras 2 and tfmot run in a process of their own: importing them changes `tf.keras` for the whole process."""

import json
import shutil
import subprocess
import sys
import textwrap

import h5py
import keras
import pytest

import tfprune
from tfprune.errors import PruningError

SCRIPT = """
    import json, os, tempfile
    import keras, numpy as np, tfprune
    import tensorflow as tf
    from tfprune.model import keras_2
    import tensorflow_model_optimization as tfmot, tf_keras

    def refusal(call):
        try:
            call()
        except tfprune.errors.PruningError as error:
            return str(error)

    layers = tf_keras.layers
    inputs = layers.Input((8, 8, 1))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, name="conv")(inputs)))
    x = layers.Add()([x, layers.Conv2D(4, 1, name="point")(x)])
    old = tf_keras.Model(inputs, layers.Dense(3, activation="softmax", name="logits")(layers.Flatten()(x)), name="old")
    images, labels = np.random.default_rng(0).random((64, 8, 8, 1), "float32"), np.arange(64) % 3
    pruning = tfmot.sparsity.keras
    wrapped = pruning.prune_low_magnitude(old, pruning.ConstantSparsity(0.5, 0, frequency=1))
    wrapped.compile("adam", "sparse_categorical_crossentropy")
    wrapped.fit(images, labels, epochs=2, verbose=0, callbacks=[pruning.UpdatePruningStep()])
    new = tfprune.from_tfmot(wrapped)
    answers = wrapped.predict(images, verbose=0)

    sequential = tf_keras.Sequential([layers.Input((4,)), layers.Dense(2), layers.LeakyReLU()])
    plain = tfprune.from_tfmot(sequential)

    class Subclassed(tf_keras.Model):
        pass

    quantized = tfmot.quantization.keras.quantize_model(sequential)

    @tf_keras.utils.register_keras_serializable("mine")
    class Mine(layers.Dense):
        pass

    own = tf_keras.Sequential([layers.Input((3,)), Mine(2)])
    folder, kinds = tempfile.mkdtemp(), ("model.h5", "model.keras", "saved")
    paths = {kind: os.path.join(folder, kind) for kind in (*kinds, "own.h5", "quantized.h5", "only.weights.h5", "raw")}
    for kind in kinds:
        wrapped.save(paths[kind])
    quantized.save(paths["quantized.h5"])
    own.save(paths["own.h5"])
    own.save_weights(paths["only.weights.h5"])
    tf.saved_model.save(tf.Module(), paths["raw"])
    del tf_keras.utils.get_custom_objects()["mine>Mine"]

    def same(path):
        read = tfprune.from_tfmot(keras_2.read(path))
        return all(np.array_equal(a, b) for a, b in zip(read.get_weights(), new.get_weights(), strict=True))

    print("RESULT" + json.dumps({
        "keras_3": isinstance(new, keras.Model),
        "layers": [layer.name for layer in new.layers if layer.weights],
        "difference": float(np.abs(new.predict(images, verbose=0) - answers).max()),
        "sparsity": {key: float(1 - mask.mean()) for key, mask in tfprune.get_masks(new).items()},
        "plain_equal": bool(np.array_equal(plain.get_weights()[0], sequential.get_weights()[0])),
        "prune": refusal(lambda: tfprune.prune(old, 0.5)),
        "convert_name": refusal(lambda: tfprune.summary(old)),
        "subclassed": refusal(lambda: tfprune.from_tfmot(Subclassed(name="free"))),
        "quantized": refusal(lambda: tfprune.from_tfmot(quantized)),
        "same": [same(paths[kind]) for kind in kinds],
        "unknown_class": refusal(lambda: keras_2.read(paths["own.h5"])),
        "weights_alone": refusal(lambda: keras_2.read(paths["only.weights.h5"])),
        "quantized_file": refusal(lambda: tfprune.from_tfmot(keras_2.read(paths["quantized.h5"]))),
        "raw": refusal(lambda: keras_2.read(paths["raw"])),
    }))
"""


@pytest.fixture(scope="module")
def keras_2():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], capture_output=True, text=True, check=False, timeout=300
    )
    marked = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert marked, done.stderr
    return json.loads(marked[0].removeprefix("RESULT"))


def test_a_model_pruned_by_tfmot_comes_over_with_its_answers_and_zeros(keras_2):
    assert keras_2["keras_3"]
    assert keras_2["layers"] == ["conv", "batch_normalization", "point", "logits"]
    assert keras_2["difference"] < 1e-6  # float32 sums in another order
    assert keras_2["sparsity"] == {"conv/kernel": 0.5, "point/kernel": 0.5, "logits/kernel": 0.5}


def test_a_plain_keras_2_model_comes_over(keras_2):
    assert keras_2["plain_equal"]


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ("prune", "Cannot prune 'old': it is a Keras 2 model"),
        ("prune", "model = tfprune.from_tfmot(model)"),
        ("convert_name", "Cannot summarise 'old': it is a Keras 2 model"),
        ("subclassed", "'free' is a subclassed Keras 2 model (Subclassed)"),
        ("quantized", "wrapped for quantization or clustering"),
        ("quantized_file", "wrapped for quantization or clustering"),
        ("unknown_class", "Load it where that class is known, with tf_keras under tfmot.sparsity.keras.prune_scope()"),
        ("weights_alone", "No model config found"),
        ("weights_alone", "Save the whole model: model.save(path)"),
        ("raw", "is a SavedModel without a Keras model in it"),
    ],
)
def test_what_cannot_be_taken_says_what_to_do(keras_2, stage, told):
    assert told in keras_2[stage]


def test_a_keras_3_model_needs_no_bringing_over():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="new")
    with pytest.raises(PruningError, match="'new' is a Keras 3 model already"):
        tfprune.from_tfmot(model)


def test_files_of_every_kind_come_over_with_their_zeros(keras_2):
    assert keras_2["same"] == [True, True, True]


def test_something_else_is_refused(tmp_path):
    with pytest.raises(PruningError, match="from_tfmot takes a tf_keras model or the path of one, not list"):
        tfprune.from_tfmot([])
    with pytest.raises(PruningError, match="There is no file"):
        tfprune.from_tfmot(tmp_path / "model.h5")
    with pytest.raises(PruningError, match=r"a folder without a saved_model\.pb"):
        tfprune.from_tfmot(tmp_path)
    for name, told in (("model.tflite", "must end with .h5, .hdf5, .keras"), ("cut.keras", "truncated or of another")):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(PruningError, match=told):
            tfprune.from_tfmot(str(tmp_path / name))


@pytest.mark.parametrize("name", ["new.keras", "new.h5"])
def test_a_file_of_keras_3_needs_no_bringing_over(name, tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / name)
    with pytest.raises(PruningError, match=r"written by Keras 3.*keras\.models\.load_model\(path\)"):
        tfprune.from_tfmot(tmp_path / name)


def test_a_process_that_fails_and_a_package_that_is_missing(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["keras_version"] = "2.15.0"
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(PruningError, match="The process that reads .*old.h5' with Keras 2 has failed: exit code 1"):
        tfprune.from_tfmot(tmp_path / "old.h5")
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(PruningError, match=r"needs the package tf-keras.*pip install 'tfprune\[tfmot\]'"):
        tfprune.from_tfmot(tmp_path / "old.h5")
