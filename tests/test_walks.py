"""Random walks over the workflow; `python benchmarks/faults.py walks` takes many more, with kills."""

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from walks import SETTINGS, Walk


def test_the_laws_hold_after_every_stage_of_fifty_walks():
    run_state_machine_as_test(Walk, settings=settings(SETTINGS, max_examples=50))
    assert Walk.walks >= 50
    assert {"strip", "save and load", "prune at once", "train with a callback", "wrap"} <= set(Walk.taken)
