"""Targets in parameters, multiply-accumulates and bytes: met, and only just."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune import Percentile, Structured, method_for
from tfprune.errors import PruningError

L = keras.layers


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((16,)), L.Dense(32, activation="relu", name="wide"), L.Dense(8, name="head")], name="small"
    )


def nonzero(model, method):
    return sum(int(np.count_nonzero(weight)) for weight in tfprune.prune(model, method).trainable_variables[::2])


def test_parameters_that_are_not_zero(model):
    biases = 32 + 8
    method = method_for(model, Percentile(0.1, allocation="uniform"), parameters=200 + biases)
    assert 198 <= nonzero(model, method) <= 200
    assert method.allocation == "uniform" and method.final > 0.7


@pytest.mark.parametrize("measure", ["parameters", "macs"])
def test_channels_for_parameters_and_multiplications(model, measure):
    target = getattr(tfprune.summary(model), measure) // 2

    def left(method):
        small = tfprune.shrink(tfprune.strip_masks(tfprune.prune(model, method)))
        return getattr(tfprune.summary(small), measure)

    method = method_for(model, Structured(0.1), **{measure: target})
    assert left(method) <= target
    assert left(Structured(method.final - 1 / 32)) > target


@pytest.mark.slow
@pytest.mark.parametrize("measure, sparse", [("gzip_bytes", False), ("sparse_bytes", True)])
def test_bytes_of_the_file(model, measure, sparse):
    def size(method):
        lite = tfprune.convert(tfprune.strip_masks(tfprune.prune(model, method)), sparse=sparse)
        return lite.size if sparse else lite.gzip_size

    target = round(0.6 * size(Percentile(0.0)))
    method = method_for(model, Percentile(0.5, allocation="uniform"), **{measure: target})
    assert 0.9 * target < size(method) <= target


def test_wrong_targets_are_told(model):
    with pytest.raises(PruningError, match="takes one target, not none; give one of 'parameters', 'macs'"):
        method_for(model, 0.5)
    with pytest.raises(PruningError, match="takes one target, not 'parameters', 'macs'"):
        method_for(model, 0.5, parameters=10, macs=10)
    with pytest.raises(PruningError, match="zeros among weights leave the multiply-accumulates.*write Structured"):
        method_for(model, 0.5, macs=10)
    for method in (tfprune.Threshold(0.1), Percentile(pattern="2:4")):
        with pytest.raises(PruningError, match="has no share that could be varied"):
            method_for(model, method, parameters=10)
    with pytest.raises(PruningError, match=r"10 parameters are out of reach of .*the smallest that it reached is 33"):
        method_for(model, Structured(0.5), parameters=10)


def test_what_is_wrong_with_a_method_is_told_as_such_and_not_as_out_of_reach(model):
    with pytest.raises(PruningError, match=r"Taylor\(loss='mse'\) needs data: write data=x"):
        method_for(model, Percentile(0.5, criterion=tfprune.salience.Taylor(loss="mse")), parameters=100)
    with pytest.raises(PruningError, match=r"matches no layer of 'small'. Did you mean 'wide'"):
        method_for(model, Percentile(0.5, layers=["wid"]), parameters=100)
