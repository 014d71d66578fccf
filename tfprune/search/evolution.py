"""Evolution by DEAP: selection, crossover and mutation of genes, with a random generator of its own."""

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfprune.errors import PruningError, nearest, require
from tfprune.search.genome import Genes, Genome
from tfprune.search.objectives import Rank, Standing

SELECTIONS = ("tournament", "roulette", "nsga2")
CROSSOVERS = ("one_point", "uniform")
MUTATIONS = {"flip": True, "gaussian": False}  # whether it is for bits
TOURNAMENT = 3
SIGMA = 0.15
SWAPPED = 0.5


@dataclass(frozen=True)
class Operators:
    """How a generation follows from the one before.

    Attributes:
        selection: `"tournament"`, `"roulette"` or `"nsga2"`.
        crossover: `"one_point"` or `"uniform"`.
        mutation: `"flip"` for bits, `"gaussian"` for amounts.
        crossover_rate: Share of the offspring with two parents.
        mutation_rate: Probability of a change, for each gene.
    """

    selection: str
    crossover: str
    mutation: str
    crossover_rate: float
    mutation_rate: float

    @classmethod
    def checked(cls, genome: Genome, objectives: int, asked: Mapping[str, Any]) -> "Operators":
        """The operators by their names; None is what suits the genome and the number of objectives.

        Args:
            genome: What is bred.
            objectives: Their number.
            asked: The attributes by name, each may be None.

        Raises:
            PruningError: An unknown name, one that does not go with the genome, or a rate outside [0, 1].
        """
        selection = asked["selection"] or ("nsga2" if objectives > 1 else "tournament")
        crossover = asked["crossover"] or ("one_point" if genome.is_bits else "uniform")
        mutation = asked["mutation"] or ("flip" if genome.is_bits else "gaussian")
        crossover_rate, mutation_rate = asked["crossover_rate"], asked["mutation_rate"]
        for word, value, known in (
            ("selection", selection, SELECTIONS),
            ("crossover", crossover, CROSSOVERS),
            ("mutation", mutation, tuple(MUTATIONS)),
        ):
            if value not in known:
                raise PruningError(f"There is no {word} {value!r}. {nearest(str(value), known)}")
        if MUTATIONS[mutation] != genome.is_bits:
            other = "flip" if genome.is_bits else "gaussian"
            kind = "bits" if genome.is_bits else "amounts"
            raise PruningError(
                f"mutation={mutation!r} does not go with genome={genome.kind!r}, whose genes are {kind}; write "
                f"mutation={other!r}."
            )
        rate = min(1.0, 3.0 / genome.size) if mutation_rate is None else mutation_rate
        for word, share in (("crossover_rate", crossover_rate), ("mutation_rate", rate)):
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 <= share <= 1.0:
                raise PruningError(f"{word}={share!r} is no probability in [0, 1]; write 0.9.")
        return cls(selection, crossover, mutation, float(crossover_rate), float(rate))


