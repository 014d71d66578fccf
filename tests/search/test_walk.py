"""The way of compress along amounts: on from what was kept, by smaller steps where one was not."""

import math

import pytest

from tfprune.search.compress.steps import Stop
from tfprune.search.compress.walk import Walk

BASE = Stop("base", None, [1.0])


class Attempts:
    """Makes stops that are kept while a step leaves so much of what was there, and so much altogether."""

    def __init__(self, part=0.0, least=0.0):
        self.part, self.least, self.made, self.expected = part, least, [], []

    def __call__(self, share, before):
        self.made.append((pytest.approx(share), before.values[0]))
        return Stop("step", None, [share], share >= self.least and share / before.values[0] >= self.part)

    def walked(self, **arguments):
        walk = Walk(**{"first": 0.25, "part": 0.5, "least": 0.01, "attempts": 10, **arguments})
        return walk(BASE, self, self.expected.append).values[0]


def test_each_step_goes_on_from_the_last_that_was_kept_by_the_same_part():
    attempts = Attempts()
    assert attempts.walked(least=0.06) == 0.0625
    assert attempts.made == [(0.25, 1.0), (0.125, 0.25), (0.0625, 0.125)]
    assert attempts.expected == [10, 9, 8]


def test_after_a_step_that_was_not_kept_they_are_smaller_until_they_are_worth_nothing():
    attempts = Attempts(least=0.1)
    found = attempts.walked()
    one, two = math.sqrt(0.5), math.sqrt(math.sqrt(0.5))
    assert found == pytest.approx(0.125 * two)
    assert attempts.made == [
        (0.25, 1.0), (0.125, 0.25), (0.0625, 0.125), (0.125 * one, 0.125), (0.125 * two, 0.125),
        (0.125 * two * two, 0.125 * two),
    ]  # fmt: skip


def test_an_amount_that_was_too_much_at_once_is_reached_in_two_steps():
    attempts = Attempts(part=0.4)
    assert attempts.walked(least=0.2) == 0.25
    assert attempts.made == [(0.25, 1.0), (0.5, 1.0), (0.25, 0.5)]


def test_where_nothing_is_kept_the_way_ends_where_it_began():
    attempts = Attempts(part=1.0)
    assert attempts.walked() == 1.0
    assert attempts.made == [(0.25 ** (0.5**number), 1.0) for number in range(4)]


def test_there_are_no_more_steps_than_were_said():
    attempts = Attempts()
    assert attempts.walked(attempts=3, least=0.0) == 0.0625
    assert attempts.expected == [3, 2, 1]


def test_the_way_ends_where_nothing_can_go():
    def attempt(share, before):
        return Stop("step", None, [share]) if share > 0.2 else None

    assert Walk(0.25, 0.5, 0.01, 10)(BASE, attempt, lambda count: None).values == [0.25]
