"""A search in progress: candidates are asked for, evaluated once each, written down, and judged."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.channels import has_rule
from tfprune.channels.plan import plan_shrink
from tfprune.channels.rebuild import shrink
from tfprune.errors import PruningError
from tfprune.model.data import Batch, batches
from tfprune.model.inline import inlined
from tfprune.model.tree import check_model
from tfprune.progress import Stage, shown, stage
from tfprune.search import genome as genomes
from tfprune.search import objectives as goals
from tfprune.search.fine_tuning import training_batches
from tfprune.search.fitness import Fitness, FitnessError, metrics_of
from tfprune.search.genome import Genes, Genome
from tfprune.search.journal import TABLE, Journal, compiled_fingerprint, data_fingerprint, model_fingerprint
from tfprune.search.latency import LatencyTable, MemoryTable, measured_latency
from tfprune.search.result import Candidate, Keeping, SearchResult
from tfprune.search.settings import Settings
from tfprune.search.workers import Measured, Workers

BATCH_SIZE = 256
CHECKED = 8  # candidates of the front whose latency is measured on whole files
THINNINGS = 300  # steps of 2 % of the genes, after which a budget is taken to be out of reach


class Ended(Exception):  # noqa: N818  (no error: the way out of any depth of a strategy)
    """A limit of the search is reached."""


class Material(NamedTuple):
    """What candidates are measured and trained on, in batches.

    Attributes:
        validation: With targets, where objectives need them.
        calibration: Inputs for the statistics of batch norm; none where these stay.
        training: One batch a step; none without training.
    """

    validation: Sequence[Batch]
    calibration: Sequence[Batch]
    training: Sequence[Batch]


class Problem:
    """What is searched, and what is known of it so far.

    Args:
        settings: What the search is told.
        model: The unpruned model.
        data: Validation data.
        journal: Path of the journal, None for none.
        recalibrate, train, verbose: See `genetic_search`.
    """

    def __init__(
        self,
        settings: Settings,
        model: keras.Model,
        data: Any,
        journal: Any = None,
        recalibrate: Any = None,
        train: Any = None,
        verbose: int = 1,
    ):
        check_model(model, "search in")
        if settings.genome != "weights":
            model = inlined(model, "Searching for channels", has_rule)
        self.settings, self.model, self.verbose = settings, model, verbose
        validation = list(batches(data, model, settings.strategy, BATCH_SIZE))
        if settings.measured & {"metric", "metrics"}:
            self.settings = settings = settings.settled(metrics_of(model, validation, settings.judged))
        with shown(verbose):
            self.genome = make_genome(settings, model, data)
        calibration: Any = []
        if recalibrate is not None and recalibrate is not False:
            read = validation if recalibrate is True else batches(recalibrate, model, "recalibrate", BATCH_SIZE)
            calibration = [Batch(batch.inputs) for batch in read]
        training = training_batches(train, settings.fine_tune, model, settings.seed)
        self.samples = Material(validation, calibration, training)
        self.evaluated: list[Candidate] = []
        self.cached = 0
        self._by_genes: dict[Genes, Candidate] = {}
        self._began = time.monotonic()
        self.journal = None if journal is None else Journal(journal, self._header())
        latency = self._latency() if "latency" in settings.measured else None
        self.fitness = fitness_of(settings, model, self.genome, self.samples, latency)
        self._workers: Workers | None = None
        if settings.workers > 1:
            table = None if latency is None else latency.to_dict()
            self._workers = Workers(settings.workers, remote_fitness, (settings, model, self.samples, table))
        self._stage: Stage | None = None
        self.dense = self._evaluated_dense()
        self.judgement = goals.Judgement(settings.objectives, settings.budget or {}, self.dense.figures)

    def _header(self) -> dict[str, Any]:
        """All that the figures of a candidate depend on."""
        settings, samples = self.settings, self.samples
        judged = any(each.judged is not None for each in settings.objectives)
        trains = judged or "loss" in settings.measured or samples.training
        return {
            "model": model_fingerprint(self.model),
            "data": data_fingerprint(samples.validation),
            "recalibrate": data_fingerprint(samples.calibration) if samples.calibration else None,
            "fine_tune": [len(samples.training), data_fingerprint(samples.training)] if samples.training else None,
            **settings.header(),
            "layers": self.genome.parts,
            "compiled": compiled_fingerprint(self.model) if trains else None,
        }

    def evaluate(self, asked: Sequence[Genes]) -> list[Candidate]:
        """The candidates of these genes; those that are new are measured.

        Raises:
            Ended: The limit of evaluations or of time is reached; what was measured till then is kept.
        """
        with contextlib.ExitStack() as stack:
            stream: Iterator[Measured] | None = None
            for place, genes in enumerate(asked):
                if genes in self._by_genes:
                    self.cached += 1
                    continue
                self._check_limits()
                if self._workers is None or self._noted(genes):
                    self._add(genes, *self._measured(genes))
                    continue
                if stream is None:
                    stream = stack.enter_context(contextlib.closing(self._workers(self._new(asked[place:]))))
                self._add(genes, *next(stream))
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

    def standing(self, candidate: Candidate) -> goals.Standing:
        """How good a candidate is, to be compared with that of others."""
        return self.judgement.standing(candidate.figures)

    def run(self, strategy: Callable[[], str], expected: int | None = None) -> SearchResult:
        """Lets a strategy ask for candidates, `expected` at most, until it says why it ends, or a limit is reached."""
        limits = [each for each in (self.settings.evaluations, expected) if each is not None]
        with shown(self.verbose), stage(self.settings.description, min(limits, default=None)) as self._stage:
            try:
                reason = strategy()
            except Ended as limit:
                reason = str(limit)
        return self.result(reason)

    def result(self, reason: str) -> SearchResult:
        """What was found."""
        front = self.front()
        return SearchResult(
            front=front,
            best=max(front, key=self.standing),
            dense=self.dense,
            evaluated=tuple(self.evaluated),
            meets_budget=self.judgement.excess(front[0].figures) == 0.0,
            reason=reason,
            seed=self.settings.seed,
            seconds=time.monotonic() - self._began,
            cached=self.cached,
            strategy=self.settings.strategy,
            model=self.model,
            genome=self.genome,
            judgement=self.judgement,
            calibration=self.fitness.calibration,
            training=self.fitness.training,
            notices=[*(self.journal.notes if self.journal else []), *self.fitness.notes],
            checks=self._checks(front),
        )

    def front(self) -> list[Candidate]:
        """The candidates that none beats in every objective, the best in the first objective first."""
        known = [candidate for candidate in self.evaluated if candidate.failure is None]
        nearest = min(known, key=lambda candidate: self.judgement.excess(candidate.figures))
        if self.judgement.excess(nearest.figures):  # nothing meets the budget
            return [nearest]
        best: dict[tuple[float, ...], Candidate] = {}
        for candidate in known:
            if not self.judgement.excess(candidate.figures):
                best.setdefault(self.judgement.merits(candidate.figures), candidate)
        front: list[Candidate] = []
        beyond: list[tuple[float, ...]] = []
        for merits in sorted(best, reverse=True):  # whoever beats it comes before it
            if not any(all(mine <= other for mine, other in zip(merits, kept)) for kept in beyond):
                beyond.append(merits)
                front.append(best[merits])
        return front

    def _latency(self) -> LatencyTable:
        """The latency table; that of a journal is taken up, so that figures agree."""
        known = self.journal.known.pop(TABLE, None) if self.journal else None
        if known is not None:
            return LatencyTable.from_dict(known, self.model, self.genome)
        table = LatencyTable.measured(self.model, self.genome, self._images())
        if self.journal is not None:
            self.journal.add(TABLE, table.to_dict())
            self.journal.known.pop(TABLE)
        return table

    def _checks(self, front: Sequence[Candidate]) -> dict[int, dict[str, float]]:
        """The latency of candidates of the front as whole files, evenly over the front where there are many."""
        if "latency" not in self.fitness.tables:
            return {}
        chosen = front[:: -(-len(front) // CHECKED)]
        models = {}
        for candidate in chosen:
            keep = Keeping(self.genome.keep(candidate.genes))  # type: ignore[attr-defined]
            models[candidate.number] = shrink(self.model, plan_shrink(self.model, keep))
        return {number: {"latency": ms} for number, ms in measured_latency(models, self._images()).items()}

    def _images(self) -> Any:
        return keras.tree.map_structure(lambda array: np.asarray(array)[:100], self.samples.validation[0].inputs)

    def _measured(self, genes: Genes) -> tuple[dict[str, float], str | None]:
        known = self.journal.known.get(self.genome.text(genes)) if self.journal else None
        if known is not None:
            return known["figures"], known["failure"]
        try:
            return self.fitness(genes), None
        except FitnessError as error:
            return {}, str(error)

    def _noted(self, genes: Genes) -> bool:
        """Whether the journal has the figures of a candidate."""
        return self.journal is not None and self.genome.text(genes) in self.journal.known

    def _new(self, asked: Sequence[Genes]) -> list[Genes]:
        """The candidates among these that have to be measured, as far as the limit of evaluations goes."""
        new = [each for each in dict.fromkeys(asked) if each not in self._by_genes and not self._noted(each)]
        limit = self.settings.evaluations
        return new if limit is None else new[: limit + 1 - len(self.evaluated)]

    def _add(self, genes: Genes, figures: Mapping[str, float], failure: str | None) -> Candidate:
        if self.journal is not None:
            self.journal.add(self.genome.text(genes), {"figures": dict(figures), "failure": failure})
        candidate = Candidate(len(self.evaluated), genes, dict(figures), failure)
        self.evaluated.append(candidate)
        self._by_genes[genes] = candidate
        if self._stage is not None:
            self._stage.advance()
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
        limit, seconds = self.settings.evaluations, self.settings.seconds
        if limit is not None and len(self.evaluated) > limit:
            raise Ended(f"{limit} evaluations")
        if seconds is not None and time.monotonic() - self._began > seconds:
            raise Ended(f"{seconds:g} seconds")


def make_genome(settings: Settings, model: keras.Model, data: Any) -> Genome:
    """What candidates of a search are made of."""
    return genomes.make(settings.genome, model, settings.criterion, settings.layers, settings.pattern, data)


def fitness_of(
    settings: Settings, model: keras.Model, genome: Genome, samples: Material, latency: LatencyTable | None
) -> Fitness:
    """What measures the candidates of a search."""
    tables: dict[str, Any] = {} if latency is None else {"latency": latency}
    if "memory" in settings.measured:
        tables["memory"] = MemoryTable(model, genome)
    return Fitness(
        model, genome, samples.validation, settings.objectives, settings.budget or {}, samples.calibration, tables,
        samples.training,
    )  # fmt: skip


def remote_fitness(
    settings: Settings, model: keras.Model, samples: Material, latency: Mapping[str, Any] | None
) -> Fitness:
    """The fitness of a search, made anew in a worker from what can be sent there."""
    with shown(verbose=0):
        genome = make_genome(settings, model, samples.validation)
    table = None if latency is None else LatencyTable.from_dict(latency, model, genome)
    return fitness_of(settings, model, genome, samples, table)
