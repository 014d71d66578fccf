"""Any metric as a figure of answers: what is compiled, named, given as a Keras metric or as a function; and bounds."""

import keras
import numpy as np
import pytest

from tfprune import PruningError
from tfprune.model.bounds import Bounds, bound_of
from tfprune.model.data import batches
from tfprune.model.metrics import answers_of, found_metrics

L = keras.layers
X = np.random.default_rng(0).normal(size=(90, 6)).astype("float32")
Y = {"kind": (X[:, 0] > 0).astype("int32"), "box": X[:, :2]}


@pytest.fixture(scope="module")
def two_headed():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden = L.Dense(8, "relu")(inputs)
    outputs = {"kind": L.Dense(3, "softmax", name="kind")(hidden), "box": L.Dense(2, name="box")(hidden)}
    model = keras.Model(inputs, outputs, name="two_headed")
    losses = {"kind": "sparse_categorical_crossentropy", "box": "mse"}
    model.compile("adam", losses, metrics={"kind": ["accuracy"]}, jit_compile=False)
    return model


@pytest.fixture(scope="module")
def depth():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), L.Dense(1)], name="depth")
    model.compile("adam", "mse", metrics=["mae"], jit_compile=False)
    return model


def judged(model, metric=None, mode=None, data=(X, Y), altered=None):
    read = list(batches(data, model, "compress", 40))
    answers = answers_of(model, read)
    found = found_metrics(model, read, metric, mode, answers, "compress")
    return {each.name: (each.mode, each(answers if altered is None else altered(answers))) for each in found}


def test_each_output_is_judged_by_its_first_metric_or_else_its_loss(two_headed):
    outputs = two_headed.predict(X, verbose=0)
    right = np.mean(outputs["kind"].argmax(axis=-1) == Y["kind"])
    squared = np.mean((outputs["box"] - Y["box"]) ** 2)
    assert judged(two_headed) == {
        "kind accuracy": ("max", pytest.approx(right)), "box loss": ("min", pytest.approx(squared, rel=1e-5)),
    }  # fmt: skip
    whole = two_headed.evaluate(X, Y, verbose=0, return_dict=True)["loss"]
    assert judged(two_headed, "loss") == {"loss": ("min", pytest.approx(whole, rel=1e-5))}


def test_outputs_have_metrics_of_their_own_or_one_function_of_all(two_headed):
    outputs = two_headed.predict(X, verbose=0)
    apart = np.abs(outputs["box"] - Y["box"]).mean()
    found = judged(two_headed, {"kind": "iou", "box": keras.metrics.MeanAbsoluteError(name="mae")})
    assert found["box mae"] == ("min", pytest.approx(apart, rel=1e-5)) and found["kind iou"][0] == "max"

    def weighted_error(targets, outputs):
        wrong = np.mean(outputs["kind"].argmax(axis=-1) != targets["kind"])
        return wrong + 0.1 * np.abs(outputs["box"] - targets["box"]).mean()

    wrong = np.mean(outputs["kind"].argmax(axis=-1) != Y["kind"])
    assert judged(two_headed, weighted_error) == {"weighted_error": ("min", pytest.approx(wrong + 0.1 * apart))}


def test_targets_of_one_value_are_not_spread_over_outputs(depth):
    targets = X[:, 0]
    outputs = depth.predict(X, verbose=0)[:, 0]

    def own_error(targets, outputs):
        return np.abs(targets - outputs)

    for metric in (None, "mae", "mean_absolute_error", keras.metrics.MeanAbsoluteError, own_error):
        ((mode, value),) = judged(depth, metric, data=(X, targets)).values()
        assert mode == "min" and value == pytest.approx(np.abs(outputs - targets).mean(), rel=1e-5)


def test_iou_and_dice_are_those_of_the_classes():
    pixels = keras.Sequential([keras.Input((4, 4, 3)), L.Softmax()])
    truth = np.random.default_rng(0).integers(0, 3, (5, 4, 4))
    scores = np.random.default_rng(1).normal(size=(5, 4, 4, 3)).astype("float32")
    keras_iou = keras.metrics.MeanIoU(3, sparse_y_pred=False)
    found = {name: judged(pixels, name, data=(scores, truth)) for name in ("iou", "dice")}
    keras_iou.update_state(truth, scores)
    assert found["iou"]["iou"] == ("max", pytest.approx(float(keras_iou.result()), abs=1e-6))
    shares = [
        2 * np.sum((scores.argmax(-1) == c) & (truth == c)) / (np.sum(scores.argmax(-1) == c) + np.sum(truth == c))
        for c in range(3)
    ]
    assert found["dice"]["dice"] == ("max", pytest.approx(np.mean(shares)))


