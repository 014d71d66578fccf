"""A search in progress: candidates are asked for, evaluated once each, written down, and judged."""

import math
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.channels.plan import plan_shrink
from tfprune.channels.rebuild import shrink
from tfprune.errors import PruningError
from tfprune.model.data import Batch, batches
from tfprune.model.graph import require_graph
from tfprune.model.tree import check_model
from tfprune.search import genome as genomes
from tfprune.search import objectives as goals
from tfprune.search.fine_tuning import training_batches
from tfprune.search.fitness import Fitness, FitnessError
from tfprune.search.genome import Genes
from tfprune.search.journal import Journal, data_fingerprint, model_fingerprint
from tfprune.search.latency import LatencyTable, MemoryTable, measured_latency
from tfprune.search.progress import Progress
from tfprune.search.result import Candidate, Keeping, SearchResult
from tfprune.search.workers import Measured, Workers

BATCH_SIZE = 256
CHECKED = 8  # candidates of the front whose latency is measured on whole files
AHEAD = 4  # candidates for each worker that are sent out together
TABLE = "latency table"  # in the place of genes in a journal
THINNINGS = 300  # steps of 2 % of the genes, after which a budget is taken to be out of reach


class Ended(Exception):  # noqa: N818  (no error: the way out of any depth of a strategy)
    """A limit of the search is reached."""


