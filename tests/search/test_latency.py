"""Latency and memory of candidates: tables by layer, checked on whole files, taken up from a journal."""

import keras
import numpy as np
import pytest
from search_models import X, Y, classifier

import tfprune
from tfprune import PruningError, genetic_search
from tfprune.search import genome as genomes
from tfprune.search.latency import LatencyTable, MemoryTable, measured_latency, narrower_is_no_slower, parts_of

L = keras.layers


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def searched(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("latency") / "search.jsonl"
    return path, genetic_search(
        model, (X, Y), ("accuracy", "latency", "memory"), "layers", population=4, generations=1, journal=path
    )


def test_the_front_is_measured_on_whole_files_beside_the_table(searched):
    _, found = searched
    assert all(candidate["latency"] > 0 for candidate in found.front)
    assert 0 < len(found.checks) <= 8 and set(found.checks) <= {candidate.number for candidate in found.front}
    assert all(check["latency"] > 0 for check in found.checks.values())
    assert "ms (by table)" in found.to_markdown() and "latency, measured" in found.to_markdown()


def test_a_search_that_goes_on_takes_its_table_from_the_journal(model, searched):
    path, found = searched
    before = path.read_bytes()
    again = genetic_search(
        model, (X, Y), ("accuracy", "latency", "memory"), "layers", population=4, generations=1, journal=path
    )
    assert path.read_bytes() == before
    assert [(c.genes, c.figures) for c in again.front] == [(c.genes, c.figures) for c in found.front]


def test_a_table_is_read_between_its_widths_and_brought_to_the_whole_file(model):
    genome = genomes.make("layers", model, None, None, "element", None)
    parts = parts_of(model, genome)
    assert [part.path for part in parts] == ["conv1", "conv2", "hidden", "logits"]
    assert [type(layer).__name__ for layer in parts[0].carried] == ["BatchNormalization", "ReLU"]
    times = {
        "conv1": {(1, 2): 1.0, (1, 8): 4.0},
        "conv2": {(2, 2): 1.0, (2, 6): 2.0, (8, 2): 3.0, (8, 6): 4.0},
        "hidden": {(96, 6): 1.0},
        "logits": {(6, 2): 1.0},
    }
    table = LatencyTable(parts, times, 12.0, genome)  # 2 ms lie between the layers
    assert table(genome.dense) == pytest.approx(12.0)
    half = genome.repaired([0.5, 0.0, 0.0])  # 4 of the 8 channels of conv1
    assert table(half) == pytest.approx((2.0 + (2 + 2 * 2 / 6) + 1 + 1) + 2.0)
    assert LatencyTable.from_dict(table.to_dict(), model, genome)(half) == table(half)
    scaled = LatencyTable(parts, times, 5.0, genome)  # files by themselves take longer than together
    assert scaled(genome.dense) == pytest.approx(5.0) and scaled(half) < 5.0


def test_noise_does_not_make_a_narrower_layer_slower():
    timed = {(1, 2): 1.2, (1, 8): 1.1, (4, 2): 1.0, (4, 8): 2.0}
    assert narrower_is_no_slower(timed) == {(1, 2): 1.0, (1, 8): 1.1, (4, 2): 1.0, (4, 8): 2.0}


def test_memory_is_the_largest_input_and_output_of_a_layer(model):
    genome = genomes.make("layers", model, None, None, "element", None)
    table = MemoryTable(model, genome)
    assert table(genome.dense) == 6 * 6 * 8 + 4 * 4 * 6
    assert table(genome.repaired([0.5, 0.5, 0.0])) == max(6 * 6 * (1 + 4), 6 * 6 * 4 + 4 * 4 * 3)


def test_depthwise_layers_follow_the_channels_they_are_given():
    network = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            L.Conv2D(8, 3, name="conv"),
            L.DepthwiseConv2D(3, name="deep"),
            L.Flatten(),
            L.Dense(2),
        ]
    )
    genome = genomes.make("layers", network, None, None, "element", None)
    table = LatencyTable.measured(network, genome, X[:20])
    # Widths of one side alone are timed in steps of an eighth.
    assert {tuple(entry[:2]) for entry in table.to_dict()["times"]["deep"]} == {(n, n) for n in range(1, 9)}
    assert {tuple(entry[:2]) for entry in table.to_dict()["times"]["conv"]} == {(1, n) for n in range(1, 9)}
    assert table(genome.repaired([0.5])) > 0


def test_a_network_that_makes_no_file_has_no_time(model, recwarn):
    image = keras.Input((6, 6, 1))
    dead = L.Conv2D(2, 3, activation="relu", bias_initializer=keras.initializers.Constant(-100.0))(image)
    joined = L.Concatenate()([L.Conv2D(2, 3)(image), L.Conv2D(2, 1)(dead)])
    ruined = keras.Model(image, L.Dense(2)(L.Flatten()(joined)))
    with pytest.raises(PruningError, match="representative data never touch"):
        tfprune.convert(ruined, "int8", representative_data=X[:20])
    found = measured_latency({3: model, 7: ruined}, X[:20])
    assert list(found) == [3] and found[3] > 0
    assert measured_latency({7: ruined}, X[:20]) == {}
    assert not [warning for warning in recwarn if "tfprune" in str(warning.message)]


def test_what_cannot_be_timed_is_told(model):
    with pytest.raises(PruningError, match="genome='weights' leaves zeros, with which LiteRT computes like"):
        genetic_search(model, (X, Y), ("accuracy", "latency"), "weights", pattern="2x2")
    recurrent = keras.Sequential([keras.Input((5, 4)), L.Conv1D(6, 1), L.LSTM(4, name="lstm"), L.Dense(2)])
    data = np.zeros((8, 5, 4)), np.zeros(8)
    with pytest.raises(PruningError, match=r"latency: 'lstm' \(LSTM\) loses channels and cannot be timed by itself"):
        genetic_search(recurrent, data, ("accuracy", "latency"))
    open_size = keras.Sequential([keras.Input((None, 4)), L.Conv1D(6, 1, name="c"), L.GlobalMaxPooling1D(), L.Dense(2)])
    with pytest.raises(PruningError, match="the shape that 'c' works on has to be known"):
        genetic_search(open_size, data, ("accuracy", "memory"))


def test_a_budget_in_memory_is_kept(model):
    found = genetic_search(model, (X, Y), "accuracy", "layers", population=4, generations=1, budget={"memory": 0.7})
    assert found.best["memory"] <= 0.7 * found.dense["memory"]
    assert tfprune.shrink(model, found.plan()).count_params() < model.count_params()