class Randomness:
    """A stream of random numbers apart from the program's own.

    DEAP draws from Python's global generator. While the stream is open that one has the state of the stream; afterwards
    it is as it was.
    """

    def __init__(self, seed: int):
        self._state = random.Random(seed).getstate()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Makes the global generator that of the stream for the length of a block."""
        outer = random.getstate()
        random.setstate(self._state)
        try:
            yield
        finally:
            self._state = random.getstate()
            random.setstate(outer)


class Evolution:
    """A population that is bred on.

    Args:
        genome: Draws and repairs genes.
        operators: How it is bred.
        size: Individuals.
        seed: Of everything random.
        standing: Says how good genes are that have been evaluated.
        within: Thins genes until they meet the budget.
    """

    def __init__(
        self,
        genome: Genome,
        operators: Operators,
        size: int,
        seed: int,
        standing: Callable[[Genes], Standing],
        within: Callable[[Genes, random.Random], Genes],
    ):
        self._tools, self._fitness = (
            require(f"deap.{part}", extra="search", purpose="Genetic search") for part in ("tools", "base")
        )
        self.genome, self.operators, self.size = genome, operators, size
        self._standing, self._within = standing, within
        self.random = Randomness(seed)
        self.population: list[Genes] = []

    def first(self, seeded: bool) -> list[Genes]:
        """The genes to begin with.

        Args:
            seeded: Whether a quarter of them are what a criterion would choose at several amounts, and half of them
                what it would choose for random shares of each layer; else all are random.
        """
        genes: dict[Genes, None] = {}
        with self.random.open():
            generator = random.Random(random.getrandbits(64))

            def fill(count: int, draw: Callable[[random.Random], Genes]) -> None:
                for _ in range(20 * self.size):  # small genomes may not have as many different individuals
                    if len(genes) >= count:
                        break
                    genes.setdefault(self._within(draw(generator), generator))

            if seeded:
                chosen = [self.genome.dense, *self.genome.seeds()][: self.size // 4]
                genes.update(dict.fromkeys(self._within(each, generator) for each in chosen))
                fill(self.size * 3 // 4, self.genome.guided)
            fill(self.size, self.genome.drawn)
        return list(genes)

    def begin(self, evaluated: Sequence[Genes]) -> None:
        """Takes the first generation, once it has been evaluated."""
        self.population = list(evaluated)

    def offspring(self) -> list[Genes]:
        """The genes of the next generation's children."""
        tools = self._tools
        with self.random.open():
            parents = self._parents()
            children = [list(parent) for parent in parents]
            for one, other in zip(children[::2], children[1::2]):
                if random.random() < self.operators.crossover_rate and len(one) > 1:
                    if self.operators.crossover == "uniform":
                        tools.cxUniform(one, other, SWAPPED)
                    else:
                        tools.cxOnePoint(one, other)
            for child in children:
                if self.operators.mutation == "flip":
                    tools.mutFlipBit(child, self.operators.mutation_rate)
                else:
                    tools.mutGaussian(child, 0.0, SIGMA, self.operators.mutation_rate)
            generator = random.Random(random.getrandbits(64))
            return [self._within(self.genome.repaired(child), generator) for child in children]

    def survive(self, children: Sequence[Genes]) -> None:
        """Puts the next generation together, once its children have been evaluated."""
        everyone = list(dict.fromkeys([*self.population, *children]))
        if self.operators.selection == "nsga2":
            chosen = self._tools.selNSGA2(self._individuals(everyone), self.size)
            self.population = [individual.genes for individual in chosen]
            return
        best = max(everyone, key=self._standing)
        new = list(dict.fromkeys([best, *children]))  # the best one always lives on
        self.population = new[: self.size]

    def _parents(self) -> list[Genes]:
        tools = self._tools
        individuals = self._individuals(self.population)
        if self.operators.selection == "nsga2":
            fronts = tools.sortNondominated(individuals, len(individuals))
            for front in fronts:
                tools.emo.assignCrowdingDist(front)
            # What selTournamentDCD does, for populations of any size.
            pairs = [random.choices(individuals, k=2) for _ in range(self.size)]
            return [_better(one, other).genes for one, other in pairs]
        if self.operators.selection == "roulette":
            return [individual.genes for individual in tools.selRoulette(individuals, self.size)]
        return [individual.genes for individual in tools.selTournament(individuals, self.size, TOURNAMENT)]

    def _individuals(self, genes: Sequence[Genes]) -> list["Individual"]:
        """The genes with numbers that DEAP compares; what is not within the budget is below all that is."""
        standings = [self._standing(each) for each in genes]
        if self.operators.selection == "nsga2":
            values = _all_merits(standings)
        elif self.operators.selection == "roulette":
            values = [(slot,) for slot in _slots(standings)]
        else:
            ranks = {standing: rank for rank, standing in enumerate(sorted(set(standings)))}
            values = [(ranks[standing],) for standing in standings]
        kind = type("Fitness", (self._fitness.Fitness,), {"weights": (1.0,) * len(values[0])})
        return [Individual(each, kind(numbers)) for each, numbers in zip(genes, values)]


def _all_merits(standings: Sequence[Standing]) -> list[tuple[float, ...]]:
    """The merits of each; of those that are not within the budget, numbers below every merit, by their order."""
    within = [standing.merits for standing in standings if standing.rank == Rank.WITHIN_BUDGET]
    floors = [min(values) for values in zip(*within)] or [0.0]
    others = sorted({standing for standing in standings if standing.rank < Rank.WITHIN_BUDGET}, reverse=True)
    steps = {standing: 1 + number for number, standing in enumerate(others)}
    return [
        standing.merits or tuple(floor - (1.0 + abs(floor)) * steps[standing] for floor in floors)
        for standing in standings
    ]


def _slots(standings: Sequence[Standing]) -> list[float]:
    """The widths of slots on the roulette wheel: how far each is above the worst that is within the budget."""
    totals = [standing.value for standing in standings if standing.rank == Rank.WITHIN_BUDGET]
    if not totals:
        return [1.0] * len(standings)
    low, high = min(totals), max(totals)
    least = 0.05 * (high - low) + 1e-12
    return [standing.value - low + least if standing.rank == Rank.WITHIN_BUDGET else 0.0 for standing in standings]


class Individual:
    """Genes with the fitness that DEAP compares."""

    def __init__(self, genes: Genes, fitness: Any):
        self.genes, self.fitness = genes, fitness


def _better(one: Any, other: Any) -> Any:
    if one.fitness.dominates(other.fitness):
        return one
    if other.fitness.dominates(one.fitness):
        return other
    return one if one.fitness.crowding_dist >= other.fitness.crowding_dist else other
