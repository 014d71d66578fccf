import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util
from tiny_models import make

import tfprune


def scalars(folder):
    """Every scalar in the event files of a folder: tag -> [(step, value)]."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, float(tensor_util.make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
        if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"
    }


@pytest.mark.parametrize("route", ["callback", "wrapper"])
def test_the_sparsity_of_each_epoch_is_written_and_read_back(route, tmp_path):
    model, inputs, targets = make("nested")
    method = tfprune.Percentile(tfprune.Piecewise({0.0: 0.0, 0.3: 0.25, 1.0: 0.5}), allocation="uniform")
    pruning = tfprune.PruningCallback(method)
    if route == "wrapper":
        model, pruning = tfprune.wrap(model, method), tfprune.UpdateMasks()
    logger = tfprune.SparsityLogger(tmp_path / "logs")
    model.fit(inputs, targets, batch_size=4, epochs=3, verbose=0, callbacks=[pruning, logger])
    tags = {
        "sparsity/backbone/dense/kernel",
        "sparsity/backbone/inner/dense/kernel",
        "sparsity/head/kernel",
        "sparsity/total",
    }
    expected = [(0, 0.0), (1, 0.25), (2, 0.5)]
    assert scalars(tmp_path / "logs") == {
        tag: [
            (step, pytest.approx(round(share * 18) / 18 if "head" in tag else share, abs=0.01))
            for step, share in expected
        ]
        for tag in tags
    }
    model.fit(inputs, targets, batch_size=4, epochs=4, initial_epoch=3, verbose=0, callbacks=[pruning, logger])
    assert {values[-1] for values in scalars(tmp_path / "logs").values()} == {(3, 0.5)}  # a logger serves many runs


def test_histograms_and_masks_are_written_where_asked_for_and_read_back(tmp_path):
    model, inputs, targets = make("dense")
    pruning = tfprune.PercentilePruning(tfprune.OneShot(0.5))
    loggers = [
        tfprune.SparsityLogger(tmp_path / "all", histograms=True, masks=True),
        tfprune.SparsityLogger(tmp_path / "few"),
    ]
    model.fit(inputs, targets, epochs=2, verbose=0, callbacks=[pruning, *loggers])
    events = EventAccumulator(str(tmp_path / "all"), size_guidance={"tensors": 0})
    events.Reload()
    kinds = {tag: events.SummaryMetadata(tag).plugin_data.plugin_name for tag in events.Tags()["tensors"]}
    kernels = {f"{layer.name}/kernel": np.array(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")}
    for key, kernel in kernels.items():
        assert (kinds[f"weights/{key}"], kinds[f"zeros/{key}"]) == ("histograms", "images")
        assert [event.step for event in events.Tensors(f"weights/{key}")] == [0, 1]
        buckets = tensor_util.make_ndarray(events.Tensors(f"weights/{key}")[-1].tensor_proto)
        assert buckets[:, 2].sum() == np.count_nonzero(kernel)
        width, height, png = tensor_util.make_ndarray(events.Tensors(f"zeros/{key}")[-1].tensor_proto)
        assert (int(height), int(width)) == kernel.shape
        shown = tf.io.decode_png(png).numpy()[..., 0]
        np.testing.assert_array_equal(shown, 255 * (kernel != 0))
    assert {tag.partition("/")[0] for tag in scalars(tmp_path / "few")} == {"sparsity"}
    few = EventAccumulator(str(tmp_path / "few"))
    few.Reload()
    assert all(tag.startswith("sparsity/") for tag in few.Tags()["tensors"])


def test_a_large_weight_has_no_image(tmp_path, monkeypatch):
    monkeypatch.setattr("tfprune.training.callbacks.LARGEST_IMAGE", 40)
    model, inputs, targets = make("dense")
    model.fit(inputs, targets, verbose=0, callbacks=[tfprune.SparsityLogger(tmp_path, masks=True)])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [tag for tag in events.Tags()["tensors"] if tag.startswith("zeros/")] == ["zeros/head/kernel"]


def test_what_is_counted_are_the_weights_themselves(tmp_path):
    model, inputs, targets = make("dense")
    model.get_layer("hidden").kernel.assign(np.eye(6, 8))
    model.optimizer.learning_rate = 0.0
    model.fit(inputs, targets, verbose=0, callbacks=[tfprune.SparsityLogger(str(tmp_path))])
    assert scalars(tmp_path) == {
        "sparsity/hidden/kernel": [(0, pytest.approx(42 / 48))],
        "sparsity/head/kernel": [(0, 0.0)],
        "sparsity/total": [(0, pytest.approx(42 / 72))],
    }


def test_the_tensorboard_of_keras_gets_the_sparsity_with_its_other_logs(tmp_path):
    model, inputs, targets = make("dense")
    callbacks = [
        tfprune.PercentilePruning(tfprune.OneShot(0.5)),
        keras.callbacks.TensorBoard(str(tmp_path), write_graph=False),
    ]
    model.fit(inputs, targets, epochs=2, verbose=0, callbacks=callbacks)
    assert scalars(tmp_path / "train")["epoch_sparsity"] == [(0, 0.5), (1, 0.5)]
