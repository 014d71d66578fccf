"""Gradients recorded inside the training step, and the movement that they add up to."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_models import make

import tfprune
from tfprune.deciding.statistics import WeightMovement
from tfprune.errors import PruningError
from tfprune.model.prunable import prunable_weights
from tfprune.training.gradients import GradientRecord, latest

L = keras.layers


def linear(**compile_arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), L.Dense(2, use_bias=False, name="only")])
    model.compile(**{"optimizer": keras.optimizers.SGD(0.1), "loss": "mse", "jit_compile": False, **compile_arguments})
    return model


X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 2)).astype("float32")


def gradient_of(kernel):
    return 2 * X.T @ (X @ kernel - Y) / Y.size


def test_the_record_holds_the_gradient_of_the_last_step():
    model = linear()
    record = GradientRecord(model, prunable_weights(model), "gradient", latest)
    record.open()
    assert not record.seen
    assert record.get("only/kernel") is None
    before = model.layers[0].kernel.numpy()
    model.fit(X, Y, batch_size=8, verbose=0)
    assert record.seen
    np.testing.assert_allclose(record["only/kernel"]["gradient"], gradient_of(before), rtol=1e-5)
    record.close()
    assert "apply" not in vars(model.optimizer)
    model.fit(X, Y, batch_size=8, verbose=0)
    np.testing.assert_allclose(record["only/kernel"]["gradient"], gradient_of(before), rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{}, {"jit_compile": True}, {"steps_per_execution": 2}, {"run_eagerly": True}],
    ids=["graph", "XLA", "several steps at once", "eager"],
)
def test_movement_is_the_sum_of_minus_weight_times_gradient(settings):
    model = linear(**settings)
    record = GradientRecord(model, prunable_weights(model), "movement", WeightMovement.update)
    record.open()
    kernel, expected = model.layers[0].kernel.numpy(), np.zeros((3, 2))
    for _ in range(4):
        expected -= kernel * gradient_of(kernel)
        kernel = kernel - 0.1 * gradient_of(kernel)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).repeat()
    model.fit(data, steps_per_epoch=4, verbose=0)
    np.testing.assert_allclose(record.array("only/kernel"), expected, rtol=1e-4, atol=1e-6)


def test_gradients_are_those_of_the_loss_in_mixed_precision(policy):
    policy("mixed_float16")
    model = linear()
    record = GradientRecord(model, prunable_weights(model), "gradient", latest)
    record.open()
    before = model.layers[0].kernel.numpy()
    model.fit(X, Y, batch_size=8, verbose=0)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    np.testing.assert_allclose(record.array("only/kernel"), gradient_of(before), rtol=0.02, atol=2e-3)


def test_a_fixed_loss_scale_is_taken_out():
    model = linear(optimizer=keras.optimizers.SGD(0.1, loss_scale_factor=128.0))
    record = GradientRecord(model, prunable_weights(model), "gradient", latest)
    record.open()
    before = model.layers[0].kernel.numpy()
    model.fit(X, Y, batch_size=8, verbose=0)
    np.testing.assert_allclose(record.array("only/kernel"), gradient_of(before), rtol=1e-4)


def test_what_training_brings_nearer_to_zero_goes_first_however_large():
    model = keras.Sequential([keras.Input((2,)), L.Dense(1, use_bias=False, name="only")])
    model.layers[0].kernel.assign([[5.0], [0.5]])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x = np.eye(2, dtype="float32").repeat(4, axis=0)
    y = x @ np.array([[3.0], [2.0]], "float32")  # the first shall fall, the second rise
    callback = tfprune.PercentilePruning(0.5, criterion="movement", allocation="uniform")
    model.fit(x, y, batch_size=8, epochs=8, verbose=0, callbacks=[callback])
    np.testing.assert_array_equal(tfprune.get_masks(model)["only/kernel"], [[False], [True]])


@pytest.mark.parametrize("name", ["convolutional", "recurrent", "attention"])
def test_pruning_by_movement_is_exact_and_the_same_each_time(name):
    found = []
    for _ in range(2):
        model, inputs, targets = make(name)
        callback = tfprune.PercentilePruning(0.5, criterion="movement", allocation="global")
        model.fit(inputs, targets, batch_size=4, epochs=6, verbose=0, shuffle=False, callbacks=[callback])
        found.append(tfprune.get_masks(model))
    total = sum(mask.size for mask in found[0].values())
    assert sum(np.count_nonzero(~mask) for mask in found[0].values()) == round(0.5 * total)
    for key, mask in found[0].items():
        np.testing.assert_array_equal(found[1][key], mask)


def test_wrapped_layers_and_channels_go_by_movement_too():
    model, inputs, targets = make("dense")
    wrapped = tfprune.wrap(model, tfprune.Percentile(0.5, criterion="movement", allocation="uniform"))
    wrapped.fit(inputs, targets, batch_size=4, epochs=6, verbose=0, callbacks=[tfprune.UpdateMasks()])
    assert all((~mask).sum() == mask.size // 2 for mask in tfprune.get_masks(wrapped).values())
    callback = tfprune.StructuredPruning(0.25, criterion="movement")
    model.fit(inputs, targets, batch_size=4, epochs=6, verbose=0, callbacks=[callback])
    assert (~tfprune.get_masks(model)["hidden/kernel"].any(axis=0)).sum() == 2


@pytest.mark.parametrize("amount", [0.75, 0.25])
def test_a_run_by_movement_goes_on_from_the_zeros_of_an_earlier_run(amount):
    model, inputs, targets = make("dense")
    model.fit(inputs, targets, batch_size=4, verbose=0, callbacks=[tfprune.PercentilePruning(0.5)])
    seen = []

    def look(batch, logs):
        seen.append(sum(np.count_nonzero(~mask) for mask in tfprune.get_masks(model).values()))

    callbacks = [
        tfprune.PercentilePruning(amount, criterion="movement", allocation="global"),
        keras.callbacks.LambdaCallback(on_train_batch_end=look),
    ]
    model.fit(inputs, targets, batch_size=4, epochs=6, verbose=0, callbacks=callbacks)
    assert seen[0] == round(0.5 * 72)  # before anything has moved
    assert seen[-1] == round(amount * 72)
    assert amount < 0.5 or min(seen) == seen[0]


def test_movement_without_training_is_told():
    model, inputs, targets = make("dense")
    with pytest.raises(PruningError, match=r"adds up what happens in training.*Write model.fit\(\.\.\., callbacks="):
        tfprune.prune(model, tfprune.Percentile(0.5, criterion="movement"), (inputs, targets))
    at_once = tfprune.Percentile(tfprune.OneShot(0.5), criterion="movement")
    with pytest.raises(PruningError, match="a schedule that prunes nothing at the first step"):
        model.fit(inputs, targets, verbose=0, callbacks=[tfprune.PruningCallback(at_once)])


def test_other_criteria_from_data_are_refused_before_training_begins():
    model, inputs, targets = make("dense")
    before = model.get_weights()
    with pytest.raises(PruningError, match=r"Taylor\(\) needs the gradient of 'hidden/kernel'.*fit cannot use it"):
        model.fit(inputs, targets, verbose=0, callbacks=[tfprune.PercentilePruning(0.5, criterion="taylor")])
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)


def pruned_by_movement(schedule, train, **settings):
    """The mask of a model trained by `train(model, callback)` for 16 steps of 4 samples in two epochs."""
    model = linear(**settings)
    callback = tfprune.PercentilePruning(schedule, criterion="movement")
    train(model, callback)
    assert callback.sparsity == 0.5
    return tfprune.get_masks(model)["only/kernel"]


RAMP = tfprune.Linear(0.25, 0.5, begin=4, end=8, every=4)
BATCHES = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2).repeat(2)


def by_fit(model, callback):
    model.fit(BATCHES, epochs=2, steps_per_epoch=8, verbose=0, callbacks=[callback])


def by_a_loop(take_step):
    """A loop of one's own that calls the callback as the guide says."""

    def train(model, callback):
        callbacks = keras.callbacks.CallbackList([callback], model=model, epochs=2, steps=8)
        callbacks.on_train_begin()
        for epoch in range(2):
            callbacks.on_epoch_begin(epoch)
            for batch, (x, y) in enumerate(BATCHES):
                callbacks.on_train_batch_begin(batch)
                take_step(model, x, y)
                callbacks.on_train_batch_end(batch)
            callbacks.on_epoch_end(epoch, {})
        callbacks.on_train_end()

    return train


