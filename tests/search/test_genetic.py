"""Genetic search: figures as reported when rebuilt, seeds, operators, budgets, a known optimum, wrong input."""

import itertools
import json
import random

import keras
import numpy as np
import pytest
from search_models import X, Y, classifier

import tfprune
from tfprune import PruningError, SearchResult, genetic_search
from tfprune.model.data import batches
from tfprune.model.judge import Scorer
from tfprune.model.prunable import every_weight
from tfprune.search import genome as genomes
from tfprune.search import objectives as goals
from tfprune.search import thin
from tfprune.search.evolution import Operators, _all_merits, _slots
from tfprune.search.fine_tuning import training_batches
from tfprune.search.fitness import Fitness

L = keras.layers
QUICK = {"population": 8, "generations": 2}


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def result(model):
    return genetic_search(model, (X, Y), ("accuracy", "macs", "parameters"), **QUICK)


def test_the_picture_has_the_front_and_the_one_that_was_picked(result):
    figure = result.plot()
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("MACs of one sample", "accuracy")
    lines = {line.get_label(): line for line in axes.lines}
    assert len(lines["front"].get_xdata()) == len(result.front)
    picked = lines[f"picked: candidate {result.best.number}"]
    assert list(picked.get_xydata()[0]) == [result.best["macs"], result.best["accuracy"]]
    assert figure.legends and axes.get_legend() is None


def rebuilt(result, candidate):
    return tfprune.shrink(tfprune.strip_masks(result.apply(candidate)))


def test_every_point_of_the_front_measures_as_reported_when_it_is_rebuilt(model, result):
    assert isinstance(result, SearchResult) and len(result.front) > 1
    for candidate in result.front:
        if candidate.genes == result.dense.genes:
            continue
        small = rebuilt(result, candidate)
        total = tfprune.summary(small)
        assert (total.macs, total.parameters) == (candidate["macs"], candidate["parameters"])
        accuracy = small.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"]
        assert accuracy == pytest.approx(candidate["accuracy"], abs=1e-6)


def test_no_point_of_the_front_is_beaten_by_any_candidate(result):
    for point, other in itertools.product(result.front, result.evaluated):
        better = [
            other["accuracy"] >= point["accuracy"],
            other["macs"] <= point["macs"],
            other["parameters"] <= point["parameters"],
        ]
        strictly = any(other[name] != point[name] for name in ("accuracy", "macs", "parameters"))
        assert not (all(better) and strictly)


def test_the_model_is_left_alone_and_the_plan_shrinks_it_to_the_same(model, result):
    before = model.get_weights()
    small = tfprune.shrink(model, result.plan(result.front[-1]))
    assert small.count_params() == rebuilt(result, result.front[-1]).count_params()
    genetic_search(model, (X, Y), **QUICK)
    for one, other in zip(model.get_weights(), before):
        np.testing.assert_array_equal(one, other)


def test_the_same_seed_gives_the_same_search_whatever_the_program_draws(model, result):
    random.seed(3)
    again = genetic_search(model, (X, Y), ("accuracy", "macs", "parameters"), **QUICK)
    assert [each.genes for each in again.evaluated] == [each.genes for each in result.evaluated]
    other = genetic_search(model, (X, Y), ("accuracy", "macs", "parameters"), **QUICK, seed=1)
    assert [each.genes for each in other.evaluated] != [each.genes for each in result.evaluated]


@pytest.mark.parametrize("recalibrated", [False, True])
def test_nothing_is_traced_anew_for_a_candidate(model, recalibrated):
    data = list(batches((X, Y), model, "test"))
    genome = genomes.make("channels", model, None, None, "element", None)
    fitness = Fitness(model, genome, data, goals.get("accuracy"), calibration=data if recalibrated else ())
    generator = random.Random(0)
    for _ in range(3):
        fitness(genome.drawn(generator))
    assert fitness._answers.experimental_get_tracing_count() == 1
    assert not recalibrated or fitness._forward.experimental_get_tracing_count() == 1


def residual():
    x = inputs = keras.Input((6, 6, 1))
    x = L.Conv2D(4, 3, padding="same", name="first")(x)
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same", use_bias=False, name="inner")(x)))
    x = L.Concatenate()([L.Add()([x, y]), L.MaxPooling2D(1)(x)])
    x = L.Dense(5, activation="tanh", name="hidden")(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, L.Dense(2, activation="softmax", name="classes")(L.Dropout(0.5)(x)))


