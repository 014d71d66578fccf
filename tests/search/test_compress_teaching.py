"""Fine-tuning in compress: the unpruned model teaches, its answers to arrays worked out once."""

import keras
import numpy as np
import pytest
from search_models import X, Y

from tfprune import PruningError
from tfprune.search.compress import distillation
from tfprune.search.compress.distillation import Tuning

L = keras.layers
RANDOM = np.random.default_rng(1)


def test_the_student_learns_from_the_teacher_by_its_answers_alone():
    keras.utils.set_random_seed(0)
    teacher = keras.Sequential([keras.Input((4,)), L.Dense(3, activation="softmax", name="classes")])
    teacher.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy", jit_compile=False)
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    wrong = (teacher.predict(x, verbose=0).argmax(axis=-1) + 1) % 3
    student = keras.models.clone_model(teacher)
    student.set_weights([weight + 1.0 for weight in teacher.get_weights()])
    tuning = Tuning(teacher, (x, wrong), 32)
    assert tuning.note is None
    tuning(student, 10)
    taught = np.abs(student.predict(x, verbose=0) - teacher.predict(x, verbose=0)).mean()
    alone = keras.models.clone_model(teacher)
    alone.set_weights([weight + 1.0 for weight in teacher.get_weights()])
    Tuning(teacher, (x, wrong), 32, distill=False)(alone, 10)
    assert taught < np.abs(alone.predict(x, verbose=0) - teacher.predict(x, verbose=0)).mean()


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("activation", [None, "softmax"])
def test_classes_are_taught_by_the_divergence_of_their_probabilities(activation, once, monkeypatch):
    monkeypatch.setattr(distillation, "REMEMBERED", 8 * 5 * 3 * 4 if once else 8 * 5 * 3 * 4 - 1)  # bytes of answers
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 4))
    teacher = keras.Model(inputs, L.Dense(3, activation=activation, name="classes")(inputs))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=activation is None)
    teacher.compile("sgd", loss, jit_compile=False)
    x, y = RANDOM.normal(size=(8, 5, 4)).astype("float32"), RANDOM.integers(0, 3, (8, 5))
    student = keras.models.clone_model(teacher)
    student.set_weights([weight + RANDOM.normal(0, 0.5, weight.shape) for weight in teacher.get_weights()])
    student.compile("sgd", loss, jit_compile=False)

    def shares(model):
        answers = np.asarray(model(x), np.float64)
        softer = np.exp((answers if activation is None else np.log(answers)) / 3.0)
        return softer / softer.sum(axis=-1, keepdims=True)

    wanted, given = shares(teacher), shares(student)
    apart = 9 * np.mean(np.sum(wanted * np.log(wanted / given), axis=-1))
    taught = Tuning(teacher, (x, y), 8)._taught(student)
    expected = 0.5 * float(loss(y, student(x))) + 0.5 * apart
    given = {"answers": [teacher(x)], "targets": y} if once else y
    assert isinstance(taught, distillation.Remembering) == once
    assert float(taught.compute_loss(x, given, student(x))) == pytest.approx(expected, rel=1e-3)


class Counted(L.Layer):
    """Counts on how many batches it is run."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.runs = self.add_weight(initializer="zeros", trainable=False)

    def call(self, inputs):
        self.runs.assign_add(1.0)
        return inputs


def test_a_teacher_of_arrays_is_asked_once_and_teaches_the_same(monkeypatch):
    keras.utils.set_random_seed(0)
    counted = Counted()
    teacher = keras.Sequential([keras.Input((4,)), counted, L.Dense(3, activation="softmax")])
    teacher.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(96, 4)).astype("float32"), random.integers(0, 3, 96)
    start = [weight + random.normal(0, 0.5, weight.shape) for weight in teacher.layers[1].get_weights()]

    def trained(weights):
        keras.utils.set_random_seed(1)
        student = keras.Sequential([keras.Input((4,)), L.Dense(3, activation="softmax")])
        student.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
        student.set_weights(start)
        Tuning(teacher, (x, y) if weights is None else (x, y, weights), 32)(student, 3)
        return student.get_weights()

    once = trained(None)
    assert float(counted.runs) == 1  # as it is asked for its answers, 256 samples at a time
    monkeypatch.setattr(distillation, "REMEMBERED", 0)
    for one, other in zip(once, trained(None), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    monkeypatch.undo()
    weighted = trained(np.where(np.arange(96) < 48, 1.0, 0.0).astype("float32"))
    assert not np.allclose(once[0], weighted[0], atol=1e-4)


class OwnStep(keras.Model):
    """A model that trains in its own way."""

    def train_step(self, data):
        return super().train_step(data)


def test_without_a_teacher_the_report_says_so():
    inputs = keras.Input((4,))
    own = OwnStep(inputs, L.Dense(1, activation="sigmoid")(inputs))
    own.compile("sgd", "binary_crossentropy")
    train = X[:, :2, :2, 0].reshape(-1, 4), Y
    assert "its class has a train_step of its own" in Tuning(own, train, 32).note
    assert "as asked for" in Tuning(own, train, 32, distill=False).note
    with pytest.raises(PruningError, match="distill=False leaves nothing to learn from, since train has no targets"):
        Tuning(own, train[0], 32, distill=False, labelled=False)
