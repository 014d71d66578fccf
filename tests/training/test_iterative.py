"""Iterative pruning: rounds of equal shares of what is left, winding back, and learning rates that start anew."""

import keras
import numpy as np
import pytest
from tiny_models import make

import tfprune
from tfprune.errors import PruningError

L = keras.layers


class Watch(keras.callbacks.Callback):
    """Masks, weights and learning rate at the begin of every batch, behind the pruning callback."""

    def __init__(self):
        super().__init__()
        self.masks, self.weights, self.rates, self.iterations = [], [], [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.masks.append(tfprune.get_masks(self.model))
        self.weights.append(self.model.get_weights())
        self.rates.append(float(self.model.optimizer.learning_rate))
        self.iterations.append(int(self.model.optimizer.iterations))


def run(callback, name="dense", epochs=4, **settings):
    model, inputs, targets = make(name, **settings)
    watch = Watch()
    history = model.fit(
        inputs, targets, batch_size=4, epochs=epochs, verbose=0, shuffle=False, callbacks=[callback, watch]
    )
    return model, watch, history


def zeros(masks):
    return sum(int(np.count_nonzero(~mask)) for mask in masks.values())


def test_every_round_removes_the_same_share_of_what_is_left_and_the_last_ends_exactly():
    _, watch, history = run(tfprune.IterativePruning(0.875, rounds=3))
    assert [zeros(masks) for masks in watch.masks] == [0, 0, 36, 36, 54, 54, 63, 63]  # of 72, two steps an epoch
    assert history.history["sparsity"] == [0.0, 0.5, 0.75, 0.875]


def test_what_is_gone_stays_gone():
    _, watch, _ = run(tfprune.IterativePruning(0.875, rounds=3))
    for one, other in zip(watch.masks[2:], watch.masks[3:]):
        assert not any((other[key] & ~one[key]).any() for key in one)


@pytest.mark.parametrize("rewind, step", [(0.0, 0), (1, 1)])
def test_what_is_kept_is_wound_back_with_the_state_of_the_optimizer(rewind, step):
    settings = {"optimizer": keras.optimizers.Adam(0.01)}
    callback = tfprune.IterativePruning(0.75, rounds=2, rewind=rewind)
    _, watch, _ = run(callback, "convolutional", epochs=6, **settings)
    then = watch.weights[step]
    rounds = [at for at in range(1, 6) if zeros(watch.masks[at]) != zeros(watch.masks[at - 1])]
    assert rounds == [2, 4]
    for at in rounds:
        assert watch.iterations[at] == step
        for old, new in zip(then, watch.weights[at]):
            np.testing.assert_array_equal(new[new != 0], old[new != 0])  # batch-norm statistics too


def test_without_rewinding_weights_go_on_from_where_they_are():
    _, watch, _ = run(tfprune.IterativePruning(0.5, rounds=1), epochs=2)
    changed = [np.count_nonzero(old != new) for old, new in zip(watch.weights[0], watch.weights[2])]
    assert watch.iterations == [0, 1, 2, 3] and min(changed) > 0


def test_the_learning_rate_starts_anew_in_every_round():
    policy = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.1, 0.01])
    _, watch, _ = run(tfprune.IterativePruning(0.5, rounds=2, learning_rate=policy), epochs=3)
    np.testing.assert_allclose(watch.rates, [0.1, 0.01] * 3, rtol=1e-6)


def test_channels_go_in_rounds_too_and_wound_back_networks_shrink():
    model, inputs, targets = make("dense")
    callback = tfprune.IterativePruning(tfprune.Structured(0.5), rounds=2, rewind=0.0)
    model.fit(inputs, targets, batch_size=4, epochs=3, verbose=0, callbacks=[callback])
    assert tfprune.shrink(tfprune.strip_masks(model)).get_layer("hidden").units == 4


def test_the_same_seed_finds_the_same_ticket():
    first, second = (run(tfprune.IterativePruning(0.8, rounds=2, rewind=0.0))[0] for _ in range(2))
    for one, other in zip(first.get_weights(), second.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_wrong_use_is_told():
    with pytest.raises(PruningError, match="rounds=0 is no number of rounds"):
        tfprune.IterativePruning(0.5, rounds=0)
    with pytest.raises(PruningError, match="learning_rate=0.1 is no function of the step"):
        tfprune.IterativePruning(0.5, learning_rate=0.1)
    for method in (tfprune.Threshold(0.1), tfprune.Percentile(tfprune.Linear(0.0, 0.5))):
        with pytest.raises(PruningError, match="has no share to divide into rounds; write Percentile"):
            tfprune.IterativePruning(method)
    with pytest.raises(PruningError, match="rewind=1.5 is no moment; give an int"):
        tfprune.IterativePruning(0.5, rewind=1.5)
    with pytest.raises(PruningError, match="rewind=0.9 is step 6 of this run, after the first round of pruning at"):
        run(tfprune.IterativePruning(0.5, rounds=2, rewind=0.9))
    with pytest.raises(PruningError, match="a run of 2 steps has no room for 5 rounds.*at least 6 steps"):
        run(tfprune.IterativePruning(0.5), epochs=1)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    with pytest.raises(PruningError, match="has a learning-rate schedule of its own.*compile with a number"):
        callback = tfprune.IterativePruning(0.5, rounds=1, learning_rate=schedule)
        run(callback, optimizer=keras.optimizers.SGD(schedule))
    model, inputs, targets = make("dense")
    with pytest.raises(PruningError, match="goes on at step 4, so the weights of step 0 to rewind to are not known"):
        model.fit(
            inputs,
            targets,
            batch_size=4,
            initial_epoch=2,
            epochs=4,
            verbose=0,
            callbacks=[tfprune.IterativePruning(0.5, rounds=3, rewind=0.0)],
        )
