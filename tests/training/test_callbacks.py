import contextlib
import inspect

import keras
import numpy as np
import pytest
from keras import layers
from tiny_models import MODELS, Mixing, make, numbers

import tfprune
from tfprune.errors import PruningError
from tfprune.model.tree import wrapped_layers
from tfprune.training.masks import constraint_of


def value(variable):
    return keras.ops.convert_to_tensor(variable).numpy()


def zeros_of(model, key="hidden/kernel"):
    return next(
        np.count_nonzero(value(weight.variable) == 0)
        for weight in tfprune.model.prunable.every_weight(model)
        if weight.key == key
    )


class Record(keras.callbacks.Callback):
    """The zeros of a weight after every batch."""

    def __init__(self, key="hidden/kernel"):
        super().__init__()
        self.key = key
        self.zeros = []

    def on_train_batch_end(self, batch, logs=None):
        self.zeros.append(int(zeros_of(self.model, self.key)))


def uniform(amount, **arguments):
    return tfprune.Percentile(amount, allocation="uniform", **arguments)


def assert_same_masks(found, expected):
    assert found.keys() == expected.keys()
    for key, mask in expected.items():
        np.testing.assert_array_equal(found[key], mask, err_msg=key)


METHODS = {
    "threshold": tfprune.Threshold(0.2),
    "threshold in deviations": tfprune.Threshold(0.7, unit="std"),
    "threshold on blocks": tfprune.Threshold(0.3, pattern="2x1"),
    "lamp": tfprune.Percentile(0.6),
    "uniform": uniform(0.6),
    "global": tfprune.Percentile(0.6, allocation="global"),
    "erk": tfprune.Percentile(0.6, allocation="erk"),
    "shares by layer": tfprune.Percentile(0.6, allocation={"hidden": 0.3}),
    "amounts by layer": tfprune.Percentile(0.5, layers={"hidden": 0.25, "head": 0.75}),
    "blocks": tfprune.Percentile(0.5, pattern=tfprune.Block(2, 2)),
    "2 of 4": tfprune.Percentile(pattern="2:4"),
    "1 of 3": tfprune.Percentile(pattern=tfprune.NofM(1, 3)),
    "L2": tfprune.Percentile(0.6, criterion="l2", pattern="2x2"),
    "random": tfprune.Percentile(0.6, criterion="random"),
    "cosine": tfprune.Percentile(tfprune.Cosine(0.1, 0.9, begin=0.2, end=1.0)),
    "in turns": uniform(tfprune.ACDC(0.8, phases=1, begin=0.0, end=0.5)),
    "falling": uniform(tfprune.Piecewise({0.0: 0.8, 0.5: 0.4})),
}


@pytest.mark.parametrize("name", METHODS)
def test_wrapper_and_callback_decide_equal_masks(name):
    found = {}
    for route in ("callback", "wrapper"):
        model, inputs, targets = make("dense", optimizer=keras.optimizers.Adam(0.01))
        pruning = tfprune.PruningCallback(METHODS[name])
        if route == "wrapper":
            model, pruning = tfprune.wrap(model, METHODS[name]), tfprune.UpdateMasks()
        model.fit(inputs, targets, batch_size=2, epochs=2, shuffle=False, verbose=0, callbacks=[pruning])
        found[route] = tfprune.get_masks(model)
        weights = [value(weight) for weight in tfprune.strip_masks(model).weights]
        found[route + " weights"] = {str(index): weight for index, weight in enumerate(weights)}
    assert any(not mask.all() for mask in found["callback"].values())
    assert_same_masks(found["wrapper"], found["callback"])
    assert_same_masks(found["wrapper weights"], found["callback weights"])


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("subclassed", "recurrent")])
def test_the_same_seed_gives_the_same_masks_on_either_route(name):
    found = []
    for route in ("callback", "wrapper"):
        model, inputs, targets = make(name)
        pruning = tfprune.PruningCallback(0.5)
        if route == "wrapper":
            model, pruning = tfprune.wrap(model, 0.5), tfprune.UpdateMasks()
        model.fit(inputs, targets, batch_size=2, shuffle=False, verbose=0, callbacks=[pruning])
        found.append(tfprune.get_masks(model))
    assert_same_masks(found[1], found[0])
    assert sum(np.count_nonzero(~mask) for mask in found[0].values()) > 0


