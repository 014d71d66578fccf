"""What a run adds to the compiled step is gone when the run has ended, in order or not."""

import keras
import numpy as np
import pytest
from tiny_models import make

import tfprune
from tfprune.model.prunable import prunable_weights
from tfprune.training.masks import MaskConstraint, constraint_of

FAILURES = [KeyboardInterrupt, ValueError]
RUNS = {
    "movement": lambda: tfprune.PercentilePruning(0.5, criterion="movement"),
    "RigL": lambda: tfprune.RigL(0.5),
    "surgery": lambda: tfprune.DynamicSurgery(0.5),
    "proximal": lambda: tfprune.ProximalSparsity(0.5, strength=1.0),
}


class Breaking(keras.callbacks.Callback):
    """Ends a run as Ctrl+C does, or a mistake."""

    def __init__(self, failure):
        super().__init__()
        self.failure = failure

    def on_train_batch_end(self, batch, logs=None):
        raise self.failure


def broken_off(name, failure):
    model, inputs, targets = make("dense")
    with pytest.raises(failure):
        model.fit(inputs, targets, epochs=4, batch_size=4, verbose=0, callbacks=[RUNS[name](), Breaking(failure)])
    return model, inputs, targets


def is_as_before(model):
    held = {type(constraint_of(weight.variable)) for weight in prunable_weights(model)}
    return (
        "apply" not in vars(model.optimizer) and "make_train_function" not in vars(model) and held == {MaskConstraint}
    )


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("name", RUNS)
def test_a_plain_fit_after_a_broken_run_is_a_plain_one(name, failure):
    model, inputs, targets = broken_off(name, failure)
    model.fit(inputs, targets, batch_size=4, verbose=0)
    assert is_as_before(model)


@pytest.mark.filterwarnings("ignore:tfprune. .* are zero already")  # those of the proximal steps
@pytest.mark.parametrize("name", RUNS)
def test_pruning_goes_on_after_a_broken_run(name):
    model, inputs, targets = broken_off(name, KeyboardInterrupt)
    model.fit(inputs, targets, epochs=4, batch_size=4, verbose=0, callbacks=[RUNS[name]()])
    assert is_as_before(model)
    assert sum(int(np.count_nonzero(~mask)) for mask in tfprune.get_masks(model).values()) == 36


def test_a_model_of_a_broken_run_is_saved_and_stripped(tmp_path):
    model, inputs, _ = broken_off("movement", KeyboardInterrupt)
    model.save(tmp_path / "model.keras")
    for other in (keras.models.load_model(tmp_path / "model.keras"), tfprune.strip_masks(model)):
        assert is_as_before(other) or not tfprune.get_masks(other)
        np.testing.assert_array_equal(other(inputs), model(inputs))


def test_a_step_that_fails_is_no_different():
    model, inputs, targets = make("dense")
    with pytest.raises(Exception):  # noqa: B017  (whatever TensorFlow says to five targets of three)
        model.fit(inputs, np.ones((len(inputs), 5)), verbose=0, callbacks=[RUNS["movement"]()])
    model.fit(inputs, targets, verbose=0)
    assert is_as_before(model)


def test_two_runs_in_one_fit_end_one_by_one():
    model, inputs, targets = make("dense")
    callbacks = [
        tfprune.PercentilePruning(0.5, criterion="movement", layers="hidden"),
        tfprune.PercentilePruning(0.5, criterion="movement", layers="head"),
    ]
    model.fit(inputs, targets, epochs=4, batch_size=4, verbose=0, callbacks=callbacks)
    assert is_as_before(model)
    for key, mask in tfprune.get_masks(model).items():
        assert np.count_nonzero(~mask) == mask.size // 2, key


def test_a_loop_of_ones_own_over_train_on_batch_keeps_its_record():
    model, inputs, targets = make("dense")
    callback = tfprune.PercentilePruning(tfprune.OneShot(0.5, at=3), criterion="movement")
    callbacks = keras.callbacks.CallbackList([callback], model=model, epochs=1, steps=4)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    for batch in range(4):
        callbacks.on_train_batch_begin(batch)
        model.train_on_batch(inputs, targets)
        assert "apply" in vars(model.optimizer)
        callbacks.on_train_batch_end(batch)
    callbacks.on_epoch_end(0)
    callbacks.on_train_end()
    assert is_as_before(model)
    assert sum(int(np.count_nonzero(~mask)) for mask in tfprune.get_masks(model).values()) == 36
