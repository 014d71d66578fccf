"""The comparison of a converted model with Keras: agreement, accuracy, differences, zeros."""

import json

import keras
import lite_models
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfprune.errors import PruningError
from tfprune.lite import LiteModel, convert, verify
from tfprune.lite.file import flatbuffer
from tfprune.model.signature import signature_of


@pytest.fixture(scope="module")
def model():
    return lite_models.convolutional()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).normal(size=(150, 12, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def lite(model, images):
    return convert(model, "int8", images)


@pytest.fixture(scope="module")
def exact(model):
    return convert(model)


@pytest.fixture(scope="module")
def labels(model, images):
    return np.asarray(model(images)).argmax(axis=-1)


def test_figures_are_those_of_a_comparison_by_hand(model, lite, images, labels):
    shifted = labels.copy()
    shifted[:30] = (shifted[:30] + 1) % 5
    report = verify(model, lite, images, shifted)
    wanted, answers = np.asarray(model(images)), lite(images)
    assert report.samples == 150
    assert report.agreement == np.mean(wanted.argmax(-1) == answers.argmax(-1))
    assert report.accuracy == np.mean(wanted.argmax(-1) == shifted) == 0.8
    assert report.lite_accuracy == np.mean(answers.argmax(-1) == shifted)
    # Keras' own rounding differs a little with the size of the batch.
    assert report.largest_difference == pytest.approx(np.abs(wanted - answers).max(), abs=1e-6)
    assert report.mean_difference == pytest.approx(np.abs(wanted - answers).mean(), abs=1e-6)


def test_zeros_are_followed_kernel_by_kernel(model, lite, images):
    report = verify(model, lite, images[:5])
    kernels = [w for w in model.trainable_weights if len(w.shape) >= 2]
    assert {weight.key for weight in report.weights} == {weight.path for weight in kernels}
    assert report.zeros == report.zeros_kept == sum(int(np.sum(w.numpy() == 0)) for w in kernels)


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_a_single_lost_zero_is_found(model, images, quantization):
    content = convert(model, quantization, images).content
    flat = flatbuffer.read_model(content)
    shape = model.get_layer("hidden").kernel.shape[::-1]
    constants = [t for t in flat.subgraphs[0].tensors if flatbuffer.shape_of(t) == shape]
    (tensor,) = [t for t in constants if flatbuffer.stored_values(flat, t) is not None]
    values = flatbuffer.stored_values(flat, tensor).copy()
    values[np.flatnonzero(values == 0)[:1]] = 1
    flat.buffers[tensor.buffer].data = values.view(np.uint8)
    zeros = int(np.sum(model.get_layer("hidden").kernel.numpy() == 0))
    report = verify(model, LiteModel(flatbuffer.write_model(flat)), images[:5])
    (lost,) = [weight for weight in report.weights if weight.kept != weight.zeros]
    assert lost.key == "hidden/kernel"
    assert lost.kept == zeros - 1
    assert f"Zeros lost in hidden/kernel (1 of {zeros:,})" in str(report).replace("\n", " ")


def test_a_kernel_that_is_not_in_the_file_is_said():
    tokens = keras.Input((7,), dtype="int32", name="tokens")
    other = keras.Model(tokens, layers.Dense(2, name="scores")(layers.Flatten()(layers.Embedding(11, 2)(tokens))))
    report = verify(lite_models.embedding(), convert(other), np.ones((4, 7), np.int32))
    assert [weight.kept for weight in report.weights] == [None, None]
    assert report.zeros == report.zeros_kept == 0
    assert (
        report.notes()[-1] == "Not in the file as one constant, so not compared: 'table/embeddings', 'scores/kernel'."
    )


@pytest.mark.parametrize(
    "form",
    ["path", "bytes", "dataset", "dataset of pairs", "generator", "tuple", "dict", "one-hot", "column"],
)
def test_every_form_of_model_data_and_labels_gives_the_same_figures(model, exact, images, labels, tmp_path, form):
    data, truth, file = images[:40], labels[:40], exact
    if form == "path":
        file = exact.save(tmp_path / "model.tflite")
    elif form == "bytes":
        file = exact.content
    elif form == "dataset":
        data = tf.data.Dataset.from_tensor_slices(data).batch(16)
    elif form == "dataset of pairs":
        data, truth = tf.data.Dataset.from_tensor_slices((data, truth)).batch(16), None
    elif form == "generator":
        data, truth = zip(data, truth, strict=True), None
    elif form == "tuple":
        data, truth = (data, truth), None
    elif form == "dict":
        data, truth = {"image": data}, {"scores": truth}
    elif form == "one-hot":
        truth = np.eye(5)[truth]
    elif form == "column":
        truth = truth[:, None]
    report = verify(model, file, data, truth)
    assert (report.samples, report.agreement, report.accuracy, report.lite_accuracy) == (40, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("classes", [1, 3, 5])
def test_f1_is_that_of_scikit_learn(classes):
    metrics = pytest.importorskip("sklearn.metrics")
    model = single("sigmoid" if classes == 1 else None, units=classes)
    lite = convert(single("sigmoid" if classes == 1 else None, units=classes))
    labels = np.random.default_rng(2).integers(0, max(classes, 2), 50)
    answers = np.asarray(model(VALUES))
    chosen = (answers[:, 0] > 0.5).astype(int) if classes == 1 else answers.argmax(-1)
    wanted = metrics.f1_score(labels, chosen, average="binary" if classes == 1 else "macro")
    report = verify(model, lite, VALUES, labels)
    assert report.f1 == pytest.approx(wanted)
    assert report.lite_f1 == pytest.approx(wanted)
    assert report.rows()[0]["f1"] == report.f1


def test_broken_bounds_are_sentences(model, lite, images, labels):
    shifted = labels.copy()
    shifted[:30] = (shifted[:30] + 1) % 5
    report = verify(model, lite, images, shifted)
    assert report.broken() == report.broken(min_agreement=0.9, min_accuracy=0.7, max_difference=1, integers=True) == []
    broken = report.broken(min_accuracy=0.9, min_f1=0.99, max_difference=1e-6, max_relative_error=1e-6)
    starts = ("the accuracy of the .tflite is 0.", "the F1", "the largest difference", "the relative error")
    assert len(broken) == 4
    assert all(said.startswith(start) for said, start in zip(broken, starts))
    exact = verify(model, convert(model), images[:4])
    assert exact.broken(integers=True)[0].endswith("compute in floating point")
    assert exact.broken(min_f1=0.5) == [
        "the F1 of the .tflite cannot be told of these outputs without labels for classes"
    ]


def test_the_error_of_each_output_is_relative_to_its_values(model, lite, images):
    report = verify(model, lite, images)
    wanted, answers = np.asarray(model(images)), lite(images)
    error = np.sqrt(np.mean((wanted - answers) ** 2) / np.mean(wanted**2))
    assert report.outputs[0].relative_error == pytest.approx(error, rel=1e-3)


def test_without_labels_there_is_no_accuracy(model, exact, images):
    report = verify(model, exact, images[:10])
    assert report.agreement == 1.0
    assert report.accuracy is None
    assert report.lite_accuracy is None


def single(activation=None, units=1, loss=None):
    model = keras.Sequential(
        [keras.Input((4,), name="values"), layers.Dense(units, activation=activation, name="answer")]
    )
    model.set_weights([np.linspace(-1, 1, 4 * units).reshape(4, units), np.zeros(units)])
    if loss:
        model.compile(loss=loss)
    return model


VALUES = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)


def test_a_sigmoid_decides_at_one_half():
    model = single("sigmoid")
    truth = (np.asarray(model(VALUES)) > 0.5).astype(np.float32)
    for labels in (truth, truth[:, 0], None):
        report = verify(model, convert(model), VALUES, labels)
        assert report.agreement == 1.0
        assert report.accuracy == (None if labels is None else 1.0)


def test_a_logit_decides_at_zero():
    model = single()
    truth = (np.asarray(model(VALUES)) > 0).astype(int)
    report = verify(model, convert(model), VALUES, truth)
    assert (report.agreement, report.accuracy) == (1.0, 1.0)


def test_several_sigmoids_decide_each_for_itself():
    model = single("sigmoid", units=3)
    truth = (np.asarray(model(VALUES)) > 0.5).astype(np.float32)
    report = verify(model, convert(model), VALUES, truth)
    assert (report.agreement, report.accuracy) == (1.0, 1.0)


def test_a_regression_has_differences_only():
    model = single(units=2)
    real = np.random.default_rng(1).normal(size=(50, 2))
    for report in (
        verify(model, convert(model), VALUES, real),
        verify(single(units=2, loss="mse"), convert(model), VALUES),
        verify(single(), convert(single()), VALUES),
    ):
        assert report.agreement is None
        assert report.accuracy is None
        assert report.largest_difference < 1e-5


def test_logits_without_labels_are_taken_for_classes():
    assert verify(single(units=3), convert(single(units=3)), VALUES).agreement == 1.0


def test_outputs_are_compared_by_name_whatever_their_order():
    model = lite_models.two_inputs()
    data = lite_models.samples_for(signature_of(model).inputs, 20)
    report = verify(model, convert(model), data, {"first": np.zeros(20, int)})
    assert [output.name for output in report.outputs] == ["second", "first"]
    assert report.outputs[0].accuracy is None
    assert report.outputs[1].accuracy == report.accuracy
    assert report.largest_difference < 1e-5


@pytest.mark.parametrize("form", [list, lambda inputs: dict(zip(("values", "image"), inputs, strict=True))])
def test_several_inputs_come_with_their_labels(form):
    left, right = keras.Input((3,), name="values"), keras.Input((2,), name="image")
    model = keras.Model([left, right], layers.Dense(4, name="scores")(layers.Concatenate()([left, right])))
    generator = np.random.default_rng(0)
    inputs = [generator.normal(size=(20, size)).astype(np.float32) for size in (3, 2)]
    labels = np.asarray(model(inputs)).argmax(axis=-1)
    report = verify(model, convert(model), (form(inputs), labels))
    assert (report.samples, report.accuracy, report.lite_accuracy) == (20, 1.0, 1.0)


def test_dict_outputs_take_labels_by_key():
    model = lite_models.dict_inputs()
    data = lite_models.samples_for(signature_of(model).inputs, 20)
    lite = convert(model)
    labels = {"kind": np.zeros(20, int), "size": np.linspace(0, 3, 20)}
    report = verify(model, lite, data, labels)
    kind, size = report.outputs
    assert (kind.name, kind.agreement) == ("kind", 1.0)
    assert (size.name, size.agreement, size.accuracy) == ("size", None, None)


def test_a_model_without_kernels_has_no_zeros_to_follow():
    image = keras.Input((4, 4, 1), name="image")
    model = keras.Model(image, layers.MaxPooling2D(name="pool")(image))
    report = verify(model, convert(model), np.random.default_rng(0).normal(size=(5, 4, 4, 1)))
    assert report.weights == ()
    assert report.zeros == 0


def test_files_from_elsewhere_are_matched_by_place():
    from tensorflow import lite as tf_lite

    model = lite_models.convolutional()
    content = tf_lite.TFLiteConverter.from_keras_model(model).convert()
    report = verify(model, content, np.random.default_rng(0).normal(size=(10, 12, 12, 3)))
    assert report.largest_difference < 1e-5
    assert report.zeros == report.zeros_kept > 0


def test_the_report_prints_and_is_written(model, lite, images, labels):
    report = verify(model, lite, images, labels)
    text = " ".join(str(report).split())  # wherever lines end
    for piece in ("top-1 agreement", "100.00%", "150 samples; int8 file", "Zeros kept: "):
        assert piece in text
    assert json.loads(report.to_json())["zeros_kept"] == report.zeros_kept
    assert report.plot() is not None


def test_the_model_is_left_alone(model, exact, images):
    before = [np.array(weight) for weight in model.get_weights()]
    verify(model, exact, images[:10])
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))
    assert not model.compiled


