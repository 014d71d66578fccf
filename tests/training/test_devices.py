"""Several devices and machines: equal masks on every replica, those of one device, and no word more between them."""

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import keras
import pytest
import tensorflow as tf
from two_devices import EPOCHS, OWN
from two_workers import LOOPS, looped
from ways import WAYS

TESTS = Path(__file__).parents[1]


def started(script, *arguments):
    search = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(TESTS / script), *arguments],
        env={**os.environ, "PYTHONPATH": search, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def printed(process):
    output, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def found():
    return printed(started("two_devices.py"))


every_way = pytest.mark.parametrize("way", [*WAYS, *OWN])


@every_way
def test_replicas_have_equal_masks_and_weights(found, way):
    two = found["ways"][way]["two"]
    assert two["held"] >= 2
    assert two["equal"] and two["stripped"]
    assert len(two["sparsity"]) == EPOCHS


@every_way
def test_two_devices_decide_what_one_decides_and_as_often(found, way):
    one, two = found["ways"][way]["one"], found["ways"][way]["two"]
    assert two["masks"] == one["masks"] and any(one["masks"].values())
    assert two["sparsity"] == one["sparsity"]
    assert two["decided"] == one["decided"] > 0
    assert found["ways"][way]["apart"] < 1e-6  # sums of gradients are rounded in another order


@every_way
def test_pruning_adds_no_collective_to_a_step(found, way):
    plain = found["plain"][way if way in found["plain"] else "percentile"]
    assert plain["CollectiveReduceV2"] == 2  # one for each replica, of all gradients together
    assert found["ways"][way]["collectives"] == plain


def test_gradient_accumulation_on_replicas_is_refused(found):
    told = found["told"]["accumulation"]
    assert told.startswith("PruningError: 'sequential")
    assert "is on 2 replicas, where Keras" in told
    assert "cannot accumulate gradients (gradient_accumulation_steps=2), pruned or not" in told
    assert "give fit larger batches" in told


def test_what_keras_itself_cannot_do_on_replicas(found):
    """When one of these fails, docs/devices.md and the refusal above are out of date."""
    assert "merge_call" in found["told"]["accumulation of Keras"]
    assert "You must feed a value for placeholder" in found["told"]["several steps of Keras"]


def test_only_ranges_that_follow_batches_differ_between_replicas(found):
    assert found["ranges"] == ["maximum", "minimum"]


@pytest.fixture(scope="module")
def workers():
    with ExitStack() as stack:  # all at once, so that the ports differ
        bound = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in bound:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in bound]
    processes = [started("two_workers.py", str(number), *addresses) for number in range(2)]
    try:
        return [printed(process) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("way", LOOPS)
def test_two_machines_decide_what_one_decides(workers, way):
    expected = looped(tf.distribute.get_strategy(), way)
    assert any(expected.values())
    assert [worker["replicas"] for worker in workers] == [2, 2]
    assert [worker["masks"][way] for worker in workers] == [expected, expected]


def test_fit_of_keras_does_not_run_on_two_machines(workers):
    """When this fails, docs/devices.md need no longer tell of a loop."""
    for worker in workers:
        assert worker["fit"].startswith("ValueError: Attempt to convert a value (PerReplica"), keras.__version__