def gradient_step(model, x, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
    model.optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)


@pytest.mark.parametrize("schedule", [RAMP, 0.5], ids=["ramp", "default"])
@pytest.mark.parametrize("steps", [2, 4])
def test_movement_decides_with_several_steps_at_once(schedule, steps):
    together = pruned_by_movement(schedule, by_fit, steps_per_execution=steps)
    if schedule is RAMP:  # whose moments are those at which the host is asked
        np.testing.assert_array_equal(together, pruned_by_movement(RAMP, by_fit))


@pytest.mark.parametrize(
    "take_step",
    [gradient_step, tf.function(gradient_step), lambda model, x, y: model.train_on_batch(x, y)],
    ids=["eager", "compiled", "train_on_batch"],
)
def test_movement_in_a_loop_of_ones_own_decides_as_in_fit(take_step):
    np.testing.assert_array_equal(pruned_by_movement(RAMP, by_a_loop(take_step)), pruned_by_movement(RAMP, by_fit))


def test_a_run_of_a_single_execution_cannot_be_pruned_by_movement():
    callback = tfprune.PercentilePruning(0.5, criterion="movement")
    with pytest.raises(PruningError, match="there was no step of it yet for 'only/kernel'"):
        linear(steps_per_execution=8).fit(BATCHES, steps_per_epoch=8, verbose=0, callbacks=[callback])
