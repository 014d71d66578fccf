"""distill: a student follows its teacher in fit, by answers, features and relations, with pruning callbacks."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune import PruningError, distill
from tfprune.training.teaching import feature_distance, output_distance, relation_distance

L = keras.layers
X = np.random.default_rng(0).normal(size=(128, 6, 6, 2)).astype("float32")
Y = {"kind": (X[:, :3].mean(axis=(1, 2, 3)) > 0).astype("int32"), "box": X[:, 0, 0]}


def two_headed(width, seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6, 6, 2))
    hidden = L.Flatten()(L.Conv2D(width, 3, activation="relu", name="edges")(inputs))
    outputs = {"kind": L.Dense(3, "softmax", name="kind")(hidden), "box": L.Dense(2, name="box")(hidden)}
    model = keras.Model(inputs, outputs, name=f"net_{width}")
    losses = {"kind": "sparse_categorical_crossentropy", "box": "mse"}
    model.compile(keras.optimizers.Adam(0.01), losses, jit_compile=False)
    return model


def apart(student, teacher):
    mine, theirs = student.predict(X, verbose=0), teacher.predict(X, verbose=0)
    return sum(float(np.abs(mine[name] - theirs[name]).mean()) for name in mine)


@pytest.fixture(scope="module")
def teacher():
    return two_headed(8)


def test_without_targets_a_student_comes_nearer_to_its_teacher(teacher):
    before, student = teacher.get_weights(), two_headed(4, seed=1)
    distance = apart(student, teacher)
    distill(student, teacher).fit(X, epochs=6, verbose=0)
    assert apart(student, teacher) < 0.8 * distance
    for one, other in zip(teacher.get_weights(), before):
        np.testing.assert_array_equal(one, other)


def test_it_prunes_the_student_alone_and_teaches_features_and_relations(teacher):
    student = two_headed(4, seed=1)
    taught = distill(student, teacher, features=["edges"], relations=True)
    history = taught.fit(X, Y, epochs=3, verbose=0, callbacks=[tfprune.PercentilePruning(0.75)]).history
    assert history["loss"][-1] < history["loss"][0]
    assert tfprune.summary(tfprune.strip_masks(student)).sparsity == pytest.approx(0.75, abs=1e-2)
    assert all(weight.trainable is False for weight in taught.teacher.weights)


def test_at_a_share_of_one_the_loss_is_the_students_own(teacher):
    student = two_headed(4, seed=1)
    own = student.evaluate(X, Y, verbose=0, batch_size=128, return_dict=True)["loss"]
    outputs = student(X)
    taught = distill(student, teacher, share=1.0)
    assert float(taught.compute_loss(X, Y, outputs)) == pytest.approx(own, rel=1e-5)
    assert float(distill(teacher, teacher, share=0.0).compute_loss(X, Y, teacher(X))) == pytest.approx(
        np.log(1) + keras.ops.convert_to_numpy(output_distance("class", teacher(X)["kind"], teacher(X)["kind"], 3.0)),
        abs=1e-6,
    )


def test_distances_by_hand():
    wanted, given = np.array([[0.5, 0.5]], "float32"), np.array([[0.2, 0.8]], "float32")
    kl = 0.5 * np.log(0.5 / 0.2) + 0.5 * np.log(0.5 / 0.8)
    assert float(output_distance("class", wanted, given, 1.0)) == pytest.approx(kl, rel=1e-5)
    cross = -0.5 * np.log(given).mean() - 0.5 * np.log(1 - given).mean()
    assert float(output_distance("binary", wanted, given, 1.0)) == pytest.approx(cross, rel=1e-4)
    values = np.array([[0.0, 2.0]], "float32")
    assert float(output_distance("values", values, values + 1.0, 1.0)) == pytest.approx(1.0)
    maps = np.random.default_rng(0).random((2, 3, 3, 4)).astype("float32")
    assert float(feature_distance(maps, maps)) == 0.0
    assert float(feature_distance(maps, 2 * maps[..., :1].repeat(2, axis=-1))) > 0.0
    scaled = np.random.default_rng(0).random((5, 7)).astype("float32")
    assert float(relation_distance(scaled, 3 * scaled)) == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 1.5}, r"share=1.5 is no number in \[0, 1\]; write 0.5"),
        ({"share": "x"}, r"share='x' is no number in \[0, 1\]; write 0.5"),
        ({"temperature": None}, "temperature=None is no number; write 3.0"),
        ({"temperature": 0}, "temperature=0: give a number above 0"),
        ({"features": ["edge"]}, "features names the layer 'edge', which 'net_4' lacks. Did you mean 'edges'"),
        ({"features": [("edges", "borders")]}, "features names the layer 'borders', which 'net_8.*' lacks"),
    ],
)
def test_wrong_arguments_are_told(teacher, arguments, message):
    with pytest.raises(PruningError, match=message):
        distill(two_headed(4), teacher, **arguments)


def test_models_that_do_not_fit_are_told(teacher):
    other = keras.Sequential([keras.Input((6, 6, 2)), L.Flatten(), L.Dense(5)], name="other")
    with pytest.raises(PruningError, match="The student 'other' is not compiled, and distill trains it"):
        distill(other, teacher)
    other.compile("sgd", "mse")
    with pytest.raises(PruningError, match="The outputs of the student 'other' are of shape .* and those of"):
        distill(other, teacher)
