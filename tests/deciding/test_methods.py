import json

import keras
import numpy as np
import pytest
from battery import METHODS, decide, is_not_last, late_layers_more, mask_of, rising, through_json
from keras import layers

from tfprune.deciding import criteria, methods, schedules
from tfprune.deciding.methods import Percentile, Threshold
from tfprune.deciding.patterns import Block, Element, NofM
from tfprune.errors import PruningError
from tfprune.model.tree import as_array

members = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(16, name="first"),
            layers.Dense(8, name="middle"),
            layers.Dense(4, name="last"),
        ]
    )


def weights_of(model):
    return [as_array(weight) for weight in model.weights]


# Laws of the family


@members
def test_deciding_changes_nothing_in_the_model_and_repeats_itself(method, model):
    before = weights_of(model)
    amount = 0.05 if isinstance(method, Threshold) else 0.4
    once, again = (method.bind(model).decide(amount) for _ in range(2))
    assert all((a == b).all() for a, b in zip(before, weights_of(model)))
    assert list(once) == list(again) and all((once[key] == again[key]).all() for key in once)
    for key, mask in once.items():
        weight = next(weight for weight in method.bind(model).weights if weight.key == key)
        assert mask.dtype == bool and mask.shape == weight.shape


@members
def test_round_trip_through_json_builds_an_equal_method(method, model):
    restored = through_json(method)
    assert restored == method and hash(restored) == hash(method)
    amount = 0.05 if isinstance(method, Threshold) else 0.4
    masks, expected = restored.bind(model).decide(amount), method.bind(model).decide(amount)
    assert list(masks) == list(expected) and all((masks[key] == expected[key]).all() for key in masks)


@members
def test_get_takes_the_object_and_its_config(method):
    assert methods.get(method) is method
    assert methods.get(json.loads(json.dumps(keras.saving.serialize_keras_object(method)))) == method


@members
def test_masks_shrink_as_the_amount_grows_whatever_training_does_in_between(method, model):
    weights = weights_of(model)
    generator = np.random.default_rng(0)
    kept, zeros = None, 0
    for amount in (0.0, 0.1, 0.3, 0.5):
        masks = method.bind(model).decide(amount, kept)
        if kept is not None:
            assert not any((masks[key] & ~kept[key]).any() for key in masks)
        now = sum(int((~mask).sum()) for mask in masks.values())
        assert now >= zeros
        kept, zeros = masks, now
        for variable in model.trainable_variables:
            variable.assign_add(generator.normal(0, 0.1, variable.shape))
    model.set_weights(weights)


@members
def test_weights_that_are_not_finite_are_named(method, model):
    weights = weights_of(model)
    model.get_layer("first").kernel.assign(np.full((12, 16), np.nan))
    with pytest.raises(PruningError, match="'first/kernel' has 192 NaN or infinite entries"):
        method.bind(model).decide(0.1)
    model.set_weights(weights)


# What a method is made of


def test_a_number_ramps_in_fit_and_is_itself_in_one_shot_use():
    for method in (Percentile(0.9), Threshold(0.9)):
        assert method.final == 0.9 and method.schedule == schedules.Polynomial(0.0, 0.9)
    assert Percentile(np.float32(0.5)).amount == 0.5 and isinstance(Percentile(np.float32(0.5)).amount, float)
    assert Percentile(0).final == 0.0


def test_the_final_amount_of_a_schedule_is_where_it_ends():
    assert Percentile(schedules.Linear(0.1, 0.7)).final == 0.7
    with pytest.raises(PruningError, match="rising is a function of the step and has no final amount outside of `fit`"):
        _ = Percentile(rising).final


def test_parts_by_name_config_or_object():
    serialize = keras.saving.serialize_keras_object
    by_name = Percentile(0.5, criterion="l2", pattern="4x1", allocation="erk")
    by_object = Percentile(0.5, criterion=criteria.L2(), pattern=Block(4, 1), allocation="erk")
    by_config = Percentile(0.5, criterion=serialize(criteria.L2()), pattern=serialize(Block(4, 1)), allocation="erk")
    assert by_name == by_object == by_config
    by_function = Percentile(0.5, allocation=late_layers_more)
    assert Percentile(0.5, allocation=serialize(late_layers_more)) == by_function
    assert Percentile(serialize(schedules.Linear(0, 0.5))) == Percentile(schedules.Linear(0, 0.5))


