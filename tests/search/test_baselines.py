"""Random, greedy and layer-by-layer search: the same interface as genetic search, and what each does by itself."""

import keras
import numpy as np
import pytest
from search_models import X, Y, classifier

import tfprune
from tfprune import PruningError
from tfprune.search import greedy_search, netadapt_search, random_search

SEARCHES = [greedy_search, netadapt_search, random_search]


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("genome", ["channels", "layers"])
def test_each_meets_a_budget_and_measures_as_reported(model, search, genome):
    found = search(model, (X, Y), "accuracy", genome, evaluations=40, budget={"macs": 0.6})
    assert found.meets_budget and found.best["macs"] <= 0.6 * found.dense["macs"]
    assert len(found.evaluated) <= 41 and found.strategy == search.__name__
    small = tfprune.shrink(tfprune.strip_masks(found.apply()))
    assert tfprune.summary(small).macs == found.best["macs"]
    logs = small.evaluate(X, Y, verbose=0, return_dict=True)
    assert logs["accuracy"] == pytest.approx(found.best["accuracy"], abs=1e-6)


@pytest.mark.parametrize("search", SEARCHES)
def test_each_gives_a_front_without_a_budget(model, search, tmp_path):
    found = search(model, (X, Y), evaluations=30, journal=tmp_path / "journal")
    assert len(found.front) > 2
    again = search(model, (X, Y), evaluations=30, journal=tmp_path / "journal")
    assert again.front == found.front and "taken from the journal" in " ".join(again.notes())


def test_weights_of_a_small_network_can_be_searched_too(model):
    for search in SEARCHES:
        found = search(model, (X, Y), ("loss", "parameters"), "weights", evaluations=20, layers="hidden")
        assert found.front[-1]["parameters"] < found.dense["parameters"]


def test_a_small_genome_runs_out_of_random_candidates():
    tiny = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False, name="only")])
    found = random_search(tiny, (np.eye(2), np.eye(2)[:, :1]), ("accuracy", "parameters"), "weights", evaluations=99)
    assert len(found.evaluated) == 3 and found.reason == "nearly every candidate is known"


def test_greedy_search_removes_where_it_costs_least():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, name="used"), keras.layers.Dense(8, name="odd"),
         keras.layers.Dense(2, name="last")]
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
    model.layers[1].kernel.assign(np.diag([1.0, 1.0, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01]))
    y = np.argmax(model.predict(x, verbose=0), axis=-1)
    found = greedy_search(model, (x, y), ("accuracy", "parameters"), "layers")
    assert found.dense["accuracy"] == 1.0
    thinnest = min((c for c in found.front if c["accuracy"] > 0.97), key=lambda c: c["parameters"])
    shares = dict(zip(found.genome.parts, thinnest.genes))
    assert shares["odd"] >= 0.5 > shares["used"]


def test_netadapt_stops_where_no_group_can_make_the_step(model):
    found = netadapt_search(model, (X, Y), "accuracy", budget={"macs": 0.001}, steps=2)
    assert "no group alone can take macs to" in found.reason and not found.meets_budget


def test_wrong_use_is_told(model):
    with pytest.raises(PruningError, match="netadapt_search lowers a cost; write budget="):
        netadapt_search(model, (X, Y), "accuracy")
    with pytest.raises(PruningError, match="thins where least is lost, so an objective has to be measured"):
        greedy_search(model, (X, Y), "macs")
    with pytest.raises(PruningError, match=r"levels=\[0.5, 0.1\] are no rising shares"):
        greedy_search(model, (X, Y), levels=(0.5, 0.1))
    with pytest.raises(PruningError, match="steps=0"):
        netadapt_search(model, (X, Y), steps=0)
    with pytest.raises(PruningError, match="random_search has no argument 'population'; it takes .*'weights'"):
        random_search(model, (X, Y), population=3)
