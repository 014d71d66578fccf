import keras
import numpy as np
import pytest
from keras import layers
from tiny_models import MODELS, make, numbers

import tfprune
from tfprune.training.masks import constraint_of


def value(variable):
    return keras.ops.convert_to_tensor(variable).numpy()


@pytest.mark.parametrize("name", MODELS)
def test_a_stripped_model_is_plain_equal_and_shares_nothing(name, tmp_path):
    model, inputs, _ = make(name)
    pruned = tfprune.prune(model, tfprune.Percentile(0.5, allocation="uniform"))
    before = [value(variable) for variable in pruned.weights]
    plain = tfprune.strip_masks(pruned)
    assert type(plain) is type(model)
    assert not any(constraint_of(variable) for variable in plain.weights)
    np.testing.assert_array_equal(value(plain(inputs)), value(pruned(inputs)))
    for stripped, variable, then in zip(plain.weights, pruned.weights, before, strict=True):
        assert stripped is not variable
        np.testing.assert_array_equal(value(stripped), then)
        np.testing.assert_array_equal(value(variable), then)
        assert not np.signbit(value(stripped)[then == 0]).any()
    assert any(constraint_of(variable) for variable in pruned.weights)  # the input goes on holding its masks
    plain.save(tmp_path / "plain.keras")
    np.testing.assert_array_equal(
        value(keras.models.load_model(tmp_path / "plain.keras")(inputs)), value(plain(inputs))
    )


@pytest.mark.parametrize("route", ["callback", "wrapper"])
def test_the_compilation_is_kept_with_a_fresh_optimizer(route):
    settings = {
        "optimizer": keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 100), clipnorm=1.0),
        "loss": keras.losses.Huber(0.5),
        "metrics": ["mae"],
        "steps_per_execution": 2,
    }
    model, inputs, targets = make("dense", **settings)
    pruned, pruning = model, tfprune.PercentilePruning(0.5)
    if route == "wrapper":
        pruned, pruning = tfprune.wrap(model, 0.5), tfprune.UpdateMasks()
    pruned.fit(inputs, targets, batch_size=2, verbose=0, callbacks=[pruning])
    plain = tfprune.strip_masks(pruned)
    assert plain.optimizer.get_config() == pruned.optimizer.get_config()
    assert int(value(plain.optimizer.iterations)) == 0
    assert not {id(v) for v in plain.optimizer.variables} & {id(v) for v in pruned.optimizer.variables}
    assert (plain.steps_per_execution, plain.jit_compile) == (2, False)
    expected = pruned.evaluate(inputs, targets, verbose=0, return_dict=True)
    assert plain.evaluate(inputs, targets, verbose=0, return_dict=True) == expected
    assert expected.keys() == {"loss", "mae"}


def test_a_model_that_was_never_compiled_or_pruned_is_copied():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    plain = tfprune.strip_masks(model)
    assert not plain.compiled
    np.testing.assert_array_equal(value(plain(numbers(2, 6))), value(model(numbers(2, 6))))


def test_weights_written_under_a_mask_are_zeroed_and_told():
    model = tfprune.prune(make("dense")[0], tfprune.Percentile(0.5, allocation="uniform"))
    model.get_layer("hidden").kernel.assign(numbers(6, 8))
    with pytest.warns(
        UserWarning, match=r"'hidden/kernel' of 'sequential.*' had other values than zero under the mask"
    ):
        plain = tfprune.strip_masks(model)
    assert np.count_nonzero(value(plain.get_layer("hidden").kernel) == 0) == 24


def test_a_stripped_model_trains_freely_until_its_masks_are_applied():
    model, inputs, targets = make("dense")
    plain = tfprune.strip_masks(tfprune.prune(model, tfprune.Percentile(0.5, allocation="uniform")))
    held = tfprune.apply_masks(tfprune.strip_masks(plain), tfprune.get_masks(plain))
    for other, zeros in ((plain, 0), (held, 24)):
        other.fit(inputs, targets, batch_size=2, verbose=0)
        assert np.count_nonzero(value(other.get_layer("hidden").kernel) == 0) == zeros


def test_what_a_subclass_of_a_functional_model_adds_is_kept():
    plain = tfprune.strip_masks(tfprune.prune(Named(units=4), 0.5))
    assert isinstance(plain, Named)
    assert plain.units == 4


@keras.saving.register_keras_serializable(package="tfprune_tests")
class Named(keras.Model):
    def __init__(self, units, **kwargs):
        inputs = keras.Input((6,))
        super().__init__(inputs, layers.Dense(units)(inputs), **kwargs)
        self.units = units

    def get_config(self):
        return {"units": self.units, "name": self.name}
