"""The way of compress along amounts: to stronger ones from what held, to milder ones, and between the two."""

import math

import pytest

from tfprune.search.compress.steps import Stop
from tfprune.search.compress.walk import Walk

SHARES = (0.8, 0.4, 0.2, 0.1, 0.05)
BASE = Stop("base", None, [1.0])


class Attempts:
    """Makes stops that hold while no less is left than a share."""

    def __init__(self, least):
        self.least, self.made, self.expected = least, [], []

    def __call__(self, share, before):
        self.made.append((share, before.values[0]))
        return Stop(str(share), None, [share], share >= self.least)

    def walked(self, place=2, finer=2):
        return Walk(self, self.expected.append, finer)(SHARES, place, BASE)


def between(held, missed):
    return math.sqrt(held * missed)


def test_stronger_amounts_are_made_of_what_held_and_two_are_tried_between():
    attempts = Attempts(0.08)
    first = between(0.1, 0.05)
    second = between(0.1, first)
    assert first < 0.08 < second
    assert attempts.walked().values == [second]
    assert attempts.made == [(0.2, 1.0), (0.1, 0.2), (0.05, 0.1), (first, 0.1), (second, 0.1)]
    assert attempts.expected == [5, 4, 3, 2, 1]


def test_milder_amounts_are_tried_from_the_beginning_and_then_those_between():
    attempts = Attempts(0.3)
    first = between(0.4, 0.2)
    assert first < 0.3 < between(0.4, first)
    assert attempts.walked().values == [between(0.4, first)]
    assert attempts.made == [(0.2, 1.0), (0.4, 1.0), (first, 0.4), (between(0.4, first), 0.4)]
    assert attempts.expected == [5, 4, 2, 1]


def test_what_was_held_between_is_gone_on_from():
    attempts = Attempts(0.055)
    first = between(0.1, 0.05)
    assert attempts.walked().values == [between(first, 0.05)]
    assert attempts.made[3:] == [(first, 0.1), (between(first, 0.05), first)]


def test_between_neighbours_nothing_is_tried():
    attempts = Attempts(0.1)
    near = Walk(attempts, attempts.expected.append)
    assert near((0.1, 0.095), 0, BASE).values == [0.1]
    assert [share for share, _ in attempts.made] == [0.1, 0.095]


@pytest.mark.parametrize(("least", "tried"), [(0.0, (0.2, 0.1, 0.05)), (1.0, (0.2, 0.4, 0.8))])
def test_where_all_or_none_hold_the_way_ends_at_the_last_share(least, tried):
    attempts = Attempts(least)
    found = attempts.walked()
    assert tuple(share for share, _ in attempts.made) == tried
    assert found is BASE if least else found.values == [0.05]