@pytest.mark.parametrize(
    ("callback", "counts"),
    [
        (tfprune.ThresholdPruning(tfprune.OneShot(1e9)), {"hidden/kernel": 48, "head/kernel": 24}),
        (tfprune.PercentilePruning(0.5, allocation="uniform"), {"hidden/kernel": 24, "head/kernel": 12}),
        (tfprune.PercentilePruning(0.5, layers="head"), {"head/kernel": 12}),
        (tfprune.PercentilePruning(pattern="2:4"), {"hidden/kernel": 16, "head/kernel": 12}),
        (tfprune.PruningCallback(0.5), None),
    ],
    ids=["threshold", "uniform", "one layer", "2:4 in 6 rows: 2 of the first 4, none of the other 2", "number"],
)
def test_the_named_callbacks_take_the_arguments_of_their_methods(callback, counts):
    model, inputs, targets = make("dense")
    model.fit(inputs, targets, batch_size=2, verbose=0, callbacks=[callback])
    found = {key: np.count_nonzero(~mask) for key, mask in tfprune.get_masks(model).items()}
    assert found == counts if counts else sum(found.values()) == 36


@pytest.mark.parametrize(
    ("callback", "method"),
    [
        (tfprune.ThresholdPruning, tfprune.Threshold),
        (tfprune.PercentilePruning, tfprune.Percentile),
        (tfprune.StructuredPruning, tfprune.Structured),
    ],
)
def test_the_named_callbacks_show_the_arguments_of_their_methods(callback, method):
    shown, own = inspect.signature(callback), inspect.signature(method)
    assert list(shown.parameters.values()) == list(own.parameters.values())
    # And each reaches the method under its own name.
    given = {name: value for name, value in EVERY_ARGUMENT.items() if name in own.parameters}
    if method is tfprune.Structured:
        given["unit"] = "channel"  # what a threshold calls its unit is another thing
    assert given.keys() == own.parameters.keys()
    made, expected = callback(**given).method.get_config(), method(**given).get_config()
    assert made == expected
    assert len({repr(value) for value in made.values()}) > 3


EVERY_ARGUMENT = {
    "amount": 0.25,
    "criterion": "l1",
    "pattern": "2x1",
    "allocation": "uniform",
    "layers": ["head"],
    "unit": "std",
    "budget": "macs",
    "round_to": 2,
    "min_channels": 3,
}


def test_amounts_rise_with_the_schedule_and_stay_to_the_end():
    model, inputs, targets = make("dense")
    record = Record()
    schedule = tfprune.Linear(0.0, 0.75, begin=1, end=5, every=2)
    model.fit(
        inputs,
        targets,
        batch_size=1,
        verbose=0,
        callbacks=[tfprune.PercentilePruning(schedule, allocation="uniform"), record],
    )
    assert record.zeros == [0, 0, 0, 18, 18, 36, 36, 36]


def test_sparsity_reaches_history_csv_and_checkpoints(tmp_path):
    model, inputs, targets = make("dense")
    history = model.fit(
        inputs,
        targets,
        batch_size=2,
        epochs=2,
        verbose=0,
        callbacks=[
            tfprune.PercentilePruning(tfprune.Piecewise({0.0: 0.25, 0.5: 0.5})),
            keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
            keras.callbacks.ModelCheckpoint(
                str(tmp_path / "best.keras"), monitor="sparsity", mode="max", save_best_only=True
            ),
        ],
    )
    assert history.history["sparsity"] == [0.25, 0.5]
    heading, *rows = (tmp_path / "log.csv").read_text().splitlines()
    column = heading.split(",").index("sparsity")
    assert [float(row.split(",")[column]) for row in rows] == [0.25, 0.5]
    saved = tfprune.get_masks(keras.models.load_model(tmp_path / "best.keras"))
    assert sum(np.count_nonzero(~mask) for mask in saved.values()) == 36


def test_evaluating_and_predicting_change_no_weight():
    for route in ("callback", "wrapper"):
        model, inputs, targets = make("convolutional")
        pruning = tfprune.PruningCallback(0.5)
        if route == "wrapper":
            model, pruning = tfprune.wrap(model, 0.5), tfprune.UpdateMasks()
        model.fit(inputs, targets, batch_size=2, verbose=0, callbacks=[pruning])
        before = [value(variable) for variable in model.weights]
        model.evaluate(inputs, targets, verbose=0, callbacks=[pruning])
        model.predict(inputs, verbose=0, callbacks=[pruning])
        for now, then in zip(model.weights, before):
            np.testing.assert_array_equal(value(now), then)


