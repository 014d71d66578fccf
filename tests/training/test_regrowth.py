"""Dynamic network surgery and RigL: exact counts at every update, and entries that come back."""

import itertools

import keras
import numpy as np
import pytest
from tiny_models import make

import tfprune
from tfprune.errors import PruningError
from tfprune.model.prunable import PrunableWeight, prunable_weights
from tfprune.model.tree import Place
from tfprune.training.masks import MaskConstraint, constraint_of
from tfprune.training.regrowth import BoundSurgery, LivingConstraint, rewired

L = keras.layers


class EveryMask(keras.callbacks.Callback):
    """Keeps the masks after every batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(tfprune.get_masks(self.model))


def run(callback, name="dense", epochs=8, **settings):
    model, inputs, targets = make(name, **settings)
    masks = EveryMask()
    history = model.fit(
        inputs, targets, batch_size=4, epochs=epochs, verbose=0, shuffle=False, callbacks=[callback, masks]
    )
    return model, masks.seen, history


def zeros(masks):
    return sum(int(np.count_nonzero(~mask)) for mask in masks.values())


def entries(model):
    return sum(int(np.prod(weight.shape)) for weight in prunable_weights(model))


def test_removed_weights_live_on_behind_their_zeros():
    model = keras.Sequential([keras.Input((1,)), L.Dense(2, use_bias=False, name="only")])
    model.layers[0].kernel.assign([[0.4, -1.0]])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x, y = np.ones((1, 1), "float32"), np.array([[2.0, -1.0]], "float32")
    # Half goes at step 1, the smaller one; its gradient at zero goes on pulling it up, by 0.1 x 2 at each step.
    schedule = tfprune.Piecewise({1: 0.5, 8: 0.5})
    callback = tfprune.DynamicSurgery(schedule, margin=0.0)
    seen = EveryMask()
    model.fit(x, y, epochs=10, verbose=0, callbacks=[callback, seen])
    kept = [masks.get("only/kernel", np.ones((1, 2), bool)).tolist() for masks in seen.seen]
    assert kept[1:8] == [[[False, True]]] * 7
    assert kept[8:] == [[[True, False]]] * 2  # spliced back, now larger than the other
    # 0.4, one dense step to 0.56, seven from zero of 0.2 each to 1.96, two masked no more: almost at 2 already.
    assert 1.9 < model.layers[0].kernel.numpy()[0, 0] < 2.0
    assert model.layers[0].kernel.numpy()[0, 1] == 0.0


def test_a_margin_keeps_what_is_decided():
    held = MaskConstraint(keras.Variable([[True, False]], dtype="bool", trainable=False))
    weight = keras.Variable([[1.0, 0.0]], name="kernel")
    weight.constraint = LivingConstraint(held, keras.Variable([[1.0, 1.05]], trainable=False))
    weights = [PrunableWeight("kernel", weight, Place("kernel", ()), 0, True)]
    for margin, expected in ((0.1, [[1, 0]]), (0.0, [[0, 1]])):
        bound = BoundSurgery(tfprune.Percentile(0.5), weights, margin)
        assert bound.decide(0.5)["kernel"].astype(int).tolist() == expected


@pytest.mark.parametrize("name", ["dense", "convolutional", "recurrent", "attention"])
def test_surgery_is_exact_at_every_update_and_holds_its_zeros(name):
    model, seen, history = run(tfprune.DynamicSurgery(0.6, allocation="global"), name)
    counts = [zeros(masks) for masks in seen]
    assert counts == sorted(counts)
    assert counts[-1] == round(0.6 * entries(model))
    assert history.history["sparsity"][-1] == pytest.approx(0.6, abs=0.01)
    for key, mask in tfprune.get_masks(tfprune.strip_masks(model)).items():
        np.testing.assert_array_equal(mask, seen[-1][key])
    assert all(type(constraint_of(weight.variable)) is MaskConstraint for weight in prunable_weights(model))


def test_something_comes_back_under_surgery_and_nothing_in_plain_pruning():
    # A large learning rate moves weights about, so the ranking changes.
    def back(callback):
        _, seen, _ = run(callback, epochs=20, optimizer=keras.optimizers.SGD(0.8))
        pairs = [(one, other) for one, other in itertools.pairwise(seen) if one.keys() == other.keys()]
        return sum(int(np.count_nonzero(~one[key] & other[key])) for one, other in pairs for key in one)

    assert back(tfprune.DynamicSurgery(0.5, allocation="global", margin=0.0)) > 0
    assert back(tfprune.PercentilePruning(0.5, allocation="global")) == 0


@pytest.mark.parametrize("settings", [{"jit_compile": True}, {"steps_per_execution": 2}], ids=["XLA", "several steps"])
def test_surgery_in_other_kinds_of_steps(settings):
    _, seen, _ = run(tfprune.DynamicSurgery(0.5, allocation="uniform"), **settings)
    assert zeros(seen[-1]) == 36


@pytest.mark.parametrize("pattern", ["2:4", "2x2"])
def test_surgery_by_patterns(pattern):
    model, seen, _ = run(tfprune.DynamicSurgery(0.5, pattern=pattern, allocation="uniform", layers="hidden"))
    plain = tfprune.get_masks(tfprune.prune(model, tfprune.Percentile(0.5, pattern=pattern, layers="hidden")))
    assert zeros(seen[-1]) == zeros(plain)


def test_connections_move_from_small_weights_to_large_gradients():
    kept = np.array([1, 1, 1, 1, 0, 0], bool)
    weight = np.array([4.0, 1.0, -3.0, 2.0, 0.0, 0.0])
    gradient = np.array([0.0, 9.0, 0.0, 0.0, 1.0, -7.0])
    # The second and fourth are dropped; the second comes back by its gradient, with the last.
    assert rewired(weight, gradient, kept, 0.5).astype(int).tolist() == [1, 1, 1, 0, 0, 1]
    assert (rewired(weight, gradient, kept, 0.0) == kept).all()


@pytest.mark.parametrize("name", ["convolutional", "attention"])
def test_rigl_keeps_the_number_of_zeros_of_every_weight_and_moves_them(name):
    model, seen, history = run(tfprune.RigL(0.5), name)
    first, last = seen[0], seen[-1]
    assert zeros(first) == zeros(last) == round(0.5 * entries(model))
    assert {key: mask.sum() for key, mask in first.items()} == {key: mask.sum() for key, mask in last.items()}
    assert any((first[key] != last[key]).any() for key in first)
    assert set(history.history["sparsity"]) == {history.history["sparsity"][0]}
    again = run(tfprune.RigL(0.5), name)[1]
    for key, mask in again[-1].items():
        np.testing.assert_array_equal(mask, last[key])


def test_rigl_starts_by_chance_or_from_what_is_large():
    first = run(tfprune.RigL(0.5, fraction=0.0))[1][-1]
    other = run(tfprune.RigL(0.5, fraction=0.0, initial=tfprune.deciding.criteria.Random(1)))[1][-1]
    assert any((first[key] != other[key]).any() for key in first)
    model, _, _ = make("dense")
    large = tfprune.get_masks(tfprune.prune(model, tfprune.Percentile(0.5, allocation="erk")))
    found = run(tfprune.RigL(0.5, fraction=0.0, initial="magnitude"))[1][-1]
    for key, mask in large.items():
        np.testing.assert_array_equal(found[key], mask)


def test_a_second_run_of_rigl_goes_on_from_its_masks():
    model, inputs, targets = make("dense")
    for _ in range(2):
        model.fit(inputs, targets, batch_size=4, epochs=4, verbose=0, callbacks=[tfprune.RigL(0.5)])
        masks = tfprune.get_masks(model)
        assert zeros(masks) == 36
    still = EveryMask()
    model.fit(inputs, targets, batch_size=4, epochs=1, verbose=0, callbacks=[tfprune.RigL(0.5, fraction=0.0), still])
    for key, mask in masks.items():
        np.testing.assert_array_equal(still.seen[0][key], mask)


def test_a_run_that_goes_on_from_saved_weights_keeps_those_that_live():
    model, inputs, targets = make("dense")
    model.fit(inputs, targets, batch_size=4, epochs=2, verbose=0, callbacks=[tfprune.RigL(0.5)])
    again, _, _ = make("dense")
    weights = model.get_weights()
    grown = np.argwhere(weights[0])[0]
    weights[0][tuple(grown)] = 0.0  # grown, and not moved yet
    again.set_weights(weights)
    look = EveryMask()
    again.fit(inputs, targets, batch_size=4, epochs=1, verbose=0, callbacks=[tfprune.RigL(0.5, fraction=0.0), look])
    assert zeros(look.seen[0]) == 36
    assert look.seen[0]["hidden/kernel"][weights[0] != 0].all()
    assert look.seen[0]["head/kernel"][weights[2] != 0].all()


def test_wrong_use_is_told():
    with pytest.raises(PruningError, match=r"DynamicSurgery: margin=1.0 is not in \[0, 1\)"):
        tfprune.DynamicSurgery(0.5, margin=1.0)
    with pytest.raises(PruningError, match=r"RigL: fraction=2 is not in \[0, 1\]"):
        tfprune.RigL(0.5, fraction=2)
    with pytest.raises(PruningError, match="RigL keeps one sparsity.*give a number"):
        tfprune.RigL(tfprune.Linear(0.0, 0.5))
    with pytest.raises(PruningError, match=r"1.5 is no sparsity in \[0, 1\)"):
        tfprune.RigL(1.5)
    model, inputs, targets = make("dense")
    wrapped = tfprune.wrap(model, 0.5)
    for callback in (tfprune.RigL(0.5), tfprune.DynamicSurgery(0.5)):
        with pytest.raises(PruningError, match="is wrapped: its layers hold their own masks"):
            wrapped.fit(inputs, targets, verbose=0, callbacks=[callback])
