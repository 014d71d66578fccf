"""Genetic search: a population of masks that evolves towards a front of good compromises."""

from collections.abc import Mapping
from typing import Any

import keras

from tfprune.errors import PruningError, require
from tfprune.search.evolution import Evolution, Operators
from tfprune.search.genome import Genes
from tfprune.search.problem import Problem
from tfprune.search.result import SearchResult
from tfprune.search.settings import Settings, check_count


def genetic_search(
    model: keras.Model,
    data: Any,
    objectives: Any = ("accuracy", "macs"),
    genome: str = "channels",
    population: int = 32,
    generations: int = 20,
    selection: str | None = None,
    crossover: str | None = None,
    mutation: str | None = None,
    seed: int = 0,
    journal: Any = None,
    workers: int = 1,
    *,
    weights: Mapping[str, float] | None = None,
    budget: Mapping[str, float] | None = None,
    initial: str = "seeded",
    criterion: Any = None,
    layers: Any = None,
    pattern: Any = "element",
    recalibrate: Any = None,
    fine_tune: int | None = None,
    train: Any = None,
    evaluations: int | None = None,
    seconds: float | None = None,
    patience: int | None = None,
    crossover_rate: float = 0.9,
    mutation_rate: float | None = None,
    verbose: int = 1,
    metric: Any = None,
    mode: Any = None,
    max_drop: Any = None,
) -> SearchResult:
    """Searches by evolution for the channels or weights to remove, and gives the best compromises it met.

    Nothing is rebuilt or compiled for a candidate: its masks go into one compiled evaluation, its costs are counted
    from its genes, and genes that were met before are not evaluated again.

    Args:
        model: A built model, trained; functional or Sequential for channels. It is left as it is.
        data: Validation inputs and targets, anything that `fit` takes; some thousand samples, as they are read for
            every candidate.
        objectives: Names or functions, one or several. `"accuracy"`, `"f1"` (macro), `"loss"`, `"metric"` (what
            `metric` says) and `"metrics"` (an objective for each of several outputs, for a front between them) are
            measured on the data; `"parameters"`, `"macs"`, `"bytes"` (of the weights in an int8 file) and `"memory"`
            (bytes of the largest input and output of a layer in int8) are counted; `"latency"` (milliseconds of the
            int8 file, one thread) comes from a table of the layers that is measured here first, and is checked on files
            of the front. A function takes a candidate (`.model`, `.masks`, `.figures`) and returns a number, large for
            good. Defaults to `("accuracy", "macs")`.
        genome: `"channels"` (default), a bit for each channel that can be removed with all that belongs to it;
            `"layers"`, a share for each group of channels, the lowest by the criterion going; `"weights"`, a bit for
            each weight or block of a small network.
        population: Individuals in a generation, 4 or more. Defaults to 32.
        generations: After the first. Defaults to 20.
        selection: `"nsga2"` for a Pareto front; `"tournament"` or `"roulette"` by the weighted sum. Defaults to None:
            `"nsga2"` for several objectives, `"tournament"` for one.
        crossover: `"one_point"` or `"uniform"`. Defaults to None: `"one_point"` for bits, of which neighbours belong
            together, `"uniform"` for shares.
        mutation: `"flip"` for bits, `"gaussian"` for shares. Defaults to None: what suits the genome.
        seed: Of everything random; the same seed gives the same search. Defaults to 0.
        journal: Path of a file in which every evaluation is written down at once. A search that was killed, begun again
            with the same arguments, goes on from there; that of another model, other data or settings is refused (of a
            function only the name is compared). Defaults to None: none.
        workers: Processes that evaluate candidates side by side. Defaults to 1: this one.
        weights: Name of an objective -> its part in the weighted sum; each is measured as a multiple of the unpruned
            model's. Negative for a function that is to be small. Defaults to 1 each.
        budget: Name of a cost -> largest share of the unpruned model's, such as `{"macs": 0.5}`. Whoever meets it is
            better than whoever does not. Defaults to None.
        initial: `"seeded"` (default): three quarters of the first generation are what the criterion would remove, at
            several amounts, for random shares of each layer, and for `genome="layers"` of single layers too;
            `"random"`: all of it is random.
        criterion: Of channels (`"l2"`) or weights (`"magnitude"`), for seeding, repair and `genome="layers"`.
        layers: Which layers may lose something. Defaults to None: all.
        pattern: For `genome="weights"`: `"element"` (default), or blocks such as `"4x1"`.
        recalibrate: Measures the statistics of batch norm anew for every candidate, so that untrained candidates rank
            truly: True for the inputs in `data`, or other inputs. Defaults to None: no.
        fine_tune: Optimizer steps that each candidate is trained for before it is measured, from the unpruned weights
            and on the same batches as every other, with the optimizer and loss that the model was compiled with.
            `.apply()` then gives the trained model. Defaults to None: none.
        train: What `fine_tune` trains on: `(x, y)`, in batches of 64, or batches; other data than `data`.
        evaluations: Ends after so many candidates besides the unpruned model. Defaults to None.
        seconds: Ends after so many seconds. Defaults to None.
        patience: Ends after so many generations in a row without gain: no better value of any objective, nor of the
            weighted sum. Defaults to None.
        crossover_rate: Share of offspring with two parents. Defaults to 0.9.
        mutation_rate: Probability of a change for each gene. Defaults to None: 3 in a genome.
        verbose: 0 shows no progress, 1 (default) a bar in a terminal and lines elsewhere, 2 lines.
        metric: What the objective `"metric"` is, which then stands in the place of `"accuracy"`: the name of a metric
            that the model is compiled with, a Keras metric, a function of (targets, outputs), or a dict of these by
            output. Defaults to None: the first metric that the model is compiled with, else its loss; without targets
            the difference from the unpruned model's outputs.
        mode: `"max"` where a large value is better, `"min"` where a small one is. Defaults to None: asked of the
            metric, or told by its name.
        max_drop: Of several outputs, how much worse the metric of each may become (`{"box": "5%", "kind": 0.01}`): the
            one that is nearest to its bound counts. Defaults to None: each as a share of its unpruned value.

    Returns:
        A `SearchResult`: `.best`, `.front`, `.apply(candidate)`.

    Raises:
        PruningError: An argument is wrong, the data have no labels where they are needed, the unpruned model itself has
            no figures, the journal is of another search or cannot be written, or DEAP is not installed.

    References:
        Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002.

    Example:
        result = tfprune.genetic_search(model, (x_val, y_val), budget={"macs": 0.5})
        small = tfprune.shrink(tfprune.strip_masks(result.apply()))
    """
    _check(population, generations, patience, initial)
    steering = {
        "population": population, "selection": selection, "crossover": crossover, "mutation": mutation,
        "crossover_rate": crossover_rate, "mutation_rate": mutation_rate, "initial": initial,
    }  # fmt: skip
    settings = Settings(
        "genetic_search", objectives, genome, weights, budget, seed, workers, criterion, layers, pattern, fine_tune,
        evaluations, seconds, steering, metric, mode, max_drop,
    )  # fmt: skip
    problem = Problem(settings, model, data, journal, recalibrate, train, verbose)
    operators = Operators.checked(problem.genome, len(problem.settings.objectives), steering)
    known = {problem.dense.genes: problem.dense}

    def evaluated(genes: list[Genes]) -> list[Genes]:
        known.update(zip(genes, problem.evaluate(genes)))
        return genes

    evolution = Evolution(
        problem.genome, operators, population, seed, lambda genes: problem.standing(known[genes]), problem.within_budget
    )
    return problem.run(
        lambda: _evolve(problem, evolution, evaluated, initial == "seeded", generations, patience),
        expected=population * (generations + 1),
    )