def test_defaults():
    assert Percentile(0.5) == Percentile(0.5, "magnitude", "element", "lamp", None)
    assert Threshold(0.5) == Threshold(0.5, "magnitude", "element", None, "absolute")
    assert Percentile(pattern="2:4").final == 0.5 and Percentile(pattern="1:4").pattern == NofM(1, 4)
    assert Percentile(0.5) != Percentile(0.6) and Percentile(0.5) != Threshold(0.5) and Percentile(0.5) != 0.5


def test_get_makes_a_percentile_of_a_number_or_a_schedule():
    assert methods.get(0.8) == Percentile(0.8) and methods.get(np.float64(0.8)) == Percentile(0.8)
    assert methods.get(np.float32(0.5)) == Percentile(0.5)
    ramp = schedules.Cosine(0.0, 0.8)
    assert methods.get(ramp) == Percentile(ramp)


def test_methods_show_their_arguments():
    assert repr(Threshold(0.1, pattern="2x2")) == (
        "Threshold(amount=0.1, criterion=Magnitude(), pattern=Block(height=2, width=2), layers=None, unit='absolute')"
    )
    # What cannot be written as JSON can still be shown and compared.
    unnamed = Percentile(0.5, layers=lambda layer: True)
    assert "layers=<function" in repr(unnamed) and unnamed == unnamed and hash(unnamed) == hash(unnamed)


# Thresholds


def test_what_does_not_exceed_the_threshold_goes():
    weight = [[0.1, -0.2, 0.3], [-0.4, 0.5, 0.0]]
    assert mask_of(Threshold(0.3), weight).tolist() == [[0, 0, 0], [1, 1, 0]]
    assert mask_of(Threshold(0.0), weight).tolist() == [[1, 1, 1], [1, 1, 0]]
    assert mask_of(Threshold(9.0), weight).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_threshold_in_standard_deviations_of_each_weight():
    # Mean 0, mean square (9 + 1 + 1 + 9) / 4 = 5: one standard deviation is 2.236; the tenfold weight is cut alike.
    arrays = {"one": np.array([[-3.0, -1.0, 1.0, 3.0]]), "tenfold": np.array([[-30.0, -10.0, 10.0, 30.0]])}
    masks = decide(Threshold(0.5, unit="std"), arrays, 0.5)
    assert masks["one"].tolist() == masks["tenfold"].tolist() == [[True, False, False, True]]
    # 0.4 of 2.236 is 0.89, below all; 1.4 of it is 3.13, above all.
    assert decide(Threshold(0.4, unit="std"), arrays, 0.4)["one"].all()
    assert not decide(Threshold(1.4, unit="std"), arrays, 1.4)["one"].any()


def test_a_hundredth_of_a_standard_deviation():
    weight = np.random.default_rng(0).normal(0, 3, (100, 100)).astype(np.float32)
    mask = decide(Threshold(0.01, unit="std"), {"weight": weight}, 0.01)["weight"]
    assert (mask == (np.abs(weight) > 0.01 * float(np.std(weight)))).all() and 0 < (~mask).sum() < 150


def test_blocks_compare_their_mean():
    # Means 1, 2 / 3, 4 of the four 2x2 blocks: those up to 2 go.
    weight = np.kron([[1.0, 2.0], [3.0, 4.0]], np.ones((2, 2)))
    assert (mask_of(Threshold(2.0, pattern="2x2"), weight) == (weight > 2)).all()


def test_what_is_pruned_stays_pruned_under_a_threshold():
    assert mask_of(Threshold(0.5), [[9, 9], [9, 0.1]], kept=[[0, 1], [1, 1]]).tolist() == [[0, 1], [1, 0]]


