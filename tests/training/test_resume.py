"""Runs that are interrupted go on as if they had not been: killed for good, stopped early, started at a later epoch."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny_models import make

import tfprune
from tfprune.training.masks import constraint_of

LAMP = tfprune.Percentile(tfprune.Polynomial(0.1, 0.8, every=2))
RUNS = {
    "LAMP by callback": ("callback", LAMP),
    "LAMP by wrapper": ("wrapper", LAMP),
    "threshold by callback": ("callback", tfprune.Threshold(tfprune.Constant(0.35, begin=0, end=13, every=13))),
}
EPOCHS, STEPS = 4, 8

# Trains like `run` below, and dies without a word in the middle of the third epoch.
SCRIPT = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import keras
from test_resume import RUNS, STEPS, run

class Die(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == 2 * STEPS + 3:
            os.kill(os.getpid(), signal.SIGKILL)

run(*RUNS[sys.argv[2]], [keras.callbacks.BackupAndRestore(sys.argv[3]), Die()])
"""


def run(route, method, callbacks=()):
    """Trains to the end; gives the masks and the number of batches that were trained."""
    model, inputs, targets = make("dense", optimizer=keras.optimizers.Adam(0.02))
    pruning = tfprune.PruningCallback(method)
    if route == "wrapper":
        model, pruning = tfprune.wrap(model, method), tfprune.UpdateMasks()
    batches = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: batches.append(batch))
    model.fit(
        inputs, targets, batch_size=1, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[pruning, *callbacks, count]
    )
    assert len(inputs) == STEPS
    return tfprune.get_masks(model), len(batches)


def test_a_run_that_was_killed_goes_on_to_the_masks_of_one_that_was_not(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    here = Path(__file__).parent
    search = os.pathsep.join([str(here.parents[1]), str(here.parent), os.environ.get("PYTHONPATH", "")])
    killed = {
        name: subprocess.Popen(
            [sys.executable, str(script), str(here), name, str(tmp_path / str(index))],
            env={**os.environ, "PYTHONPATH": search, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, name in enumerate(RUNS)
    }
    for index, name in enumerate(RUNS):
        _, errors = killed[name].communicate(timeout=500)
        assert killed[name].returncode == -signal.SIGKILL, f"{name}: {errors[-2000:]}"
        backup = tmp_path / str(index)
        assert json.loads((backup / "training_metadata.json").read_text())["epoch"] == 2
        expected, batches = run(*RUNS[name])
        assert batches == EPOCHS * STEPS
        found, batches = run(*RUNS[name], [keras.callbacks.BackupAndRestore(str(backup))])
        assert batches == 2 * STEPS
        assert found.keys() == expected.keys()
        for weight, mask in expected.items():
            np.testing.assert_array_equal(found[weight], mask, err_msg=f"{name}, {weight}")
        assert sum(np.count_nonzero(~mask) for mask in expected.values()) > 0


def zeros(model):
    return {
        weight.key: np.count_nonzero(keras.ops.convert_to_tensor(weight.variable).numpy() == 0)
        for weight in tfprune.model.prunable.every_weight(model)
        if weight.is_kernel
    }


def prepared(route, method):
    model, inputs, targets = make("dense")
    if route == "wrapper":
        return tfprune.wrap(model, method), tfprune.UpdateMasks(), inputs, targets
    return model, tfprune.PruningCallback(method), inputs, targets


@pytest.mark.parametrize("route", ["callback", "wrapper"])
def test_a_run_restored_from_the_middle_of_an_epoch_gives_no_zero_back(route, tmp_path):
    method = tfprune.Percentile(tfprune.Linear(0.0, 0.75, begin=0, end=12, every=1), allocation="uniform")
    model, pruning, inputs, targets = prepared(route, method)

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 6:
                raise KeyboardInterrupt

    backup = keras.callbacks.BackupAndRestore(str(tmp_path), save_freq=6)
    with pytest.raises(KeyboardInterrupt):
        model.fit(inputs, targets, batch_size=1, epochs=2, verbose=0, callbacks=[pruning, backup, Interrupt()])
    again, pruning, inputs, targets = prepared(route, method)
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(zeros(again)["hidden/kernel"])
    )
    backup = keras.callbacks.BackupAndRestore(str(tmp_path), save_freq=100)
    again.fit(inputs, targets, batch_size=1, epochs=2, verbose=0, callbacks=[pruning, backup, look])
    assert seen[0] == round(48 * 0.75 * 5 / 12)  # of the sixth batch, although the epoch is done again from its start
    assert seen == sorted(seen)
    assert zeros(again) == {"hidden/kernel": 36, "head/kernel": 18}


@pytest.mark.parametrize("route", ["callback", "wrapper"])
def test_early_stopping_brings_back_an_epoch_that_has_the_final_zeros(route):
    method = tfprune.Percentile(tfprune.Linear(0.0, 0.5, begin=0, end=10, every=1), allocation="uniform")
    model, pruning, inputs, targets = prepared(route, method)
    stop = keras.callbacks.EarlyStopping("sparsity", mode="min", patience=2, restore_best_weights=True)

    class Worse(keras.callbacks.Callback):  # so that the first epoch, which is hardly pruned, would be the best
        def on_epoch_end(self, epoch, logs=None):
            logs["sparsity"] = epoch

    model.fit(inputs, targets, batch_size=1, epochs=9, verbose=0, callbacks=[Worse(), stop, pruning])
    assert (stop.best_epoch, stop.stopped_epoch) == (1, 3)
    assert zeros(model) == {"hidden/kernel": 24, "head/kernel": 12}
    assert zeros(tfprune.strip_masks(model)) == {"hidden/kernel": 24, "head/kernel": 12}


def test_a_callback_that_brings_back_weights_behind_the_pruning_is_told_when_the_masks_are_stripped():
    method = tfprune.Percentile(tfprune.Linear(0.0, 0.5, begin=0, end=10, every=1), allocation="uniform")
    model, pruning, inputs, targets = prepared("callback", method)

    first = model.get_weights()
    back = keras.callbacks.LambdaCallback(on_train_end=lambda logs: model.set_weights(first))
    model.fit(inputs, targets, batch_size=1, epochs=9, verbose=0, callbacks=[pruning, back])
    with pytest.warns(UserWarning, match=r"'hidden/kernel', 'head/kernel'.*behind the pruning.*; list it before"):
        plain = tfprune.strip_masks(model)
    assert zeros(plain) == {"hidden/kernel": 24, "head/kernel": 12}


def test_a_run_in_two_calls_by_initial_epoch_gives_the_masks_of_one_call():
    method = tfprune.Percentile(tfprune.Linear(0.0, 0.8, begin=0, end=20, every=3))
    found = []
    for pieces in ([(0, 4)], [(0, 2), (2, 4)]):
        model, pruning, inputs, targets = prepared("callback", method)
        for first, last in pieces:
            # The number of epochs is that of the whole run; stopping in between is the business of the loop here.
            stop = keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs, last=last: setattr(model, "stop_training", epoch + 1 >= last)  # noqa: B023
            )
            with pytest.warns(UserWarning, match="stopped after step") if last < 4 else contextlib.nullcontext():
                model.fit(
                    inputs,
                    targets,
                    batch_size=1,
                    initial_epoch=first,
                    epochs=4,
                    shuffle=False,
                    verbose=0,
                    callbacks=[pruning, stop],
                )
        found.append(tfprune.get_masks(model))
    for key, mask in found[0].items():
        np.testing.assert_array_equal(found[1][key], mask)
    assert constraint_of(model.get_layer("hidden").kernel) is not None
