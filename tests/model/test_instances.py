"""Objects of a class are found whether they were made before or after somebody asked, and are not kept alive."""

import gc

import pytest

from tfprune.model.instances import Instances


@pytest.fixture
def kind():
    class Kind:
        def __init__(self, name, *, broken=False):
            if broken:
                raise ValueError(name)
            self.name = name

    return Kind


def names(instances):
    return sorted(entry.name for entry in instances)


def test_those_of_before_and_those_of_after_are_found(kind):
    before = kind("before")
    instances = Instances(kind)
    after = kind(name="after")
    assert set(instances) == {before, after}


def test_none_is_kept_alive(kind):
    before = kind("before")
    instances = Instances(kind)
    after = kind("after")
    del before
    gc.collect()
    assert list(instances) == [after]
    del after
    gc.collect()
    assert list(instances) == []


def test_one_that_could_not_be_made_is_no_instance(kind):
    instances = Instances(kind)
    with pytest.raises(ValueError, match="bad"):
        kind("bad", broken=True)
    assert list(instances) == []


def test_those_of_a_subclass_made_later_count(kind):
    class Special(kind):
        pass

    instances = Instances(kind)
    kind("plain")  # gone at once
    special = Special("special")
    assert list(instances) == [special]


def test_two_who_ask_are_both_told(kind):
    one, other = Instances(kind), Instances(kind)
    entry = kind("entry")
    assert names(one) == names(other) == [entry.name]