def test_thresholds_by_layer(model):
    masks = Threshold(0.2, layers={"first": 0.1, "last": 0.3}).bind(model).decide(0.2)
    assert list(masks) == ["first/kernel", "last/kernel"]
    for name, threshold in (("first", 0.1), ("last", 0.3)):
        kernel = as_array(model.get_layer(name).kernel)
        assert (masks[f"{name}/kernel"] == (np.abs(kernel) > threshold)).all()
    half_way = Threshold(0.2, layers={"last": 0.3}).bind(model).decide(0.1)
    assert (half_way["last/kernel"] == (np.abs(as_array(model.get_layer("last").kernel)) > 0.15)).all()


# The decision rules that pruning is taught by


def test_kernels_of_size_up_to_the_threshold_go():
    # Ten kernels of sizes 0.1 to 1.0 under 0.5: five go, that of 0.5 itself included.
    sizes = np.arange(1, 11, dtype=np.float32) / 10
    kernels = np.tile(sizes / 4, (4, 1))  # (inputs, kernels): each entry a quarter of the size
    mask = mask_of(Threshold(0.5 / 4, pattern=Block(4, 1)), kernels)
    assert mask[0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1] and (mask == mask[0]).all()


def test_the_ninety_per_cent_quantile():
    weight = np.random.default_rng(0).permutation(np.arange(1, 101)).reshape(10, 10) / 100
    mask = mask_of(Percentile(0.9), weight)
    assert (mask == (weight > np.quantile(weight, 0.9))).all() and mask.sum() == 10


def test_normalised_size_under_one_threshold_for_all():
    normalised = Threshold(0.5, criterion=lambda weight: np.abs(weight) / np.abs(weight).max())
    masks = decide(normalised, {"a": np.array([[1.0, -2.0, 4.0]]), "b": np.array([[10.0, 20.0, -40.0]])}, 0.5)
    assert masks["a"].tolist() == masks["b"].tolist() == [[False, False, True]]


def test_random_pruning_as_a_baseline():
    weight = {"weight": np.zeros((20, 20), np.float32)}
    one, again, other = (
        decide(Percentile(0.5, criterion=criteria.Random(seed)), weight, 0.5)["weight"] for seed in (1, 1, 2)
    )
    assert (one == again).all() and (one != other).any() and one.sum() == 200


# Percentiles


@pytest.mark.parametrize("allocation", ["uniform", "global", "erk", "lamp"])
@pytest.mark.parametrize("amount", [0.0, 0.37, 0.8, 0.95, 0.99])
def test_the_share_of_all_entries_is_exact(model, allocation, amount):
    masks = Percentile(amount, allocation=allocation).bind(model).decide(amount)
    sizes = {key: mask.size for key, mask in masks.items()}
    removed = {key: int((~mask).sum()) for key, mask in masks.items()}
    if allocation == "uniform":
        assert removed == {key: round(amount * size) for key, size in sizes.items()}
    else:
        assert sum(removed.values()) == round(amount * sum(sizes.values()))


@pytest.mark.parametrize("allocation", ["uniform", "global", "erk", "lamp"])
@pytest.mark.parametrize("kind", ["constant", "half precision", "80 % zeros"])
def test_ties_do_not_break_the_target(allocation, kind):
    weight = np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32)
    if kind == "constant":
        weight[:] = 0.1
    elif kind == "half precision":
        weight = np.round(weight * 2) / 2
    else:
        weight.ravel()[np.random.default_rng(1).permutation(2000)[:1600]] = 0.0
    mask = decide(Percentile(0.5, allocation=allocation), {"weight": weight}, 0.5, dtype="float16")["weight"]
    assert (~mask).sum() == 1000
    if kind == "80 % zeros":
        assert (weight[~mask] == 0).all()


def test_one_weight_is_left_at_a_hundredth_less_than_all():
    assert mask_of(Percentile(0.99), np.arange(1, 101).reshape(10, 10)).sum() == 1


@pytest.mark.parametrize("allocation", ["uniform", "global", "erk", "lamp"])
def test_no_amount_prunes_nothing(model, allocation):
    assert all(mask.all() for mask in Percentile(0.0, allocation=allocation).bind(model).decide(0.0).values())


