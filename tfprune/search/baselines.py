"""The simple ways that a search has to beat: random, greedy by sensitivity, and layer by layer to a budget."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from tfprune.errors import PruningError, listing
from tfprune.search.genome import Genes
from tfprune.search.objectives import COSTS
from tfprune.search.problem import Problem
from tfprune.search.result import Candidate, SearchResult
from tfprune.search.settings import Settings, check_count

# What each search takes beside its own arguments, and what each names in its signature.
KNOWN = (
    "metric",
    "mode",
    "max_drop",
    "weights",
    "budget",
    "criterion",
    "layers",
    "pattern",
    "recalibrate",
    "fine_tune",
    "train",
    "seconds",
    "verbose",
)
NAMED = ("objectives", "genome", "seed", "workers", "evaluations")
LEVELS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
TOLERANCES = 12


def random_search(
    model: keras.Model,
    data: Any,
    objectives: Any = ("accuracy", "macs"),
    genome: str = "channels",
    evaluations: int = 500,
    seed: int = 0,
    journal: Any = None,
    workers: int = 1,
    **arguments: Any,
) -> SearchResult:
    """Evaluates random candidates: the floor under every other search.

    Args:
        model, data, objectives, genome, seed, journal, workers: See `genetic_search`.
        evaluations: How many candidates besides the unpruned model. Defaults to 500.
        **arguments: `weights`, `budget`, `criterion`, `layers`, `pattern`, `recalibrate`, `fine_tune`,
            `train`, `seconds`, `verbose`, as there.

    Raises:
        PruningError: As there.
    """
    arguments.update(objectives=objectives, genome=genome, seed=seed, workers=workers, evaluations=evaluations)
    problem = _problem("random_search", model, data, journal, arguments)
    generator = random.Random(seed)

    def draw() -> str:
        seen = 0  # in a row; a small genome runs out of candidates
        while seen < 1000:
            genes = problem.within_budget(problem.genome.drawn(generator), generator)
            seen = seen + 1 if problem.knows(genes) else 0
            if not seen:
                problem.evaluate([genes])
        return "nearly every candidate is known"

    return problem.run(draw)


def greedy_search(
    model: keras.Model,
    data: Any,
    objectives: Any = ("accuracy", "macs"),
    genome: str = "layers",
    evaluations: int | None = None,
    seed: int = 0,
    journal: Any = None,
    workers: int = 1,
    levels: Sequence[float] = LEVELS,
    **arguments: Any,
) -> SearchResult:
    """Thins each channel group (or weight) alone to find out what it costs, then all of them at equal cost.

    Args:
        model, data, objectives, genome, seed, journal, workers: See `genetic_search`.
        evaluations: Ends after so many candidates. Defaults to None.
        levels: Shares of a group that are tried, rising, in (0, 1). Defaults to steps of an eighth.
        **arguments: `weights`, `budget`, `criterion`, `layers`, `pattern`, `recalibrate`, `fine_tune`,
            `train`, `seconds`, `verbose`, as there.

    Raises:
        PruningError: As there; no objective that is measured on data, or levels that are none.
    """
    levels = [float(level) for level in levels]
    if not levels or levels != sorted(set(levels)) or not 0.0 < levels[0] <= levels[-1] < 1.0:
        raise PruningError(f"levels={levels} are no rising shares in (0, 1); write levels=(0.25, 0.5, 0.75).")
    arguments.update(objectives=objectives, genome=genome, seed=seed, workers=workers, evaluations=evaluations)
    problem = _problem("greedy_search", model, data, journal, arguments, levels=levels)
    quality = _quality(problem)
    dense = quality(problem.dense)

    def walk() -> str:
        losses: dict[str, list[float]] = {}
        for name in problem.genome.parts:
            found = problem.evaluate([problem.genome.at({name: level}) for level in levels])
            worst = 0.0
            losses[name] = []
            for value in itertools.takewhile(lambda value: value is not None, map(quality, found)):
                worst = max(worst, dense - value)  # type: ignore[operator]
                losses[name].append(worst)
        steps = sorted({loss for curve in losses.values() for loss in curve})
        for genes in _at_equal_cost(problem, losses, levels, steps):
            problem.evaluate([genes])
        return "every tolerance was tried"

    return problem.run(walk)


def netadapt_search(
    model: keras.Model,
    data: Any,
    objectives: Any = ("accuracy", "macs"),
    genome: str = "layers",
    evaluations: int | None = None,
    seed: int = 0,
    journal: Any = None,
    workers: int = 1,
    steps: int = 10,
    **arguments: Any,
) -> SearchResult:
    """Lowers a cost step by step: in each, every channel group alone makes the step, and the one that loses least does.

    Args:
        model, data, objectives, genome, seed, journal, workers: See `genetic_search`.
        evaluations: Ends after so many candidates. Defaults to None.
        steps: Equal steps from the unpruned model's cost to the budget (or to a tenth, without one). Defaults to 10.
        **arguments: `weights`, `budget`, `criterion`, `layers`, `pattern`, `recalibrate`, `fine_tune`,
            `train`, `seconds`, `verbose`, as there.

    Raises:
        PruningError: As there; no cost among the objectives or in the budget.

    References:
        Yang et al., "NetAdapt", 2018, https://arxiv.org/abs/1804.03230 (there with fine-tuning in every step).
    """
    check_count("steps", steps, 1)
    arguments.update(objectives=objectives, genome=genome, seed=seed, workers=workers, evaluations=evaluations)
    problem = _problem("netadapt_search", model, data, journal, arguments, steps=steps)
    quality = _quality(problem)
    cost = _cost(problem)
    goal = problem.judgement.budget.get(cost, 0.1)

    def descend() -> str:
        shares: dict[str, float] = {}
        for step in range(1, steps + 1):
            limit = problem.dense[cost] * (1.0 - step * (1.0 - goal) / steps)
            proposals = [
                moved for name in problem.genome.parts if (moved := _thinned(problem, shares, name, cost, limit))
            ]
            if not proposals:
                return f"no group alone can take {cost} to {limit:,.0f}"
            found = problem.evaluate([problem.genome.at(moved) for moved in proposals])
            known = [(value, moved) for each, moved in zip(found, proposals) if (value := quality(each)) is not None]
            if not known:
                return f"no candidate of step {step} has figures"
            shares = max(known, key=lambda pair: pair[0])[1]
        return f"{steps} steps"

    return problem.run(descend)


def _problem(
    strategy: str, model: keras.Model, data: Any, journal: Any, arguments: dict[str, Any], **steering: Any
) -> Problem:
    """The problem of these arguments, which beside `KNOWN` are those that every strategy names itself."""
    unknown = [name for name in arguments if name not in (*KNOWN, *NAMED)]
    if unknown:
        raise PruningError(f"{strategy} has no argument {listing(unknown)}; it takes {listing(KNOWN)}.")
    apart = {name: arguments.pop(name) for name in ("recalibrate", "train", "verbose") if name in arguments}
    return Problem(Settings(strategy, steering=steering, **arguments), model, data, journal, **apart)


def _quality(problem: Problem) -> Callable[[Candidate], float | None]:
    """The first objective that is not a cost, as a number that is better when larger; None of a failed candidate."""
    measured = [each for each in problem.judgement.objectives if each.name not in COSTS or each.function]
    if not measured:
        raise PruningError(
            f"{problem.settings.strategy} thins where least is lost, so an objective has to be measured on data; write "
            'objectives=("accuracy", "macs").'
        )

    def quality(candidate: Candidate) -> float | None:
        return None if candidate.failure is not None else measured[0].sign * candidate[measured[0].name]

    return quality


def _cost(problem: Problem) -> str:
    """The cost that is to fall: that of the budget, else the first among the objectives."""
    costs = [*problem.judgement.budget, *(each.name for each in problem.judgement.objectives if each.name in COSTS)]
    if not costs:
        raise PruningError(f'{problem.settings.strategy} lowers a cost; write budget={{"macs": 0.5}}.')
    return costs[0]


def _at_equal_cost(
    problem: Problem, losses: dict[str, list[float]], levels: Sequence[float], steps: Sequence[float]
) -> Iterator[Genes]:
    """The candidates in which every part loses as much as a tolerance allows; with a budget, the first that meet it."""
    candidates: dict[Genes, None] = {}
    for tolerance in steps:
        shares = {
            name: max((level for level, loss in zip(levels, curve) if loss <= tolerance), default=0.0)
            for name, curve in losses.items()
        }
        candidates.setdefault(problem.genome.at(shares))
    found = list(candidates)
    if problem.judgement.budget:
        meeting = [genes for genes in found if not problem.judgement.excess(problem.fitness.cost(genes))]
        yield from meeting[:TOLERANCES] or found[-1:]
        return
    stride = max(1, len(found) // TOLERANCES)
    yield from found[::stride]


def _thinned(problem: Problem, shares: dict[str, float], name: str, cost: str, limit: float) -> dict[str, float] | None:
    """The shares with one part thinned just enough for the cost to fall to the limit; None where it cannot."""
    size = problem.genome.parts[name]
    for removed in range(round(shares.get(name, 0.0) * size), size):
        moved = {**shares, name: removed / size}
        if problem.fitness.cost_of(cost, problem.genome.at(moved)) <= limit:
            return moved
    return None
