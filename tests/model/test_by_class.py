"""Who pays: a class that loses far more than the others is told, and chance is not."""

import numpy as np
import pytest

from tfprune.model.by_class import Payers, sentences


def paid(losing, samples=100, classes=10):
    """Groups of which each had all right before, and then so many wrong."""
    truth = np.repeat(np.arange(classes), samples)
    after = truth.copy()
    for kind, lost in losing.items():
        after[kind * samples : kind * samples + lost] = (kind + 1) % classes
    payers = Payers(decisions=True)
    for rows in (slice(0, 130), slice(130, None)):  # in batches
        payers.add_decisions(truth[rows], truth[rows], after[rows], False)
    return payers.result()


def test_the_class_that_pays_is_named_with_the_test():
    groups = paid({3: 40, 5: 2})
    assert (groups[0].name, groups[0].samples, groups[0].before, groups[0].after) == ("class 3", 100, 1.0, 0.6)
    assert groups[0].lost == 0.4 and groups[0].average == pytest.approx(0.042)
    assert [group.pays for group in groups] == [True] + 9 * [False]
    said = sentences(groups, decisions=True)
    assert (
        said[0]
        == "Lost most: class 3 40.0 points (100 samples), class 5 2.0 points (100 samples); on average 4.2 points."
    )
    assert said[1].startswith(
        "WARNING: class 3 pays for the others: it loses 40.0 points, more than 3 times the average"
    )


def test_losses_that_are_even_or_few_are_no_warning():
    assert not any(group.pays for group in paid(dict.fromkeys(range(10), 12)))
    assert not any(group.pays for group in paid({3: 3}))  # three samples of a hundred are chance
    assert not any(group.pays for group in paid({3: 2}, samples=4))
    assert sentences(paid({}), decisions=True) == []


def test_ten_runs_of_losses_by_chance_give_no_warning():
    random = np.random.default_rng(0)
    for _ in range(10):
        truth = random.integers(0, 10, 1000)
        before, after = (np.where(random.random(1000) < rate, truth, -1) for rate in (0.91, 0.90))
        payers = Payers(decisions=True)
        payers.add_decisions(truth, before, after, False)
        assert not any(group.pays for group in payers.result())


def test_pixels_of_one_image_are_no_samples_of_their_own():
    truth = np.zeros((20, 8, 8), int)
    truth[:, 4:] = 1
    after = truth.copy()
    after[0, 4:] = 0  # one image of twenty lost all of its class
    payers = Payers(decisions=True)
    payers.add_decisions(truth, truth, after, False)
    groups = payers.result()
    assert groups[0].name == "class 1" and groups[0].samples == 20 and groups[0].lost == pytest.approx(0.05)
    assert not groups[0].pays


def test_outputs_of_yes_or_no_are_groups_of_their_own():
    truth = np.random.default_rng(0).integers(0, 2, (300, 12))
    after = truth.copy()
    after[:200, 4] = 1 - after[:200, 4]
    payers = Payers(decisions=True)
    payers.add_decisions(truth, truth, after, True)
    assert payers.result()[0].name == "class 4" and payers.result()[0].pays


def test_of_values_the_quarters_of_the_targets_are_compared():
    random = np.random.default_rng(0)
    truth = np.linspace(0, 1, 400)[:, None]
    before = truth + random.normal(size=truth.shape) * 0.01
    after = before + np.where(truth > 0.75, 0.5, 0.0)
    payers = Payers(decisions=False)
    payers.add_values(truth, before, after)
    groups = payers.result()
    assert [group.samples for group in groups] == [100] * 4 and groups[0].name == "targets 0.75 to 1"
    assert groups[0].pays and groups[0].lost == pytest.approx(0.49, abs=0.02) and not any(g.pays for g in groups[1:])
    assert "targets 0.75 to 1 0.49" in sentences(groups, decisions=False)[0]
    assert Payers(decisions=False).result() == ()