class TestRefusals:
    def test_a_file_of_another_model(self, model, images):
        with pytest.raises(
            PruningError, match="takes 2 inputs and 'convolutional' takes 1: it was not made of this model"
        ):
            verify(model, convert(lite_models.two_inputs()), images)

    def test_a_file_with_another_output(self, exact, images):
        image = keras.Input((12, 12, 3), name="image")
        other = keras.Model(image, layers.GlobalAveragePooling2D(name="scores")(image), name="other")
        with pytest.raises(PruningError, match=r"'scores' has shape \(64, 3\) in Keras and \(64, 5\) in the file"):
            verify(other, exact, images)

    def test_no_model_of_keras(self, exact, images):
        with pytest.raises(PruningError, match="Cannot verify LiteModel: give a keras.Model"):
            verify(exact, exact, images)

    def test_no_file(self, model, images):
        with pytest.raises(PruningError, match="'none.tflite' is not a file"):
            verify(model, "none.tflite", images)

    def test_no_data(self, model, exact):
        with pytest.raises(PruningError, match="data is empty"):
            verify(model, exact, np.zeros((0, 12, 12, 3)))

    def test_labels_twice(self, model, exact, images, labels):
        with pytest.raises(PruningError, match="Labels came twice"):
            verify(model, exact, (images, labels), labels)

    def test_too_few_labels(self, model, exact, images, labels):
        with pytest.raises(PruningError, match="There are fewer labels than samples: 100 labels"):
            verify(model, exact, images, labels[:100])

    def test_too_many_labels(self, model, exact, images, labels):
        with pytest.raises(PruningError, match="There are 150 labels for 100 samples"):
            verify(model, exact, images[:100], labels)

    def test_labels_of_another_shape(self, model, exact, images):
        with pytest.raises(PruningError, match=r"labels of output 'scores' have shape \(64, 2\), which fits neither"):
            verify(model, exact, images, np.zeros((150, 2), int))

    def test_classes_that_the_output_lacks(self, model, exact, images):
        with pytest.raises(PruningError, match="lie in 0..7, but it has 5 classes, counted from 0"):
            verify(model, exact, images[:16], np.arange(16) % 8)

    def test_labels_for_unknown_outputs(self, model, exact, images, labels):
        with pytest.raises(PruningError, match="Labels came for 'score'; the outputs are 'scores'"):
            verify(model, exact, images, {"score": labels})

    def test_one_array_of_labels_for_two_outputs(self):
        model = lite_models.two_inputs()
        data = lite_models.samples_for(signature_of(model).inputs, 8)
        with pytest.raises(
            PruningError, match="The model has 2 outputs. Give labels as a dict with the names 'second', 'first'"
        ):
            verify(model, convert(model), data, np.zeros(8, int))