def test_without_targets_outputs_are_judged_by_their_difference(two_headed):
    assert judged(two_headed, data=X) == {"box difference": ("min", 0.0), "kind difference": ("min", 0.0)}

    def doubled_boxes(answers):
        return [answers[0] * 2, answers[1]]

    found = judged(two_headed, data=X, altered=doubled_boxes)
    assert found == {"box difference": ("min", pytest.approx(1.0)), "kind difference": ("min", 0.0)}
    assert bounded(two_headed, "20%", data=X).allowed == [0.2, 0.2]

    def spread(targets, outputs):
        assert targets is None
        return outputs["box"].std()

    assert judged(two_headed, spread, "max", data=X)["spread"][0] == "max"


def broken(targets, outputs):
    raise TypeError("no such targets")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "mae", "data": X}, r"compress: the metric 'mae' needs targets, and the data have none; write \(x"),
        (
            {"metric": keras.metrics.AUC(name="auc"), "data": X},
            "the metric 'auc' needs targets, and the data have none",
        ),
        ({"metric": keras.metrics.AUC(name="auc")}, "has 2 outputs: say of which 'auc' is, as a dict: metric={'box'"),
        (
            {"metric": {"boxes": "mae"}},
            "metric names the output 'boxes'; the model's outputs are 'box', 'kind'",
        ),
        ({"metric": {"box": "mae"}, "mode": "max"}, "mode='max' contradicts the metric 'm.*', of which a small value"),
        ({"metric": {"box": "mae"}, "mode": {"bux": "min"}}, "mode names the output 'bux'; the model's outputs are"),
        ({"metric": "accurcy"}, "there is no metric 'accurcy'. Did you mean 'accuracy'"),
        ({"metric": broken, "mode": "min", "data": X}, "outputs of shape .* and no targets; write data="),
        ({"metric": 3}, "metric=3 is none: give a name, a Keras metric, a function of"),
        (
            {"metric": broken, "mode": "min"},
            "metric 'broken' raised TypeError: no such targets. It was given outputs of",
        ),
    ],
)
def test_wrong_metrics_are_told(two_headed, arguments, message):
    with pytest.raises(PruningError, match=message):
        judged(two_headed, **arguments)


def test_a_model_that_is_not_compiled_needs_a_metric(depth):
    bare = keras.Sequential.from_config(depth.get_config())
    with pytest.raises(PruningError, match="compress needs a metric, but 'depth' is not compiled"):
        judged(bare, data=(X, X[:, 0]))


def test_the_batch_that_makes_a_metric_no_number_is_named(depth):
    targets = X[:, 0].copy()
    targets[55] = np.nan
    with pytest.raises(PruningError, match=r"The metric 'mae' is nan on batch 1 \(samples 40 to 79\)"):
        judged(depth, data=(X, targets))

    def no_number(answers):
        answers[0][81] = np.nan
        return answers

    message = r"The metric 'mae' is nan: the outputs of batch 2 \(samples 80 to 89\) are not all numbers"
    with pytest.raises(PruningError, match=message):
        judged(depth, data=(X, X[:, 0]), altered=no_number)


def bounded(model, given, metric=None, data=(X, Y)):
    read = list(batches(data, model, "compress", 40))
    answers = answers_of(model, read)
    found = found_metrics(model, read, metric, None, answers, "compress")
    return Bounds(given, found, [each(answers) for each in found])


def test_bounds_are_absolute_or_relative_for_all_or_for_each_output(two_headed, depth):
    bounds = bounded(two_headed, {"kind": 0.1, "box": "50%"})
    box, kind = bounds.dense
    assert bounds.allowed == [pytest.approx(0.5 * box), 0.1]
    assert bounds.hold([1.5 * box, kind - 0.1]) and bounds.hold([0.0, 1.0])
    assert not bounds.hold([1.51 * box, kind]) and not bounds.hold([box, kind - 0.11])
    assert bounds.merit([1.5 * box, kind]) == pytest.approx(-1.0) and bounds.merit([box, kind]) == 0.0
    single = bounded(depth, 0.2, data=(X, X[:, 0]))
    assert single.merit([0.5]) == -0.5 and single.allowed == [0.2]
    assert "lets an error of" in bounded(depth, 50.0, data=(X, X[:, 0])).lax()[0] and not single.lax()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("5", "max_drop='5' is no bound: give 0.01, in the metric's own unit"),
        ("x%", "max_drop='x%' is no bound"),
        (-0.1, "max_drop=-0.1 is no bound"),
        (True, "max_drop=True is no bound"),
        (
            {"kind": 0.1, "boxes": 0.1},
            "max_drop names the output 'boxes', which nothing judges; judged is 'box', 'kind'.",
        ),
        ({"kind": 0.1}, "max_drop says nothing of the output 'box'; give each a bound"),
        ({"kind": 1.5, "box": 0.1}, r"is no share of accuracy in \[0, 1\); write 0.01 for one point"),
    ],
)
def test_wrong_bounds_are_told(two_headed, given, message):
    with pytest.raises(PruningError, match=message):
        bounded(two_headed, given)


def test_bounds_read_as_they_are_written():
    assert bound_of("2.5%") == (0.025, True) and bound_of(0.01) == (0.01, False)
