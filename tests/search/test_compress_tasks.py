"""compress and search beyond classifiers: several outputs, errors, IoU, no labels, each judged by its own metric."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune import PruningError, compress, genetic_search

L = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(240, 6, 6, 1)).astype("float32")
KIND = (X[:, :3].mean(axis=(1, 2, 3)) > X[:, 3:].mean(axis=(1, 2, 3))).astype("int32")
BOX = np.stack([X[:, :3].sum(axis=(1, 2, 3)), X[:, :, :3].sum(axis=(1, 2, 3))], axis=1)
BOTH = {"kind": KIND, "box": BOX}
QUICK = {"target": {"parameters": 0.8}, "epochs": 1, "sparsities": (), "verbose": 0}


def parts(first, last, y):
    return X[first:last], keras.tree.map_structure(lambda array: array[first:last], y)


def trained(outputs, y, epochs=8, **arguments):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 1))
    hidden = L.Flatten()(L.Conv2D(8, 3, activation="relu")(inputs))
    model = keras.Model(inputs, outputs(L.Dense(12, activation="relu")(hidden)))
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False, **arguments)
    model.fit(*parts(0, 160, y), epochs=epochs, verbose=0)
    return model


@pytest.fixture(scope="module")
def boxes():
    return trained(L.Dense(2, name="box"), BOX, loss="mse", metrics=["mae"])


@pytest.fixture(scope="module")
def two():
    return trained(
        lambda x: {"kind": L.Dense(2, "softmax", name="kind")(x), "box": L.Dense(2, name="box")(x)},
        BOTH,
        loss={"kind": "sparse_categorical_crossentropy", "box": "mse"},
        metrics={"kind": ["accuracy"], "box": ["mae"]},
    )


def test_each_of_two_outputs_keeps_its_bound(two):
    val = parts(160, 240, BOTH)
    result = compress(two, parts(0, 160, BOTH), val, max_drop={"kind": 0.2, "box": "60%"}, **QUICK)
    assert result.within_bound and result.parameters < 1
    answers = dict(zip(result.lite(val[0]).names, result.lite(val[0])))
    assert np.mean(answers["kind"].argmax(axis=-1) == val[1]["kind"]) == result.metrics["kind accuracy"]["value"]
    apart = np.abs(answers["box"] - val[1]["box"]).mean()
    assert result.metrics["box mae"]["value"] == pytest.approx(apart, rel=1e-5)
    assert apart <= result.metrics["box mae"]["dense"] + result.metrics["box mae"]["allowed"]
    assert "at most 60 % was to be lost" in " ".join(str(result).split())
    kinds = next(output for output in result.outputs if output.name == "kind")
    assert sorted(group.name for group in kinds.groups) == ["class 0", "class 1"]


def test_a_regression_is_judged_by_its_error_and_a_broken_bound_is_said(boxes):
    exact = X[160:], boxes.predict(X[160:], verbose=0)  # what no file gives to the last digit
    with pytest.warns(UserWarning, match="compress: .* of mae are lost, more than the 0 allowed: no step stayed"):
        result = compress(boxes, parts(0, 160, BOX), exact, 0, **QUICK)
    assert not result.within_bound and result.drop > 0 and result.drop == result.accuracy - result.dense_accuracy
    columns = [column.heading for column in result.columns]
    assert columns[1:3] == ["mae", "worse by"]
    assert "THE BOUND IS BROKEN" in str(result) and any("targets" in group.name for group in result.outputs[0].groups)


def test_without_labels_and_uncompiled_outputs_stay_near_the_unpruned_ones(boxes):
    bare = keras.Model.from_config(boxes.get_config())
    bare.set_weights(boxes.get_weights())
    result = compress(bare, X[:160], X[160:], max_drop="90%", **QUICK)
    assert not bare.compiled and result.within_bound and list(result.metrics) == ["difference"]
    wanted = boxes.predict(X[160:], verbose=0)
    apart = np.sqrt(np.mean((result.lite(X[160:]) - wanted) ** 2) / np.mean(wanted**2))
    assert result.metrics["difference"]["value"] == pytest.approx(apart, rel=1e-4)


def test_the_metric_that_a_segmentation_is_compiled_with_decides():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 1))
    outputs = L.Conv2D(2, 1, activation="softmax")(L.Conv2D(6, 3, padding="same", activation="relu")(inputs))
    model = keras.Model(inputs, outputs)
    iou = keras.metrics.MeanIoU(2, sparse_y_pred=False, name="iou_of_pixels")
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=[iou], jit_compile=False)
    pixels = (X[..., 0] > 0.3).astype("int32")
    model.fit(X[:160], pixels[:160], epochs=4, verbose=0)
    val = X[160:], pixels[160:]
    found = genetic_search(model, val, ("metric", "macs"), population=4, generations=1, verbose=0)
    dense = model.evaluate(*val, verbose=0, return_dict=True)["iou_of_pixels"]
    assert found.dense["metric"] == pytest.approx(dense, abs=1e-6)
    assert found.best["metric"] <= found.front[0]["metric"]
    lite = tfprune.convert(model, "int8", X[:50])
    report = tfprune.verify(model, lite, *val)
    assert report.metrics["iou_of_pixels"][0] == pytest.approx(dense, abs=1e-6)
    assert "iou_of_pixels" in str(report)


def test_a_search_lowers_an_error_and_knows_the_bounds_of_outputs(boxes):
    val = parts(160, 240, BOX)
    found = genetic_search(boxes, val, metric="mae", population=4, generations=1, verbose=0)
    assert [objective.name for objective in found.judgement.objectives] == ["metric", "macs"]
    assert found.dense["metric"] == pytest.approx(boxes.evaluate(*val, verbose=0, return_dict=True)["mae"], rel=1e-5)
    assert not found.judgement.objectives[0].larger
    assert found.front[0]["metric"] == min(candidate["metric"] for candidate in found.front)
    with pytest.raises(PruningError, match='metric= says what the objective "metric" is; write objectives='):
        genetic_search(boxes, val, ("loss", "macs"), metric="mae")
    with pytest.raises(PruningError, match="mode='max' contradicts the metric 'mae'"):
        genetic_search(boxes, val, metric="mae", mode="max")


def test_the_front_lies_between_the_metrics_of_two_outputs(two):
    val = parts(160, 240, BOTH)
    found = genetic_search(two, val, ("metrics", "parameters"), population=8, generations=2, verbose=0)
    objectives = {each.name: each.larger for each in found.judgement.objectives}
    assert objectives == {"kind accuracy": True, "box mae": False, "parameters": False}
    answers = two.predict(val[0], verbose=0)
    right = np.mean(answers["kind"].argmax(axis=-1) == val[1]["kind"])
    assert found.dense["kind accuracy"] == pytest.approx(right)
    assert found.dense["box mae"] == pytest.approx(np.abs(answers["box"] - val[1]["box"]).mean(), rel=1e-5)
    merits = [[-each["box mae"], each["kind accuracy"], -each["parameters"]] for each in found.evaluated]
    front = [merits[each.number] for each in found.front]
    for mine in front:
        assert not any(np.all(np.greater_equal(other, mine)) and other != mine for other in merits)
    assert min(each["box mae"] for each in found.front) == min(-each[0] for each in merits)
    assert "kind accuracy" in str(found) and "box mae" in str(found)


def test_metrics_of_one_output_are_one_and_bounds_are_for_the_objective_that_has_them(boxes, two):
    val = parts(160, 240, BOX)
    alone = genetic_search(boxes, val, ("metrics", "macs"), population=4, generations=0, verbose=0)
    assert [(each.name, each.larger) for each in alone.judgement.objectives] == [("metric", False), ("macs", False)]
    with pytest.raises(PruningError, match='With "metrics" every metric is an objective by itself; leave out max_drop'):
        genetic_search(two, parts(160, 240, BOTH), "metrics", max_drop="5%")
    with pytest.raises(PruningError, match='leave out max_drop= and the objective "metric"'):
        genetic_search(two, parts(160, 240, BOTH), ("metrics", "metric"))


def test_what_was_made_is_kept_when_a_metric_turns_into_no_number(boxes, tmp_path):
    dense = boxes.predict(X[160:], verbose=0)

    def brittle(targets, outputs):
        return 0.0 if np.allclose(outputs, dense, atol=1e-4) else float("nan")

    with pytest.warns(UserWarning, match="no step stayed within the bound"):
        result = compress(
            boxes, parts(0, 160, BOX), parts(160, 240, BOX), 0.1, metric=brittle, mode="min", folder=tmp_path / "kept",
            **{**QUICK, "target": {"parameters": 0.9}},
        )  # fmt: skip
    told = " ".join(result.notes())
    assert "The metric 'brittle' is nan on batch 0 (samples 0 to 79)" in told and not result.within_bound
    assert (tmp_path / "kept" / "steps.json").is_file()