def test_amounts_by_layer_prune_those_alone_and_grow_together(model):
    method = Percentile(0.8, layers={"first": 0.5, keras.layers.Dense: 0.25, "last": 0.75})
    assert list(method.layers) == ["first", "Dense", "last"]
    masks = method.bind(model).decide(0.8)
    # The last name that matches decides: 'Dense' for the first two.
    assert {key: int((~mask).sum()) for key, mask in masks.items()} == {
        "first/kernel": 48,
        "middle/kernel": 32,
        "last/kernel": 24,
    }
    half = Percentile(0.8, layers={"last": 0.75}).bind(model).decide(0.4)
    assert {key: int((~mask).sum()) for key, mask in half.items()} == {"last/kernel": 12}


def test_amounts_by_layer_never_pass_their_own_when_the_ramp_falls(model):
    falling = Percentile(schedules.Linear(0.9, 0.5), layers={"last": 0.75})
    assert int((~falling.bind(model).decide(0.9)["last/kernel"]).sum()) == 24


def test_an_allocation_by_layer_leaves_the_others_at_the_overall_amount(model):
    method = Percentile(0.5, allocation={keras.layers.Dense: 0.25, "last": 0.75})
    removed = {key: int((~mask).sum()) for key, mask in method.bind(model).decide(0.5).items()}
    assert removed == {"first/kernel": 48, "middle/kernel": 32, "last/kernel": 24}
    only_last = Percentile(0.5, allocation={"last": 0.75}).bind(model).decide(0.5)
    assert [int((~mask).sum()) for mask in only_last.values()] == [96, 64, 24]


def test_n_of_m_ends_at_its_own_share_in_every_weight(model):
    for pattern, share in (("2:4", 0.5), ("1:4", 0.75), (NofM(3, 4), 0.25)):
        method = Percentile(pattern=pattern)
        for mask in method.bind(model).decide(method.final).values():
            assert (~mask).sum() == share * mask.size


@pytest.mark.parametrize("written", [2 / 3, 0.66666, 0.666667])
def test_n_of_m_ends_whole_though_its_share_is_written_with_few_digits(written):
    weight = np.random.default_rng(0).normal(size=(3, 200000)).astype(np.float32)
    mask = mask_of(Percentile(written, pattern="1:3"), weight)
    assert (mask.sum(axis=0) == 1).all()


def test_layers_by_predicate(model):
    assert list(Percentile(0.5, layers=is_not_last).bind(model).decide(0.5)) == ["first/kernel", "middle/kernel"]


@pytest.mark.parametrize("allocation", ["uniform", "global", "erk", "lamp"])
@pytest.mark.parametrize("pattern", ["element", "2x1"])
def test_what_is_pruned_goes_before_zeros_that_are_not(allocation, pattern):
    # A layer that begins at zero ties with what is pruned elsewhere; the pruned ones stay pruned all the same.
    generator = np.random.default_rng(0)
    arrays = {
        "zeros": np.zeros((4, 10)),
        "trained": generator.normal(size=(8, 10)),
        "more": generator.normal(size=(6, 10)),
    }
    method = Percentile(0.5, allocation=allocation, pattern=pattern)
    kept = {key: np.ones(array.shape, bool) for key, array in arrays.items()}
    kept["trained"][:4] = False
    kept["more"][:2] = False
    arrays = {key: array * kept[key] for key, array in arrays.items()}
    masks = decide(method, arrays, 60 / 180, kept)
    if allocation in ("global", "lamp"):
        assert all((masks[key] == kept[key]).all() for key in masks)
    later = decide(method, arrays, 0.6, kept)
    assert not any((later[key] & ~kept[key]).any() for key in ("trained", "more"))


