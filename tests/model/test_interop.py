"""Keras 2 and tfmot run in a process of their own: importing them changes `tf.keras` for the whole process."""

import json
import subprocess
import sys
import textwrap

import keras
import pytest

import tfprune
from tfprune.errors import PruningError

SCRIPT = """
    import json
    import keras, numpy as np, tfprune
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
    ],
)
def test_what_cannot_be_taken_says_what_to_do(keras_2, stage, told):
    assert told in keras_2[stage]


def test_a_keras_3_model_needs_no_bringing_over():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="new")
    with pytest.raises(PruningError, match="'new' is a Keras 3 model already"):
        tfprune.from_tfmot(model)


def test_something_else_is_refused():
    with pytest.raises(PruningError, match="from_tfmot takes a tf_keras model, not str"):
        tfprune.from_tfmot("model.h5")
