import functools

import keras
import numpy as np
import pytest
from battery import CRITERIA, cubed, scores_of, through_json

from tfprune.deciding import criteria
from tfprune.deciding.criteria import L2, Context, CriterionFunction, Magnitude, Random
from tfprune.errors import PruningError

members = pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
WEIGHT = np.array([[3.0, -4.0], [0.5, 0.0]], np.float32)


# Laws of the family


@members
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4), (2, 2, 3, 4), (2, 1, 2, 3, 2)])
def test_one_finite_score_for_each_entry_and_the_weight_untouched(criterion, shape, dtype):
    weight = np.random.default_rng(0).normal(size=shape).astype(dtype)
    before = weight.copy()
    scores = scores_of(criterion, weight)
    assert scores.shape == shape and np.isfinite(scores).all() and (scores >= 0).all()
    assert criterion.total(scores).shape == shape
    assert (weight == before).all()


@members
def test_the_same_weight_and_name_give_the_same_scores(criterion):
    assert (scores_of(criterion, WEIGHT) == scores_of(criterion, WEIGHT.copy())).all()


@members
def test_round_trip_through_json_builds_an_equal_criterion(criterion):
    restored = through_json(criterion)
    assert restored == criterion and hash(restored) == hash(criterion)
    assert (scores_of(restored, WEIGHT) == scores_of(criterion, WEIGHT)).all()


@members
def test_get_takes_the_object_and_its_config(criterion):
    assert criteria.get(criterion) is criterion
    assert criteria.get(keras.saving.serialize_keras_object(criterion)) == criterion


@members
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(criterion, bad):
    weight = WEIGHT.copy()
    weight[0, 1] = weight[1, 0] = bad
    with pytest.raises(PruningError, match=r"'conv/kernel' has 2 NaN or infinite entries.*Lower the learning rate"):
        scores_of(criterion, weight, "conv/kernel")


# Members


def test_magnitude_is_the_absolute_value_and_sums_to_the_l1_norm():
    scores = scores_of(Magnitude(), WEIGHT)
    assert scores.tolist() == [[3.0, 4.0], [0.5, 0.0]]
    assert Magnitude().total(scores.sum(axis=1)).tolist() == [7.0, 0.5]


def test_l2_orders_entries_like_magnitude_and_sums_to_the_euclidean_length():
    scores = scores_of(L2(), WEIGHT)
    assert L2().total(scores).tolist() == [[3.0, 4.0], [0.5, 0.0]]
    assert L2().total(scores.sum(axis=1)).tolist() == [5.0, 0.5]


def test_random_depends_on_seed_and_name_and_not_on_the_weight():
    scores = scores_of(Random(0), WEIGHT, "a")
    assert (scores_of(Random(0), WEIGHT * 2, "a") == scores).all()
    assert (scores_of(Random(1), WEIGHT, "a") != scores).any()
    assert (scores_of(Random(0), WEIGHT, "b") != scores).any()
    assert scores.min() >= 0 and scores.max() < 1


@pytest.mark.parametrize("name, kind", [("magnitude", Magnitude), ("l1", Magnitude), ("l2", L2), ("random", Random)])
def test_get_by_name(name, kind):
    assert type(criteria.get(name)) is kind and type(criteria.get(kind)) is kind


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def scores(self, weight):
        return np.abs(weight) * self.factor

    def __call__(self, weight, context):
        return np.abs(weight) * len(context.key)


@pytest.mark.parametrize(
    "function, expected",
    [
        (np.abs, 1),
        (lambda weight: np.abs(weight) * 2, 2),
        (lambda weight, power=3: np.abs(weight) * power, 3),
        (lambda weight, context: np.abs(weight) * len(context.key), 6),
        (Scale(5).scores, 5),
        (Scale(0), 6),
        (functools.partial(lambda factor, weight: np.abs(weight) * factor, 7), 7),
    ],
)
def test_any_function_of_the_weight_or_of_weight_and_context(function, expected):
    assert (scores_of(criteria.get(function), WEIGHT, "weight") == np.abs(WEIGHT) * expected).all()


def test_normalised_size_as_a_function():
    scores = scores_of(criteria.get(lambda weight: np.abs(weight) / np.abs(weight).max()), WEIGHT)
    assert scores.tolist() == [[0.75, 1.0], [0.125, 0.0]]


@pytest.mark.parametrize("dtype", [int, bool, np.float16])
def test_functions_may_give_any_kind_of_number(dtype):
    scores = scores_of(criteria.get(lambda weight: (weight > 1).astype(dtype)), WEIGHT)
    assert np.issubdtype(scores.dtype, np.floating) and scores.tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_context_carries_what_a_pass_over_data_gathered():
    context = Context("a", {"gradient": np.full(WEIGHT.shape, 2.0)})
    salience = criteria.get(lambda weight, context: np.abs(weight * context.extras["gradient"]))
    assert salience(WEIGHT, context).tolist() == [[6.0, 8.0], [1.0, 0.0]]


def test_repr_and_equality():
    assert (
        repr(Random(3)) == "Random(seed=3)"
        and repr(L2()) == "L2()"
        and repr(CriterionFunction(cubed)) == "CriterionFunction(cubed)"
    )
    assert Random(3) != Random(4) and L2() != Magnitude() and L2() != "l2"


def test_a_criterion_of_ones_own():
    @keras.saving.register_keras_serializable(package="tfprune_tests")
    class Signed(criteria.Criterion):
        def __call__(self, weight, context):
            return weight

    assert criteria.get(Signed()) == Signed() == through_json(Signed())
    assert scores_of(Signed(), WEIGHT).tolist() == WEIGHT.tolist()


# Errors


def test_unknown_names_tell_the_nearest():
    with pytest.raises(PruningError, match=r"no criterion 'magnitud'. Did you mean 'magnitude'"):
        criteria.get("magnitud")


@pytest.mark.parametrize("wrong", [None, 3, {"seed": 1}, int])
def test_what_is_no_criterion_is_refused(wrong):
    with pytest.raises(PruningError, match=r"is no criterion; give one of 'magnitude', 'l1', 'l2', 'random'"):
        criteria.get(wrong)


def test_a_function_has_to_score_every_entry():
    def by_row(weight):
        return weight.sum(axis=1)

    with pytest.raises(PruningError, match=r"by_row gave scores of shape \(2,\) for 'weight' of shape \(2, 2\)"):
        scores_of(criteria.get(by_row), WEIGHT)


def test_scores_that_are_not_finite_are_told_from_such_weights():
    message = r"Function\(log\) gave 1 NaN or infinite scores for 'weight', .*up to 4"
    with np.errstate(all="ignore"), pytest.raises(PruningError, match=message):
        scores_of(criteria.get(np.log), np.array([1.0, 0.0, 4.0]))
    with pytest.raises(PruningError, match=r"L2\(\) gave 1 NaN or infinite scores"):
        scores_of(L2(), np.array([1e30, 1.0], np.float32))
