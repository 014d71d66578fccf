"""compress: within the bound or saying so, resumable, with a teacher where Keras has one."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from search_models import X, Y, classifier

import tfprune
from tfprune import PruningError, compress
from tfprune.lite.quantize import is_quantized
from tfprune.search.distillation import Tuning

L = keras.layers
RANDOM = np.random.default_rng(1)
X_VAL = RANDOM.normal(size=(400, 6, 6, 1)).astype("float32")
Y_VAL = (X_VAL[:, :3].mean(axis=(1, 2, 3)) > X_VAL[:, 3:].mean(axis=(1, 2, 3))).astype("int32")
QUICK = {"epochs": 1, "sparsities": (0.5,)}


class Batches(keras.utils.PyDataset):
    """The training data in batches; a run can be interrupted after so many of them."""

    def __init__(self, left=None):
        super().__init__()
        self.left = left

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("interrupted")
        return X[30 * index : 30 * index + 30], Y[30 * index : 30 * index + 30]


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """A compression to half the parameters, and its folder."""
    folder = tmp_path_factory.mktemp("compression") / "kept"
    before = model.get_weights()
    result = compress(model, (X, Y), (X_VAL, Y_VAL), 0.1, {"parameters": 0.5}, folder=folder, **QUICK)
    for one, other in zip(model.get_weights(), before):
        np.testing.assert_array_equal(one, other)
    return result, folder


def test_the_file_is_within_the_bound_and_as_good_as_reported(whole, model):
    result, _ = whole
    dense = model.evaluate(X_VAL, Y_VAL, verbose=0, return_dict=True)["accuracy"]
    assert result.dense_accuracy == pytest.approx(dense, abs=1e-6)
    assert result.within_bound and dense - result.accuracy <= 0.1 + 1e-6
    assert np.mean(result.lite(X_VAL).argmax(axis=-1) == Y_VAL) == result.accuracy
    assert result.lite.quantization == "int8" and not result.lite.inspect().float_ops
    assert result.meets_target and result.parameters <= 0.5


def test_every_step_is_reported_and_kept(whole):
    result, folder = whole
    names = [step.name for step in result.steps]
    assert names == ["unpruned", "channels to 50%", "weights 50%", "int8 training", names[-1]]
    assert {path.name for path in folder.iterdir()} == {
        "steps.json", "channels to 50%.keras", "weights 50%.keras", "int8 training.keras", "compressed.tflite",
    }  # fmt: skip
    assert (folder / "compressed.tflite").read_bytes() == result.lite.content
    sparse = keras.models.load_model(folder / "weights 50%.keras")
    assert tfprune.summary(sparse).sparsity == pytest.approx(0.5, abs=0.01)
    assert is_quantized(keras.models.load_model(folder / "int8 training.keras"))
    printed = " ".join(str(result).split())
    assert "times smaller than the float file" in printed and "IS NOT MET" not in printed
    assert json.loads(result.to_json())["ratios"] == result.ratios


def test_an_interrupted_compression_goes_on_behind_its_last_whole_step(model, tmp_path):
    folder = tmp_path / "kept"
    # One batch for the samples of calibration, ten for each epoch: the interruption comes while weights are pruned.
    arguments = {"target": {"parameters": 0.5}, "folder": folder, **QUICK}
    with pytest.raises(tf.errors.OpError, match="interrupted"):
        compress(model, Batches(left=26), (X_VAL, Y_VAL), 0.1, **arguments)
    steps = json.loads((folder / "steps.json").read_text())["steps"]
    assert list(steps) == ["unpruned", "channels to 50%"]
    kept = (folder / "channels to 50%.keras").read_bytes()
    resumed = compress(model, Batches(), (X_VAL, Y_VAL), 0.1, **arguments)
    assert (folder / "channels to 50%.keras").read_bytes() == kept
    assert vars(resumed.steps[1]) == steps["channels to 50%"] and resumed.within_bound


def test_the_folder_of_another_compression_is_refused(whole, model, tmp_path):
    _, folder = whole
    with pytest.raises(PruningError, match="belongs to another compression: its settings is not the same"):
        compress(model, (X, Y), (X_VAL, Y_VAL), 0.05, {"parameters": 0.5}, folder=folder, **QUICK)
    with pytest.raises(PruningError, match="belongs to another compression: its data is not the same"):
        compress(model, (X, Y), (X, Y), 0.1, {"parameters": 0.5}, folder=folder, **QUICK)
    (tmp_path / "file").write_text("")
    with pytest.raises(PruningError, match="is a file; give a folder"):
        compress(model, (X, Y), (X_VAL, Y_VAL), folder=tmp_path / "file")
    with pytest.raises(PruningError, match="there is no folder '.*nowhere'. Make it first"):
        compress(model, (X, Y), (X_VAL, Y_VAL), folder=tmp_path / "nowhere" / "here")
    (tmp_path / "steps.json").write_text("[")
    with pytest.raises(PruningError, match="is no record of a compression"):
        compress(model, (X, Y), (X_VAL, Y_VAL), folder=tmp_path)


def test_a_bound_that_nothing_keeps_is_said_to_be_broken(model):
    # Inputs on which the unpruned model can hardly decide: the rounding of int8 turns some of them over.
    close = RANDOM.normal(size=(20000, 6, 6, 1)).astype("float32")
    answers = model.predict(close, verbose=0)
    order = np.argsort(np.abs(answers[:, 0] - answers[:, 1]))[:300]
    val = close[order], answers[order].argmax(axis=-1)
    with pytest.warns(UserWarning, match="more than the 0 allowed: no step stayed within the bound"):
        result = compress(model, (X, Y), val, 0.0, {"parameters": 0.9}, epochs=1, sparsities=())
    assert not result.within_bound
    assert "THE BOUND IS BROKEN" in " ".join(str(result).split())
    assert "beyond the bound, taken back" in [step.outcome for step in result.steps]


def test_the_student_learns_from_the_teacher_by_its_answers_alone():
    keras.utils.set_random_seed(0)
    teacher = keras.Sequential([keras.Input((4,)), L.Dense(3, activation="softmax", name="classes")])
    teacher.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy", jit_compile=False)
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    wrong = (teacher.predict(x, verbose=0).argmax(axis=-1) + 1) % 3
    student = keras.models.clone_model(teacher)
    student.set_weights([weight + 1.0 for weight in teacher.get_weights()])
    tuning = Tuning(teacher, (x, wrong), 32)
    if tuning.note is not None:  # an older Keras: it trains on the labels, and says so
        assert "keras.distillation came with Keras 3.12" in tuning.note
        return
    tuning(student, 10)
    taught = np.abs(student.predict(x, verbose=0) - teacher.predict(x, verbose=0)).mean()
    alone = keras.models.clone_model(teacher)
    alone.set_weights([weight + 1.0 for weight in teacher.get_weights()])
    Tuning(teacher, (x, wrong), 32, distill=False)(alone, 10)
    assert taught < np.abs(alone.predict(x, verbose=0) - teacher.predict(x, verbose=0)).mean()


def test_without_a_teacher_the_report_says_so():
    binary = keras.Sequential([keras.Input((4,)), L.Dense(1, activation="sigmoid")])
    binary.compile("sgd", "binary_crossentropy")
    assert "one output of several classes" in Tuning(binary, (X, Y), 32).note
    assert "as asked for" in Tuning(binary, (X, Y), 32, distill=False).note


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_drop": 1.5}, r"max_drop=1.5 is no share of accuracy in \[0, 1\)"),
        ({"target": "tiny"}, "target='tiny' is unknown; write 'smallest'"),
        ({"target": {"macs": 0.5, "bytes": 0.5}}, "or one share such as"),
        ({"target": {"mac": 0.5}}, "target names 'mac'. Did you mean 'macs'"),
        ({"target": {"macs": 5}}, r"target: 5 is no share of the unpruned model's macs in \(0, 1\)"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"sparsities": (1.0,)}, "sparsities: 1.0 is no share of zeros"),
        ({"val": X}, "accuracy and F1 need labels"),
        ({"train": iter([(X, Y)])}, "compress has to know the length of an epoch"),
    ],
)
def test_wrong_use_is_told(model, arguments, message):
    with pytest.raises(PruningError, match=message):
        compress(**{"model": model, "train": (X, Y), "val": (X_VAL, Y_VAL), **arguments})


def test_a_model_that_is_not_compiled_is_told(model):
    bare = keras.Sequential.from_config(model.get_config())
    with pytest.raises(PruningError, match="'small' is not compiled, and compress trains"):
        compress(bare, (X, Y), (X_VAL, Y_VAL))
