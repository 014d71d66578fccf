"""Random models: whatever is removed, the smaller model is the same function."""

import keras
import pytest
from channel_checks import check_shrinks, randomise
from random_graphs import Graph

from tfprune.channels import channel_groups

QUICK, ALL = 60, 400


@pytest.mark.parametrize("seed", [pytest.param(s, marks=[] if s < QUICK else pytest.mark.slow) for s in range(ALL)])
def test_a_random_graph_shrinks_to_an_equal_model(seed):
    keras.utils.set_random_seed(seed)
    model = randomise(Graph(seed).model(), seed)
    check_shrinks(model, seed=seed, expect_removed=bool(channel_groups(model).free))