class Problem:
    """What is searched, and what is known of it so far.

    Args:
        strategy: Name of the search, for the report.
        model: The unpruned model.
        data: Validation data.
        objectives: Names or functions.
        genome: `"channels"`, `"layers"` or `"weights"`.
        seed: Of everything random.
        journal: Path of the journal, None for none.
        workers: Processes that evaluate at once.
        settings: What else decides which candidates are asked for, for the journal.
        weights, budget, criterion, layers, pattern, recalibrate, fine_tune, train, evaluations, seconds: See
            `genetic_search`.
    """

    def __init__(
        self,
        strategy: str,
        model: keras.Model,
        data: Any,
        objectives: Any,
        genome: str,
        *,
        seed: int,
        journal: Any = None,
        workers: int = 1,
        settings: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
        budget: Mapping[str, float] | None = None,
        criterion: Any = None,
        layers: Any = None,
        pattern: Any = "element",
        recalibrate: Any = None,
        fine_tune: int | None = None,
        train: Any = None,
        evaluations: int | None = None,
        seconds: float | None = None,
    ):
        check_model(model, "search in")
        self.strategy, self.model, self.seed = strategy, model, check_count("seed", seed, 0)
        chosen = goals.get(objectives, weights)
        budget = goals.check_budget(budget)
        self.limit = None if evaluations is None else check_count("evaluations", evaluations, 1)
        self.seconds = _check_seconds(seconds)
        check_count("workers", workers, 1)
        if genome != "weights":
            require_graph(model, "Searching for channels")
        self.data = list(batches(data, model, strategy, BATCH_SIZE))
        self.genome = genomes.make(genome, model, criterion, layers, pattern, data)
        calibration = self._calibration(recalibrate)
        training = training_batches(train, fine_tune, model, seed)
        measured = {each.name for each in chosen if each.function is None} | set(budget)
        self.evaluated: list[Candidate] = []
        self.cached = 0
        self._by_genes: dict[Genes, Candidate] = {}
        self._began = time.monotonic()
        header = {
            "model": model_fingerprint(model),
            "data": data_fingerprint(self.data),
            "seed": self.seed,
            "objectives": [[each.name, each.sign, each.weight] for each in chosen],
            "budget": budget,
            "genome": [genome, self.genome.size, repr(criterion), repr(pattern), len(calibration)],
            "fine_tune": [len(training), data_fingerprint(training)] if training else None,
            "settings": {"strategy": strategy, **(settings or {})},
        }
        self.journal = None if journal is None else Journal(journal, header)
        tables = self._tables(measured)
        self.fitness = Fitness(model, self.genome, self.data, chosen, budget, calibration, tables, training)
        self._number = workers
        self._workers: Workers | None = None
        if workers > 1:
            arguments = {
                "model": model, "genome": genome, "criterion": criterion, "layers": layers, "pattern": pattern,
                "data": self.data, "objectives": chosen, "budget": budget, "calibration": calibration,
                "training": training,
                "latency": tables["latency"].to_dict() if "latency" in tables else None,
            }  # fmt: skip
            self._workers = Workers(workers, remote_fitness, arguments)
        self.progress = Progress(strategy)
        self.dense = self._evaluated_dense()
        self.judgement = goals.Judgement(chosen, budget, self.dense.figures)

    def evaluate(self, asked: Sequence[Genes]) -> list[Candidate]:
        """The candidates of these genes; those that are new are measured.

        Raises:
            Ended: The limit of evaluations or of time is reached; what was measured till then is kept.
        """
        ahead: dict[Genes, Measured] = {}
        for place, genes in enumerate(asked):
            if genes in self._by_genes:
                self.cached += 1
                continue
            self._check_limits()
            if self._workers is not None and genes not in ahead:
                ahead = self._measured_ahead(self._workers, asked[place:])
            self._add(genes, *(ahead[genes] if genes in ahead else self._measured(genes)))
        return [self._by_genes[genes] for genes in asked]

    def knows(self, genes: Genes) -> bool:
        """Whether a candidate has been evaluated."""
        return genes in self._by_genes

    def within_budget(self, genes: Genes, generator: random.Random) -> Genes:
        """The genes, or thinner ones that meet the budget, as far as removing more can."""
        for _ in range(THINNINGS if self.judgement.budget else 0):
            if not self.judgement.excess(self.fitness.cost(genes)):
                break
            genes = self.genome.thinner(genes, generator)
        return genes

    def merits(self, candidate: Candidate) -> tuple[float, ...]:
        """The objectives as numbers that are better when larger; a candidate without figures is below all."""
        if candidate.failure is not None:
            return (-math.inf,) * len(self.judgement.objectives)
        return self.judgement.merits(candidate.figures)

    def sum(self, candidate: Candidate) -> float:
        """The weighted sum of the objectives; larger is better."""
        return -math.inf if candidate.failure is not None else self.judgement.sum(candidate.figures)

    def result(self, reason: str) -> SearchResult:
        """What was found."""
        self.progress.close()
        front = self.front()
        return SearchResult(
            front=front,
            best=max(front, key=self.sum),
            dense=self.dense,
            evaluated=tuple(self.evaluated),
            meets_budget=self.judgement.excess(front[0].figures) == 0.0,
            reason=reason,
            seed=self.seed,
            seconds=time.monotonic() - self._began,
            cached=self.cached,
            strategy=self.strategy,
            model=self.model,
            genome=self.genome,
            judgement=self.judgement,
            calibration=self.fitness.calibration,
            training=self.fitness.training,
            notices=self.journal.notes if self.journal else [],
            checks=self._checks(front),
        )

    def front(self) -> list[Candidate]:
        """The candidates that none beats in every objective, the best in the first objective first."""
        best: dict[tuple[float, ...], Candidate] = {}
        for candidate in self.evaluated:
            if candidate.failure is None:
                best.setdefault(self.merits(candidate), candidate)
        front: list[Candidate] = []
        beyond: list[tuple[float, ...]] = []
        for merits in sorted(best, reverse=True):  # whoever beats it comes before it
            if not any(all(mine <= other for mine, other in zip(merits, kept)) for kept in beyond):
                beyond.append(merits)
                front.append(best[merits])
        return front

    def _tables(self, names: set[str]) -> dict[str, Any]:
        """What gives the costs that are not counted; the table of a journal is taken up, so that figures agree."""
        tables: dict[str, Any] = {}
        if "memory" in names:
            tables["memory"] = MemoryTable(self.model, self.genome)
        if "latency" in names:
            known = self.journal.known.pop(TABLE, None) if self.journal else None
            if known is None:
                table = LatencyTable.measured(self.model, self.genome, self._samples())
                if self.journal is not None:
                    self.journal.add(TABLE, table.to_dict())
                    self.journal.known.pop(TABLE)
            else:
                table = LatencyTable.from_dict(known, self.model, self.genome)
            tables["latency"] = table
        return tables

    def _checks(self, front: Sequence[Candidate]) -> dict[int, dict[str, float]]:
        """The latency of candidates of the front as whole files, evenly over the front where there are many."""
        if "latency" not in self.fitness.tables:
            return {}
        chosen = front[:: -(-len(front) // CHECKED)]
        models = {}
        for candidate in chosen:
            keep = Keeping(self.genome.keep(candidate.genes))  # type: ignore[attr-defined]
            models[candidate.number] = shrink(self.model, plan_shrink(self.model, keep))
        return {number: {"latency": ms} for number, ms in measured_latency(models, self._samples()).items()}

    def _samples(self) -> Any:
        return keras.tree.map_structure(lambda array: np.asarray(array)[:100], self.data[0].inputs)

    def _measured(self, genes: Genes) -> tuple[dict[str, float], str | None]:
        known = self.journal.known.get(self.genome.text(genes)) if self.journal else None
        if known is not None:
            return known["figures"], known["failure"]
        try:
            return self.fitness(genes), None
        except FitnessError as error:
            return {}, str(error)

    def _measured_ahead(self, workers: Workers, asked: Sequence[Genes]) -> dict[Genes, Measured]:
        """The figures of the next candidates that are in no journal, by workers side by side."""
        known = self.journal.known if self.journal else {}
        new = [
            genes
            for genes in dict.fromkeys(asked)
            if genes not in self._by_genes and self.genome.text(genes) not in known
        ][: AHEAD * self._number]
        return dict(zip(new, workers(new)))

    def _add(self, genes: Genes, figures: Mapping[str, float], failure: str | None) -> Candidate:
        if self.journal is not None:
            self.journal.add(self.genome.text(genes), {"figures": dict(figures), "failure": failure})
        candidate = Candidate(len(self.evaluated), genes, dict(figures), failure)
        self.evaluated.append(candidate)
        self._by_genes[genes] = candidate
        self.progress.evaluated(len(self.evaluated), self.limit)
        return candidate

    def _evaluated_dense(self) -> Candidate:
        dense = self._add(self.genome.dense, *self._measured(self.genome.dense))
        if dense.failure is not None:
            raise PruningError(
                f"The unpruned model has no figures, so none of its candidates would: {dense.failure}. An objective is "
                "a function that takes a candidate (.model, .masks, .figures) and returns a finite number."
            )
        return dense

    def _check_limits(self) -> None:
        if self.limit is not None and len(self.evaluated) > self.limit:
            raise Ended(f"{self.limit} evaluations")
        if self.seconds is not None and time.monotonic() - self._began > self.seconds:
            raise Ended(f"{self.seconds:g} seconds")

    def _calibration(self, recalibrate: Any) -> list[Batch]:
        if recalibrate is None or recalibrate is False:
            return []
        source = self.data if recalibrate is True else list(batches(recalibrate, self.model, "recalibrate", BATCH_SIZE))
        return [Batch(batch.inputs) for batch in source]


def remote_fitness(
    model: keras.Model,
    genome: str,
    criterion: Any,
    layers: Any,
    pattern: Any,
    data: list[Batch],
    objectives: Sequence[goals.Objective],
    budget: Mapping[str, float],
    calibration: Sequence[Batch],
    training: Sequence[Batch],
    latency: Mapping[str, Any] | None,
) -> Fitness:
    """The fitness of a search, made anew in a worker from what can be sent there."""
    made = genomes.make(genome, model, criterion, layers, pattern, data)
    tables: dict[str, Any] = {}
    if "memory" in budget or any(each.name == "memory" for each in objectives):
        tables["memory"] = MemoryTable(model, made)
    if latency is not None:
        tables["latency"] = LatencyTable.from_dict(latency, model, made)
    return Fitness(model, made, data, objectives, budget, calibration, tables, training)


def check_count(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`.

    Raises:
        PruningError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise PruningError(f"{name}={value!r}: give a whole number of {least} or more.")
    return value


def _check_seconds(seconds: Any) -> float | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise PruningError(f"seconds={seconds!r}: give a number above 0, such as 600 for ten minutes.")
    return float(seconds)
