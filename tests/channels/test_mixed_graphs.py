"""A sample of the random graphs that benchmarks/random_graphs.py measures by the hundred."""

import keras
import pytest
from channel_checks import TOLERANCE, RandomChannels, randomise
from mixed_graphs import MixedGraph, zero

from tfprune.channels import certify, plan_shrink, shrink


@pytest.mark.parametrize("seed", range(8))
def test_composite_layers_and_subclassed_models_shrink_to_equal_ones(seed):
    keras.utils.set_random_seed(seed)
    model = randomise(MixedGraph(seed).model(), seed)
    plan = plan_shrink(model, RandomChannels(seed=seed))
    assert plan.removes
    small = shrink(model, plan)
    assert small.count_params() < model.count_params()
    zero(model, plan)
    assert certify(model, small).largest <= TOLERANCE