def depthwise():
    x = inputs = keras.Input((6, 6, 1))
    x = L.DepthwiseConv2D(3)(L.Conv2D(4, 3, activation="sigmoid", name="first")(x))
    return keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))


def separable():
    x = inputs = keras.Input((6, 6, 1))
    x = L.SeparableConv2D(4, 3)(L.Conv2D(4, 3, activation="relu", name="first")(x))
    return keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))


def normed():
    x = inputs = keras.Input((6, 6, 1))
    x = L.Rescaling(2.0)(x)
    x = L.MaxPooling2D(2)(L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, name="first")(x))))
    y = L.Conv2D(3, 1, name="inner")(x)
    return keras.Model(inputs, L.Dense(2)(L.Concatenate()([L.Flatten()(x), L.Flatten()(y)])))


@pytest.mark.parametrize(
    ("build", "is_thin", "settled"),
    [(residual, True, 2), (depthwise, True, 2), (normed, True, 5), (separable, False, 0)],
)
def test_leaving_channels_out_gives_the_figures_of_masks(build, is_thin, settled):
    keras.utils.set_random_seed(0)
    network = build()
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(), jit_compile=False)
    genome = genomes.make("channels", network, None, None, "element", None)
    fitness = Fitness(network, genome, list(batches((X, Y), network, "test")), goals.get(("loss", "accuracy")))
    assert (fitness._thin is not None) == is_thin
    assert not is_thin or sum(number in fitness._thin.stem for number in range(20)) == settled
    generator = random.Random(0)
    for _ in range(4):
        genes = genome.drawn(generator)
        masked = keras.models.clone_model(network)
        masked.set_weights(network.get_weights())
        masked.compile("sgd", keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"], jit_compile=False)
        logs = tfprune.apply_masks(masked, genome.masks(genes)).evaluate(X, Y, verbose=0, return_dict=True)
        assert fitness(genes) == pytest.approx({name: logs[name] for name in ("loss", "accuracy")}, rel=1e-4)


def test_what_is_too_large_to_be_kept_or_not_finite_is_computed_for_every_candidate(monkeypatch):
    network = normed()
    genome = genomes.make("channels", network, None, None, "element", None)

    def figures():
        fitness = Fitness(network, genome, list(batches((X, Y), network, "test")), goals.get("accuracy"))
        return fitness._thin.stem, [fitness(genes) for genes in genome.seeds()]

    stem, kept = figures()
    monkeypatch.setattr(thin, "LARGEST", 1000)
    assert stem is not None and figures() == (None, kept)


def test_masked_figures_are_those_of_a_masked_copy_with_recalibrated_batch_norm(model):
    found = genetic_search(model, (X, Y), ("accuracy", "f1", "loss"), recalibrate=True, **QUICK)
    for candidate in found.front:
        logs = found.apply(candidate).evaluate(X, Y, verbose=0, return_dict=True)
        assert logs["accuracy"] == pytest.approx(candidate["accuracy"], abs=1e-6)
        assert logs["loss"] == pytest.approx(candidate["loss"], rel=1e-4)  # sums in another order


@pytest.mark.parametrize(
    "arguments",
    [
        {"selection": "tournament", "crossover": "uniform"},
        {"selection": "roulette"},
        {"selection": "nsga2", "crossover": "uniform", "initial": "random"},
        {"genome": "layers", "mutation": "gaussian"},
        {"genome": "weights", "pattern": "2x2", "layers": ["conv2", "hidden"], "selection": "tournament"},
        {"objectives": "f1"},
        {"objectives": ["loss", "bytes"], "weights": {"bytes": 0.5}, "selection": "tournament"},
    ],
    ids=lambda arguments: "-".join(map(str, arguments.values())),
)
def test_operators_genomes_and_objectives_by_name(model, arguments):
    found = genetic_search(model, (X, Y), **arguments, **QUICK)
    assert len(found.evaluated) > 8 and found.best in found.front
    assert all(candidate.failure is None for candidate in found.evaluated)
    masks = tfprune.get_masks(found.apply())
    assert all(mask.any() for mask in masks.values())


def test_one_objective_gives_one_best_candidate(model):
    found = genetic_search(model, (X, Y), "loss", **QUICK)
    assert len(found.front) == 1
    assert found.best["loss"] == min(candidate["loss"] for candidate in found.evaluated)


def test_a_budget_is_met_and_one_out_of_reach_is_marked(model):
    met = genetic_search(model, (X, Y), "accuracy", budget={"macs": 0.5}, **QUICK)
    assert met.meets_budget and all(c["macs"] <= 0.5 * met.dense["macs"] for c in met.front)
    missed = genetic_search(model, (X, Y), "accuracy", budget={"macs": 1e-4}, **QUICK)
    assert not missed.meets_budget
    assert missed.best["macs"] == min(candidate["macs"] for candidate in missed.evaluated)
    assert "NO CANDIDATE MEETS THE BUDGET (macs 0.0001" in " ".join(str(missed).split())


def test_a_candidate_without_figures_or_beyond_the_budget_says_so_by_its_rank_and_by_no_number():
    judgement = goals.Judgement(goals.get(("accuracy", "macs")), {"macs": 0.5}, {"accuracy": 0.9, "macs": 1e14})
    failed, far, near, good, better = (
        judgement.standing(figures)
        for figures in ({}, {"accuracy": 0.9, "macs": 9e13}, {"accuracy": 0.1, "macs": 6e13},
                        {"accuracy": 0.5, "macs": 5e13}, {"accuracy": 0.8, "macs": 5e13})
    )  # fmt: skip
    assert failed < far < near < good < better
    assert [each.rank.name for each in (failed, near, good)] == ["FAILED", "BEYOND_BUDGET", "WITHIN_BUDGET"]
    numbers = _all_merits([good, failed, near, better, far])
    assert numbers[0] == (0.5, -5e13) and numbers[3] == (0.8, -5e13)
    ordered = [numbers[1], numbers[4], numbers[2], numbers[0]]
    assert all(one[0] < other[0] and one[1] < other[1] for one, other in itertools.pairwise(ordered))
    assert _slots([failed, far, good, better])[:2] == [0.0, 0.0] and _slots([failed, far]) == [1.0, 1.0]


def test_functions_are_objectives_too(model):
    def zeros(candidate):
        return sum(int(np.count_nonzero(np.asarray(weight) == 0)) for weight in candidate.model.trainable_weights)

    def small_head(candidate):
        return candidate.figures["parameters"] + len(candidate.masks)

    found = genetic_search(
        model, (X, Y), (zeros, "parameters", small_head), weights={"small_head": -1.0}, initial="random", **QUICK
    )
    best = max(found.evaluated, key=lambda candidate: candidate["zeros"])
    assert found.front[0]["zeros"] == best["zeros"] > 0
    assert found.front[-1]["small_head"] <= found.dense["small_head"]


def test_it_stops_on_evaluations_on_time_and_without_gain(model):
    few = genetic_search(model, (X, Y), population=8, generations=50, evaluations=10)
    assert (len(few.evaluated), few.reason) == (11, "10 evaluations")
    short = genetic_search(model, (X, Y), population=8, generations=1000, seconds=0.05)
    assert short.reason == "0.05 seconds"
    idle = genetic_search(model, (X, Y), "parameters", population=8, generations=500, patience=2)
    assert idle.reason in ("2 generations without gain", "500 generations") and len(idle.evaluated) < 2000


@pytest.fixture(scope="module")
def ten_weights():
    """A network of ten weights with every one of its masks evaluated."""
    keras.utils.set_random_seed(1)
    x = np.random.default_rng(1).normal(size=(128, 5)).astype("float32")
    y = (x[:, 0] + 0.5 * x[:, 1] > 0.3 * x[:, 2]).astype("int32")
    tiny = keras.Sequential([keras.Input((5,)), L.Dense(2, use_bias=False, name="only")])
    tiny.compile(keras.optimizers.Adam(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    tiny.fit(x, y, epochs=5, verbose=0)
    genome = genomes.make("weights", tiny, None, None, "element", None)
    fitness = Fitness(tiny, genome, list(batches((x, y), tiny, "test")), goals.get(("loss", "parameters")))
    figures = {genes: fitness(genes) for genes in itertools.product((0, 1), repeat=10) if any(genes)}
    return tiny, x, y, figures


@pytest.mark.parametrize("selection", ["tournament", "nsga2"])
def test_it_finds_a_known_optimum(ten_weights, selection):
    tiny, x, y, figures = ten_weights
    found = genetic_search(
        tiny, (x, y), ("loss", "parameters"), "weights", population=24, generations=40, selection=selection,
        initial="random", evaluations=500,
    )  # fmt: skip
    judged = goals.Judgement(goals.get(("loss", "parameters")), {}, found.dense.figures)
    best = max(figures, key=lambda genes: judged.sum(figures[genes]))
    assert len(found.evaluated) <= 501
    assert found.best.figures["parameters"] == figures[best]["parameters"]
    assert found.best.figures["loss"] == pytest.approx(figures[best]["loss"], abs=1e-6)
    if selection == "nsga2":  # the whole front
        for count in range(1, 11):
            least = min(f["loss"] for f in figures.values() if f["parameters"] <= count)
            assert min(c["loss"] for c in found.front if c["parameters"] <= count) == pytest.approx(least, abs=1e-6)


def test_genes_survive_the_journals_words(model):
    generator = random.Random(0)
    for kind, pattern in (("channels", "element"), ("layers", "element"), ("weights", "2x2")):
        genome = genomes.make(kind, model, None, ["conv2"] if kind == "weights" else None, pattern, None)
        for genes in [genome.dense, genome.drawn(generator), genome.guided(generator), *genome.seeds()]:
            assert genome.parsed(genome.text(genes)) == genes == genome.repaired(genes)


def test_half_of_the_guided_shares_are_those_of_one_layer_alone(model):
    generator = random.Random(0)
    genome = genomes.make("layers", model, None, None, "element", None)
    removed = [np.count_nonzero(genome.guided(generator)) for _ in range(300)]
    assert 100 < sum(count <= 1 for count in removed) < 200  # a share may round to no channel at all
    assert max(removed) == genome.size


@pytest.mark.parametrize(("kind", "crossover"), [("channels", "one_point"), ("layers", "uniform")])
def test_crossover_suits_the_genome_unless_it_is_named(model, kind, crossover):
    genome = genomes.make(kind, model, None, None, "element", None)
    asked = {"selection": None, "crossover": None, "mutation": None, "crossover_rate": 0.9, "mutation_rate": None}
    assert Operators.checked(genome, 1, asked).crossover == crossover
    assert Operators.checked(genome, 1, {**asked, "crossover": "one_point"}).crossover == "one_point"


def test_the_result_is_a_table_and_a_plot(result, tmp_path):
    assert "MACs" in str(result) and "Unpruned: " in str(result)
    read = json.loads(result.to_json())
    assert read["best"] == result.best.number and len(read["rows"]) == len(result.front)
    result.plot(tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 0


def broken(candidate):
    raise RuntimeError("no bananas")


def undefined(candidate):
    return float("nan") if candidate.masks else 1.0


def test_an_objective_that_fails_on_the_unpruned_model_ends_the_search(model):
    with pytest.raises(
        PruningError, match="The unpruned model has no figures.*'broken' raised RuntimeError: no bananas"
    ):
        genetic_search(model, (X, Y), (broken, "macs"), **QUICK)


def test_an_objective_that_fails_on_a_candidate_costs_the_candidate(model):
    found = genetic_search(model, (X, Y), (undefined, "macs"), **QUICK)
    assert [candidate.number for candidate in found.front] == [0]
    assert "candidates have no figures; the first, 1: 'undefined' is nan." in " ".join(str(found).split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objectives": "acuracy"}, "There is no objective 'acuracy'. Did you mean 'accuracy'"),
        ({"objectives": ()}, "objectives is empty"),
        ({"objectives": ("macs", "macs")}, "The objective 'macs' comes twice"),
        ({"weights": {"f1": 1.0}}, "weights names 'f1', but the objectives are 'accuracy', 'macs'"),
        ({"weights": {"macs": 0}}, "is no weight; write a number other than 0"),
        ({"weights": {"macs": -1.0}}, "which way 'macs' is better is known"),
        ({"budget": {"accuracy": 0.9}}, "budget names 'accuracy', which is no cost"),
        ({"budget": {"macs": 50}}, r"is no share of the unpruned model's macs in \(0, 1\]; write 0.5"),
        ({"genome": "chanels"}, "There is no genome 'chanels'. Did you mean 'channels'"),
        ({"pattern": "2x2"}, "goes with genome='weights'"),
        ({"genome": "weights", "pattern": "2:4"}, "has a bit for each weight or block"),
        ({"selection": "best"}, "There is no selection 'best'"),
        ({"crossover": "two"}, "There is no crossover 'two'"),
        ({"mutation": "flop"}, "There is no mutation 'flop'"),
        ({"mutation": "gaussian"}, "does not go with genome='channels', whose genes are bits"),
        ({"initial": "zero"}, "initial='zero' is unknown"),
        ({"population": 2}, "population=2: give a whole number of 4 or more"),
        ({"generations": -1}, "generations=-1"),
        ({"patience": 0}, "patience=0"),
        ({"evaluations": 0}, "evaluations=0"),
        ({"seconds": 0}, "seconds=0: give a number above 0"),
        ({"seed": "x"}, "seed='x'"),
        ({"workers": 0}, "workers=0"),
        ({"crossover_rate": 2.0}, "crossover_rate=2.0 is no probability"),
        ({"mutation_rate": -1.0}, "mutation_rate=-1.0 is no probability"),
        ({"data": X}, "accuracy and F1 need labels, and the data have none"),
        ({"data": X, "objectives": "loss"}, "'loss' needs targets"),
        ({"data": (X, Y + 0.25)}, "accuracy and F1 need classes"),
        ({"data": (X, Y + 1)}, "The labels lie in 1..2, but the model has 2 classes, counted from 0"),
        ({"data": (X, Y - 1)}, "The labels lie in -1..0, but the model has 2 classes"),
    ],
)
def test_wrong_use_is_told(model, arguments, message):
    with pytest.raises(PruningError, match=message):
        genetic_search(model, **{"data": (X, Y), **QUICK, **arguments})


def test_a_candidate_that_is_not_there_and_a_plan_without_channels_are_told(model, result):
    with pytest.raises(PruningError, match="There is no candidate 999; they are numbered 0 to"):
        result.apply(999)
    found = genetic_search(model, (X, Y), genome="weights", pattern="2x2", **QUICK)
    with pytest.raises(PruningError, match="removes no channels"):
        found.plan()
    with pytest.raises(PruningError, match="it is of another search"):
        result.apply(found.best)


def test_a_network_too_large_for_a_bit_per_weight_is_told():
    wide = keras.Sequential([keras.Input((200,)), L.Dense(200)])
    with pytest.raises(PruningError, match="genome='weights' would have 40,000 genes"):
        genetic_search(wide, (np.zeros((4, 200)), np.zeros(4)), "parameters", genome="weights")


def test_a_model_that_is_not_compiled_has_accuracy_but_no_loss(model):
    bare = keras.Sequential.from_config(model.get_config())
    bare.set_weights(model.get_weights())
    assert genetic_search(bare, (X, Y), "accuracy", **QUICK).dense["accuracy"] > 0.8
    with pytest.raises(PruningError, match="'loss' needs a loss, but 'small' is not compiled"):
        genetic_search(bare, (X, Y), "loss", **QUICK)


@pytest.mark.parametrize(
    ("units", "activation", "labels"),
    [
        (1, "sigmoid", lambda y: y),
        (1, None, lambda y: y[:, None]),
        (2, "softmax", lambda y: np.eye(2)[y]),
        (2, "sigmoid", lambda y: np.stack([y, y], axis=1)),
        (2, None, lambda y: y[:, None]),
    ],
)
def test_labels_of_every_form_give_the_same_accuracy(units, activation, labels):
    model = keras.Sequential([keras.Input((4,)), L.Dense(4, name="hidden"), L.Dense(units, activation=activation)])
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    head = np.zeros((4, units), "float32")
    head[0] = [1.0] if units == 1 else [-1.0, 1.0] if activation != "sigmoid" else [1.0, 1.0]
    model.layers[0].set_weights([np.eye(4), np.zeros(4)])
    model.layers[1].set_weights([head, np.zeros(units)])
    y = (x[:, 0] > 0).astype(int)
    found = genetic_search(model, (x, labels(y)), ("accuracy", "f1"), genome="layers", population=4, generations=0)
    assert found.dense["accuracy"] == found.dense["f1"] == 1.0


@pytest.mark.parametrize("classes", [1, 3, 6])
def test_f1_is_that_of_scikit_learn_also_for_classes_that_only_the_model_names(classes):
    metrics = pytest.importorskip("sklearn.metrics")
    model = keras.Sequential([keras.Input((4,)), L.Dense(classes, activation="sigmoid" if classes == 1 else None)])
    generator = np.random.default_rng(1)
    answers = generator.random((40, classes)).astype("float32")
    labels = generator.integers(0, max(2, classes // 2), 40)
    decided = (answers[:, 0] > 0.5).astype(int) if classes == 1 else answers.argmax(axis=-1)
    wanted = metrics.f1_score(labels, decided, average="binary" if classes == 1 else "macro")
    assert Scorer(model, labels, answers).f1(answers) == pytest.approx(wanted)


@pytest.fixture(scope="module")
def dropping():
    """A classifier with batch norm and dropout, as long trained as to be worth pruning."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 1))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(x)))
    x = L.Dropout(0.2)(L.Dense(8, activation="relu", name="hidden")(L.Flatten()(x)))
    network = keras.Model(inputs, L.Dense(2, name="logits")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"], jit_compile=False)
    network.fit(X, Y, epochs=4, verbose=0)
    return network


@pytest.mark.parametrize("genome", ["layers", "channels", "weights"])
def test_candidates_are_trained_for_some_steps_and_measure_as_reported(dropping, genome):
    arguments = {"genome": genome, "pattern": "2x2" if genome == "weights" else "element"}
    budget = {"parameters": 0.4}
    before = dropping.get_weights()
    plain = genetic_search(dropping, (X, Y), "loss", budget=budget, **QUICK, **arguments)
    tuned = genetic_search(dropping, (X, Y), "loss", budget=budget, fine_tune=20, train=(X, Y), **QUICK, **arguments)
    assert tuned.best["loss"] < plain.best["loss"]
    for candidate in tuned.front:
        model = tuned.apply(candidate)
        logs = model.evaluate(X, Y, verbose=0, return_dict=True)
        assert logs["loss"] == pytest.approx(candidate["loss"], rel=1e-4)
        assert int(model.optimizer.iterations) == 0
        for key, mask in tuned.genome.masks(candidate.genes).items():
            weight = next(w.variable for w in every_weight(model) if w.key == key)
            assert not np.asarray(weight)[~mask].any()
    for one, other in zip(dropping.get_weights(), before):
        np.testing.assert_array_equal(one, other)


def test_what_fine_tuning_gives_depends_on_the_candidate_alone(dropping):
    data, training = list(batches((X, Y), dropping, "test")), training_batches((X, Y), 10, dropping, 0)
    genome = genomes.make("channels", dropping, None, None, "element", None)
    one, other = (Fitness(dropping, genome, data, goals.get("loss"), training=training) for _ in range(2))
    seeds = genome.seeds()[:4]
    assert [one(genes) for genes in seeds] == [other(genes) for genes in reversed(seeds)][::-1]


def test_wrong_use_of_fine_tuning_is_told(dropping):
    bare = keras.Model.from_config(dropping.get_config())
    for model, arguments, message in (
        (dropping, {"fine_tune": 5}, r"fine_tune=5 needs data to train on; write train=\(x, y\)"),
        (dropping, {"train": (X, Y)}, "train is what fine_tune trains on; write fine_tune=50"),
        (dropping, {"fine_tune": 0.5, "train": (X, Y)}, "fine_tune=0.5 is no number of training steps"),
        (dropping, {"fine_tune": 5, "train": X}, "fine_tune needs targets, and train has none"),
        (bare, {"fine_tune": 5, "train": (X, Y)}, "is not compiled; compile it with optimizer and loss"),
    ):
        with pytest.raises(PruningError, match=message):
            genetic_search(model, (X, Y), **QUICK, **arguments)