def test_a_second_run_goes_up_from_the_masks_that_are_held():
    for route in ("callback", "wrapper"):
        model, inputs, targets = make("dense")
        first, second = (tfprune.PruningCallback(uniform(amount)) for amount in (0.5, 0.75))
        if route == "wrapper":
            model = tfprune.wrap(model, uniform(0.5))
            first = second = tfprune.UpdateMasks()
        model.fit(inputs, targets, batch_size=1, verbose=0, callbacks=[first])
        held = tfprune.get_masks(model)
        record = Record()
        model.fit(inputs, targets, batch_size=1, verbose=0, callbacks=[second, record])
        assert min(record.zeros) == 24
        assert record.zeros[-1] == (24 if route == "wrapper" else 36)
        for key, mask in tfprune.get_masks(model).items():
            assert not mask[~held[key]].any()


def test_a_second_run_may_ask_for_fewer_zeros():
    model, inputs, targets = make("dense")
    model.fit(inputs, targets, batch_size=1, verbose=0, callbacks=[tfprune.PruningCallback(uniform(0.75))])
    model.fit(inputs, targets, batch_size=1, verbose=0, callbacks=[tfprune.PruningCallback(uniform(0.25))])
    assert np.count_nonzero(~tfprune.get_masks(model)["hidden/kernel"]) == 12


def test_after_strip_a_run_starts_anew_unless_the_masks_are_applied():
    model, inputs, targets = make("dense")
    half = tfprune.prune(model, uniform(0.5))
    free, held = tfprune.strip_masks(half), tfprune.strip_masks(half)
    tfprune.apply_masks(held, tfprune.get_masks(held))
    for other in (free, held):
        record = Record()
        with contextlib.nullcontext() if other is held else pytest.warns(UserWarning, match="no mask holds them"):
            other.fit(
                inputs, targets, batch_size=1, verbose=0, callbacks=[tfprune.PruningCallback(uniform(0.75)), record]
            )
        assert record.zeros[-1] == 36
        assert (min(record.zeros) == 24) == (other is held)


def test_two_callbacks_prune_different_layers():
    model, inputs, targets = make("dense")
    callbacks = [tfprune.PercentilePruning(0.25, layers="hidden"), tfprune.PercentilePruning(0.75, layers="head")]
    model.fit(inputs, targets, batch_size=2, verbose=0, callbacks=callbacks)
    assert {key: np.count_nonzero(~mask) for key, mask in tfprune.get_masks(model).items()} == {
        "hidden/kernel": 12,
        "head/kernel": 18,
    }


def test_a_kernel_that_starts_as_zeros_learns_before_it_is_pruned():
    for method in (tfprune.Threshold(1e-3), uniform(0.5)):
        inputs, targets = numbers(32, 6), numbers(32, 4, seed=1)
        model = keras.Sequential([keras.Input((6,)), layers.Dense(4, kernel_initializer="zeros", name="hidden")])
        model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=False)
        model.fit(inputs, targets, batch_size=1, verbose=0, callbacks=[tfprune.PruningCallback(method)])
        assert np.count_nonzero(value(model.layers[0].kernel)) >= 12


def test_a_pattern_of_n_of_m_ramps_in_fit_and_is_reloaded_with_the_model(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="hidden")])
    model.compile("sgd", "mse", jit_compile=False)
    method = tfprune.Percentile(tfprune.Linear(0.0, 0.5, begin=0, end=4, every=1), pattern="2:4")
    wrapped = tfprune.wrap(model, method)
    record = Record()
    wrapped.fit(numbers(8, 8), numbers(8, 4), batch_size=1, verbose=0, callbacks=[tfprune.UpdateMasks(), record])
    assert record.zeros == [0, 4, 8, 12, 16, 16, 16, 16]
    wrapped.save(tmp_path / "wrapped.keras")
    loaded = keras.models.load_model(tmp_path / "wrapped.keras")
    assert wrapped_layers(loaded)[0].method == method
    assert wrapped_layers(loaded)[0].method.pattern == tfprune.NofM(2, 4)
    loaded.fit(numbers(8, 8, seed=3), numbers(8, 4), batch_size=1, verbose=0, callbacks=[tfprune.UpdateMasks()])
    kept = tfprune.get_masks(tfprune.strip_masks(loaded))["hidden/kernel"]
    np.testing.assert_array_equal(kept.reshape(2, 4, 4).sum(axis=1), np.full((2, 4), 2))