def _check(population: Any, generations: Any, patience: Any, initial: Any) -> None:
    """What the evolution is told, before anything is read."""
    require("deap", extra="search", purpose="Genetic search")
    check_count("population", population, 4)
    check_count("generations", generations, 0)
    if patience is not None:
        check_count("patience", patience, 1)
    if initial not in ("seeded", "random"):
        raise PruningError(f"initial={initial!r} is unknown; write 'seeded' or 'random'.")


def _evolve(
    problem: Problem, evolution: Evolution, evaluated: Any, seeded: bool, generations: int, patience: int | None
) -> str:
    """Breeds generation after generation; says why it ended."""
    evolution.begin(evaluated(evolution.first(seeded)))
    best, without_gain = _best(problem), 0
    for _ in range(generations):
        evolution.survive(evaluated(evolution.offspring()))
        now = _best(problem)
        without_gain = 0 if any(new > old for new, old in zip(now, best)) else without_gain + 1
        best = now
        if patience is not None and without_gain >= patience:
            return f"{patience} generations without gain"
    return f"{generations} generations"


def _best(problem: Problem) -> list[Any]:
    """The best standing met, and the best value of each objective within the budget."""
    standings = [problem.standing(candidate) for candidate in problem.evaluated]
    return [max(standings), *(max(values) for values in zip(*(each.merits for each in standings if each.merits)))]
