"""Beside Keras: exporters, distribution, KerasTuner and trackers; right, or refused with the line to write."""

import keras
import numpy as np
import pytest
from ways import WAYS, X, Y, every_way, network, prepared, trained

import tfprune

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("collected_quickly"),
]


@pytest.mark.parametrize("way", ["percentile", "wrapper"])
def test_what_keras_exports_for_litert_has_the_zeros(way, tmp_path):
    model, pruning = prepared(way)
    trained(model, [pruning])
    path = tmp_path / "model.tflite"
    for source in (model, tfprune.strip_masks(model)):
        try:
            source.export(path, format="litert", verbose=False)
        except ValueError as error:
            pytest.skip(str(error))  # not in the oldest Keras that is supported
        lite = tfprune.LiteModel.load(path)
        assert sum(kernel.zeros for kernel in lite.inspect().weights) == 36
        np.testing.assert_allclose(lite(X), model.predict(X, verbose=0), atol=1e-6)


def test_masks_hold_under_a_distribution_of_keras():
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=keras.distribution.list_devices()))
    try:
        model = network()
        assert trained(model, [tfprune.PercentilePruning(0.5)]).history["sparsity"][-1] == 0.5
        trained(model, [])
    finally:
        keras.distribution.set_distribution(before)
    assert tfprune.summary(tfprune.strip_masks(model)).sparsity == 0.5


def tuner_of(hypermodel, folder):
    tuner = pytest.importorskip("keras_tuner")
    objective = tuner.Objective("val_loss", "min")
    return tuner.RandomSearch(hypermodel, objective, max_trials=1, directory=folder, seed=0)


@every_way
def test_a_trial_of_keras_tuner_is_saved_and_scored_at_the_target(way, tmp_path):
    tuner = pytest.importorskip("keras_tuner")

    class Pruned(tuner.HyperModel):
        def build(self, hp):
            hp.Choice("rate", [0.05])
            return prepared(way)[0]

        def fit(self, hp, model, *args, **kwargs):
            return model.fit(*args, **kwargs).history["val_loss"][-1]

    search = tuner_of(Pruned(), tmp_path)
    search.search(X, Y, epochs=4, batch_size=4, verbose=0, validation_data=(X, Y), callbacks=[WAYS[way]()])
    (model,) = search.get_best_models()
    (trial,) = search.oracle.get_best_trials()
    assert tfprune.summary(tfprune.strip_masks(model)).sparsity > 0.2
    assert model.evaluate(X, Y, verbose=0) <= trial.score + 1e-6  # the best of the epochs at the target


def test_a_trial_that_would_be_scored_by_its_dense_epochs_is_refused(tmp_path):
    tuner = pytest.importorskip("keras_tuner")

    def build(hp):
        hp.Choice("rate", [0.05])
        return network()

    data = {"epochs": 4, "verbose": 0, "validation_data": (X, Y)}
    with pytest.raises(tuner.errors.FatalError, match=r"HyperModel.*\.history\['val_loss'\]\[-1\]"):
        tuner_of(build, tmp_path / "ramp").search(X, Y, callbacks=[tfprune.PercentilePruning(0.5)], **data)
    search = tuner_of(build, tmp_path / "at_once")
    search.search(X, Y, callbacks=[tfprune.PercentilePruning(tfprune.Constant(0.5))], **data)
    assert tfprune.summary(search.get_best_models()[0]).sparsity == 0.5


def test_mlflow_gets_the_sparsity_of_every_epoch(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("pandas")  # which mlflow-skinny does not bring
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(tmp_path.as_uri())
    mlflow.set_experiment("test")
    with mlflow.start_run() as run:
        trained(network(), [tfprune.PercentilePruning(0.5), mlflow.keras.MlflowCallback(run)])
    assert mlflow.get_run(run.info.run_id).data.metrics["sparsity"] == 0.5


def test_weights_and_biases_gets_the_sparsity_of_every_epoch(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    trackers = pytest.importorskip("wandb.integration.keras")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(mode="offline", dir=str(tmp_path), project="test")
    trained(network(), [tfprune.PercentilePruning(0.5), trackers.WandbMetricsLogger()])
    assert run.summary["epoch/sparsity"] == 0.5
    wandb.finish()