@keras.saving.register_keras_serializable(package="tfprune_tests")
class Stairs(tfprune.deciding.schedules.Schedule):
    """Half way at once, the rest at the end."""

    def __init__(self, top, begin=0.0, end=0.75, every=0.02):
        super().__init__(begin, end, every)
        self.top = top

    def amount_at(self, progress):
        return self.top if progress >= 1.0 else self.top / 2

    def get_config(self):
        return {"top": self.top, **super().get_config()}


def test_a_schedule_of_the_users_own_goes_through_the_saved_model(tmp_path):
    model, inputs, targets = make("dense")
    wrapped = tfprune.wrap(model, uniform(Stairs(0.5, end=0.5, every=0.1)))
    wrapped.save(tmp_path / "wrapped.keras")
    loaded = keras.models.load_model(tmp_path / "wrapped.keras")
    assert [type(layer.method.schedule) for layer in wrapped_layers(loaded)] == [Stairs, Stairs]
    record = Record()
    loaded.fit(inputs, targets, batch_size=1, verbose=0, callbacks=[tfprune.UpdateMasks(), record])
    assert record.zeros == [12, 12, 12, 12, 24, 24, 24, 24]


def generator():
    while True:
        yield numbers(2, 6), numbers(2, 3)


def test_an_epoch_of_unknown_length_is_an_error_whose_remedies_work():
    import tensorflow as tf

    model, _, _ = make("dense")
    endless = tf.data.Dataset.from_generator(
        lambda: ((numbers(2, 6), numbers(2, 3)) for _ in range(3)),
        output_signature=(tf.TensorSpec((2, 6)), tf.TensorSpec((2, 3))),
    )
    with pytest.raises(PruningError, match=r"length of an epoch is not known.*steps_per_epoch=n.*assert_cardinality"):
        model.fit(endless, verbose=0, callbacks=[tfprune.PercentilePruning(0.5)])
    assert constraint_of(model.get_layer("hidden").kernel) is None
    for data, arguments in (
        (generator(), {"steps_per_epoch": 3}),
        (endless.apply(tf.data.experimental.assert_cardinality(3)), {}),
    ):
        model, _, _ = make("dense")
        model.fit(data, verbose=0, callbacks=[tfprune.PruningCallback(uniform(0.5))], **arguments)
        assert zeros_of(model) == 24


@pytest.mark.parametrize("batches", [1, 2, 3, 5, 8])
def test_the_shortest_runs_reach_their_target(batches):
    model, inputs, targets = make("dense")
    model.fit(
        inputs[:batches], targets[:batches], batch_size=1, verbose=0, callbacks=[tfprune.PruningCallback(uniform(0.5))]
    )
    assert zeros_of(model) == 24


def test_a_run_that_starts_behind_the_schedule_still_reaches_its_target():
    model, inputs, targets = make("dense")
    model.fit(inputs, targets, epochs=9, verbose=0)
    model.fit(inputs, targets, initial_epoch=9, epochs=10, verbose=0, callbacks=[tfprune.PruningCallback(uniform(0.5))])
    assert zeros_of(model) == 24


def test_a_run_that_is_too_short_is_an_error_that_names_the_numbers_and_changes_nothing():
    model, inputs, targets = make("dense")
    before = [value(variable) for variable in model.weights]
    schedule = tfprune.Linear(0.0, 0.5, begin=0, end=100)
    with pytest.raises(
        PruningError, match=r"from step 0 to step 100, but this run has steps 0 to 7.*train for 101 steps"
    ):
        model.fit(inputs, targets, batch_size=1, verbose=0, callbacks=[tfprune.PercentilePruning(schedule)])
    for now, then in zip(model.weights, before):
        np.testing.assert_array_equal(value(now), then)
    assert constraint_of(model.get_layer("hidden").kernel) is None


def test_a_run_that_is_stopped_before_the_target_says_so():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 2

    model, inputs, targets = make("dense")
    schedule = tfprune.Linear(0.0, 0.5, begin=0, end=6, every=1)
    with pytest.warns(
        UserWarning, match=r"stopped after step 2 of the schedule, at 0\.1667; its end at step 6 with 0\.5"
    ):
        model.fit(inputs, targets, batch_size=1, verbose=0, callbacks=[tfprune.PercentilePruning(schedule), Stop()])


