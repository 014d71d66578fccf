"""What schedules, criteria, patterns and methods share: they are their arguments."""

import keras
import numpy as np
import pytest
from battery import CRITERIA, SCHEDULES, through_json

import tfprune
from tfprune.deciding import criteria, methods, patterns, schedules
from tfprune.deciding.configured import Configured
from tfprune.deciding.criterion import Criterion
from tfprune.errors import PruningError

PATTERNS = [tfprune.Element(), tfprune.Block(2, 1), tfprune.NofM(2, 4), tfprune.Template([[[1, 0], [0, 1]]])]
METHODS = [
    tfprune.Percentile(0.5, allocation={"a": 0.25}),
    tfprune.Threshold(0.1, unit="std", layers=["a"]),
    tfprune.Structured(tfprune.Linear(0.0, 0.5), round_to=2),
    tfprune.Percentile(pattern="2:4", criterion=tfprune.salience.Activation("percentile", 95.0)),
]
FAMILIES = [
    *((schedules.get, member) for member in SCHEDULES.values()),
    *((criteria.get, member) for member in CRITERIA.values()),
    *((patterns.get, member) for member in PATTERNS),
    *((methods.get, member) for member in METHODS),
]


@pytest.mark.parametrize(("get", "member"), FAMILIES, ids=[repr(member)[:60] for _, member in FAMILIES])
def test_every_member_is_built_again_from_its_config_and_its_arguments(get, member):
    assert isinstance(member, Configured)
    again = through_json(member)
    assert again == member and hash(again) == hash(member) and repr(again) == repr(member)
    assert get(keras.saving.serialize_keras_object(member)) == member
    assert member.with_arguments() == member and member.with_arguments() is not member
    assert member != object()


@pytest.mark.parametrize("get", [schedules.get, patterns.get, methods.get])
def test_a_config_of_another_family_is_refused(get):
    # It was taken as it came, and failed where it was used.
    with pytest.raises(PruningError, match="is no (schedule|pattern|method)"):
        get(keras.saving.serialize_keras_object(criteria.L2()))


def test_a_method_with_another_amount_is_checked_and_leaves_the_first_as_it_is():
    method = tfprune.Percentile(0.5, criterion="l2", layers=["a"])
    other = method.with_amount(0.75)
    assert (method.amount, other.amount) == (0.5, 0.75)
    assert other == tfprune.Percentile(0.75, criterion="l2", layers=["a"])
    with pytest.raises(PruningError, match=r"Percentile: 1.5 is no sparsity in \[0, 1\)"):
        method.with_amount(1.5)
    with pytest.raises(PruningError, match="always ends at sparsity 0.5, not at 0.75"):
        tfprune.Percentile(pattern="2:4").with_amount(0.75)


def test_arguments_that_cannot_be_saved_are_shown_and_compared_all_the_same():
    def first(layer):
        return True

    method = tfprune.Percentile(0.5, layers=first)
    assert method == tfprune.Percentile(0.5, layers=first) != tfprune.Percentile(0.5, layers=lambda layer: True)
    assert "first" in repr(method)


def test_a_class_of_the_users_own_may_keep_its_arguments_under_other_names():
    @keras.saving.register_keras_serializable(package="tfprune_tests")
    class Hidden(Criterion):
        def __init__(self, power):
            self._power = power

        def __call__(self, weight, context):
            return np.abs(weight) ** self._power

        def get_config(self):
            return {"power": self._power}

    assert Hidden(2) == through_json(Hidden(2)) != Hidden(3)
    assert repr(Hidden(2)) == "Hidden(power=2)"