# Errors


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Percentile(1.0), r"Percentile: 1.0 is no sparsity in \[0, 1\); write 0.8 for 80 % zeros"),
        (lambda: Percentile(80), r"Percentile: 80.0 is no sparsity"),
        (lambda: Percentile(-0.1), r"Percentile: -0.1 is no sparsity"),
        (lambda: Percentile(float("nan")), r"Percentile: nan is no sparsity"),
        (lambda: Percentile(schedules.Linear(0.0, 1.5)), r"Percentile: 1.5 is no sparsity"),
        (lambda: Percentile(schedules.Piecewise({0: 0.1, 5: 2.0, 9: 0.5})), r"Percentile: 2.0 is no sparsity"),
        (lambda: Percentile(0.5, layers={"first": 1.0}), r"Percentile: 1.0 is no sparsity"),
        (lambda: Percentile(0.5, layers={"first": "half"}), r"layers: 'half' for 'first' is no amount; write a number"),
        (lambda: Percentile(0.5, layers={"first": True}), r"layers: True for 'first' is no amount"),
        (Percentile, r"Percentile: no amount given; write Percentile\(0.8\) for 80 % zeros"),
        (lambda: Percentile(True), r"True is no schedule"),
        (lambda: Percentile("0.5"), r"'0.5' is no schedule"),
        (lambda: Percentile(0.5, criterion="size"), r"There is no criterion 'size'"),
        (lambda: Percentile(0.5, pattern="stripe"), r"'stripe' is no pattern"),
        (lambda: Percentile(0.5, layers=3), r"layers=3 is no choice of layers"),
        (lambda: Percentile(0.8, pattern="2:4"), r"always ends at sparsity 0.5, not at 0.8 .*write Percentile\(0.5, "),
        (lambda: Percentile(0.6667, pattern="1:3"), r"ends at sparsity 0.666667, not at 0.6667 "),
        (lambda: Percentile(pattern="2:4", layers={"first": 0.5}), r"or at amounts by layer; .* leave the amount out"),
        (
            lambda: Percentile(rising, layers={"first": 0.5}),
            r"layers gives amounts by layer \('first'\), but",
        ),
        (lambda: Percentile(rising, allocation={"first": 0.5}), r"allocation gives amounts by layer"),
        (
            lambda: Threshold(rising, layers={"first": 0.5}),
            r"so their ramp is not known; write a schedule",
        ),
        (lambda: Threshold(-0.1), r"Threshold: -0.1 is no threshold; give a number of at least 0 in score units"),
        (lambda: Threshold(float("inf")), r"Threshold: inf is no threshold"),
        (lambda: Threshold(float("nan")), r"Threshold: nan is no threshold"),
        (lambda: Threshold(schedules.Linear(-1.0, 1.0)), r"Threshold: -1.0 is no threshold"),
        (lambda: Threshold(0.1, unit="sigma"), r"Threshold: unit='sigma' is not known; write 'absolute' or 'std'"),
        (lambda: Threshold(0.1, pattern="2:4"), r"NofM\(keep=2, group=4\) keeps a fixed number .* write Percentile"),
        (lambda: methods.get("percentile"), r"not the name 'percentile' alone: Percentile\(0.8\). Did you mean"),
        (lambda: methods.get(None), r"None is no method; give Percentile\(0.8\), Threshold\(0.05\)"),
        (lambda: methods.get(True), r"True is no method"),
        (lambda: methods.get(Percentile), r"is no method"),
        (lambda: methods.get({"amount": 0.5}), r"is no method"),
        (lambda: methods.get(Element()), r"Element\(\) is no method"),
    ],
)
def test_errors_when_built(build, message):
    with pytest.raises(PruningError, match=message):
        build()


def test_an_amount_that_a_function_gives_is_checked_when_it_is_used(model):
    with pytest.raises(PruningError, match="Percentile: 1.2 is no sparsity"):
        Percentile(lambda step: 1.2).bind(model).decide(1.2)
    with pytest.raises(PruningError, match="Threshold: -1.0 is no threshold"):
        Threshold(lambda step: -1.0).bind(model).decide(-1.0)


def test_names_that_match_nothing_are_found_when_bound(model):
    with pytest.raises(PruningError, match=r"layers='frist' matches no layer of .* Did you mean 'first'\?"):
        Percentile(0.5, layers=["frist"]).bind(model)
    with pytest.raises(PruningError, match=r"layers='lst' matches no layer .* Did you mean 'last' or"):
        Percentile(0.5, allocation={"lst": 0.5}).bind(model)


def test_methods_refuse_what_is_no_model():
    with pytest.raises(PruningError, match="Cannot prune str: give a keras.Model"):
        Percentile(0.5).bind("model")


def test_the_base_class_leaves_its_parts_to_subclasses(model):
    bare = methods.Method(0.5, "magnitude", None)
    for action in (lambda: bare.bind(model), lambda: bare.check_amount(0.5)):
        with pytest.raises(NotImplementedError):
            action()