@pytest.mark.parametrize(
    ("build", "callback", "message"),
    [
        (
            lambda: make("dense")[0],
            tfprune.UpdateMasks,
            r"has no PrunedLayer, so there are no masks to update.*tfprune\.wrap",
        ),
        (
            lambda: tfprune.wrap(make("dense")[0], 0.5),
            lambda: tfprune.PercentilePruning(0.5),
            r"is wrapped: .*UpdateMasks\(\)",
        ),
        (lambda: make("dense")[0], lambda: tfprune.PercentilePruning(0.5, layers="hiden"), "Did you mean 'hidden'"),
        (lambda: make("own_layers")[0], lambda: tfprune.PercentilePruning(0.5, layers="norm"), "matches no layer"),
        (
            lambda: make("dense", optimizer=keras.optimizers.SGD(gradient_accumulation_steps=9))[0],
            lambda: tfprune.PercentilePruning(0.5),
            "gradient_accumulation_steps=9 is more than the 8 batches",
        ),
    ],
    ids=["callback of the other kind", "callback on wrapped", "misspelt", "no such layer", "too much accumulation"],
)
def test_what_cannot_run_is_said_when_fit_begins(build, callback, message):
    model = build()
    with pytest.raises(PruningError, match=message):
        model.fit(numbers(8, 6), numbers(8, 3), batch_size=1, verbose=0, callbacks=[callback()])


@pytest.mark.parametrize(
    ("make_wrong", "message"),
    [
        (lambda: tfprune.PercentilePruning(1.0), r"1\.0 is no sparsity in \[0, 1\)"),
        (lambda: tfprune.PercentilePruning(-0.1), r"-0\.1 is no sparsity"),
        (tfprune.PercentilePruning, "no amount given"),
        (lambda: tfprune.ThresholdPruning(-1.0), r"-1\.0 is no threshold"),
        (lambda: tfprune.PruningCallback("percentile"), r"Percentile\(0\.8\)"),
        (lambda: tfprune.PercentilePruning(tfprune.Linear(0.0, 0.5, begin=9, end=3)), "begin=9 comes after end=3"),
    ],
)
def test_what_makes_no_sense_is_said_when_the_callback_is_made(make_wrong, message):
    with pytest.raises(PruningError, match=message):
        make_wrong()


def test_weights_that_are_no_longer_finite_are_named_in_fit():
    model, inputs, targets = make("dense")
    model.get_layer("hidden").kernel.assign(np.full((6, 8), np.inf))
    with pytest.raises(PruningError, match="'hidden/kernel' has 48 NaN or infinite entries"):
        model.fit(inputs, targets, verbose=0, callbacks=[tfprune.PercentilePruning(tfprune.OneShot(0.5))])


def test_layers_of_the_users_own_class_are_pruned_when_named():
    model, inputs, targets = make("own_layers")
    model.fit(
        inputs, targets, batch_size=2, verbose=0, callbacks=[tfprune.PruningCallback(uniform(0.5, layers=Mixing))]
    )
    assert {key: np.count_nonzero(~mask) for key, mask in tfprune.get_masks(model).items()} == {
        "mixing/mix": 15,
        "mixing/back": 15,
    }


def test_frozen_weights_that_are_named_are_pruned_where_they_are():
    model, inputs, targets = make("dense")
    model.get_layer("hidden").trainable = False
    named = tfprune.Percentile(0.5, allocation="uniform", layers=["hidden"])
    before = value(model.get_layer("hidden").kernel)
    model.fit(inputs, targets, batch_size=2, verbose=0, callbacks=[tfprune.PruningCallback(named)])
    kernel = value(model.get_layer("hidden").kernel)
    assert zeros_of(model) == 24
    np.testing.assert_array_equal(kernel[kernel != 0], before[kernel != 0])


def test_a_kernel_of_zeros_counts_as_whole_when_chance_decides():
    masks = []
    for initializer in ("zeros", "glorot_uniform"):
        model = keras.Sequential([keras.Input((6,)), layers.Dense(4, kernel_initializer=initializer, name="hidden")])
        model.compile("sgd", "mse", jit_compile=False)
        pruning = tfprune.PercentilePruning(tfprune.OneShot(0.5), criterion="random")
        model.fit(numbers(4, 6), numbers(4, 4), verbose=0, callbacks=[pruning])
        masks.append(tfprune.get_masks(model)["hidden/kernel"])
    np.testing.assert_array_equal(*masks)
