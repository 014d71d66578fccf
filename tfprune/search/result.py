"""What a search found: the front, the best candidate, and how to make a model of one."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune.channels.plan import ShrinkPlan, plan_shrink
from tfprune.errors import PruningError, in_plot
from tfprune.model.copying import clone_with_weights
from tfprune.model.data import Batch
from tfprune.model.drawing import as_shares, counted
from tfprune.model.state import carry_state
from tfprune.oneshot.repair.batch_norm import recalibrate
from tfprune.report import COLOURS, Column, Report, new_figure, saved
from tfprune.search.fine_tuning import FineTuning
from tfprune.search.genome import ChannelGenome, Genes, Genome
from tfprune.search.objectives import QUALITIES, Judgement
from tfprune.training.masks import apply_masks

FORMS = {"accuracy": ".2%", "f1": ".4f", "loss": ".4f", "metric": ".4g", "latency": ".4f"}
HEADINGS = {"macs": "MACs", "latency": "ms (by table)", "f1": "F1", "memory": "memory, bytes"}


@dataclass(frozen=True)
class Candidate:
    """One evaluated candidate.

    Attributes:
        number: Its place among the evaluations; 0 is the unpruned model.
        genes: A bit per channel or weight (1 = kept), or the share removed per layer.
        figures: Objectives and costs by name; empty where it failed.
        failure: Why it has no figures; None where it has.
    """

    number: int
    genes: Genes
    figures: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None

    def __getitem__(self, name: str) -> float:
        return self.figures[name]


@dataclass(frozen=True, repr=False)
class SearchResult(Report):
    """What a search found; prints as a table of its front.

    Attributes:
        front: The candidates that none beats in every objective, by the first objective, best first; one candidate
            for a single objective.
        best: The candidate of the front with the best weighted sum of the objectives.
        dense: The unpruned model.
        evaluated: Every candidate, in the order of evaluation.
        meets_budget: Whether the front keeps the budget; False where nothing that was found does.
        reason: Why the search ended.
        seed: Its seed.
        seconds: How long it took.
        cached: How often a candidate had been evaluated before.
        checks: For measured costs, the figure of the built model beside that of the table, by number of the candidate.
    """

    title = "Search"

    front: Sequence[Candidate]
    best: Candidate
    dense: Candidate
    evaluated: Sequence[Candidate]
    meets_budget: bool
    reason: str
    seed: int
    seconds: float
    cached: int
    strategy: str
    model: keras.Model
    genome: Genome
    judgement: Judgement
    calibration: Sequence[Batch] = ()
    training: Sequence[Batch] = ()
    notices: Sequence[str] = ()
    checks: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    @property
    def columns(self) -> Sequence[Column]:  # type: ignore[override]
        """The candidate's number and its figures; costs also as shares of the unpruned model's."""
        columns = [Column("candidate", "candidate")]
        for name in dict.fromkeys([*(each.name for each in self.judgement.objectives), *self.dense.figures]):
            columns.append(
                Column(name, HEADINGS.get(name, name), FORMS.get(name, ",.4g" if self._is_own(name) else ",.0f"))
            )
            if not self._is_quality(name):
                columns.append(Column(f"{name}_share", "of unpruned", ".3f"))
        columns += [Column(f"measured_{name}", f"{name}, measured", ".4f") for name in self._checked()]
        return columns

    def rows(self) -> list[dict[str, Any]]:
        return [self._row(candidate) for candidate in self.front]

    def notes(self) -> list[str]:
        failed = [candidate for candidate in self.evaluated if candidate.failure]
        notes = [
            f"{self.strategy}: {len(self.evaluated)} candidates evaluated, {self.cached} more times one that was known;"
            f" {self.seconds:.1f} s; seed {self.seed}. Ended: {self.reason}.",
            "Unpruned: " + ", ".join(f"{name} {value:,.6g}" for name, value in self.dense.figures.items()) + ".",
            f"Best by weighted sum: candidate {self.best.number}.",
        ]
        if not self.meets_budget:
            wanted = ", ".join(f"{name} {share:g}" for name, share in self.judgement.budget.items())
            notes.append(
                f"NO CANDIDATE MEETS THE BUDGET ({wanted} of the unpruned model's); this is the nearest found."
            )
        if failed:
            notes.append(
                f"{len(failed)} candidates have no figures; the first, {failed[0].number}: {failed[0].failure}."
            )
        return [*notes, *self.notices]

    def to_dict(self) -> dict[str, Any]:
        return {
            **super().to_dict(),
            "best": self.best.number,
            "meets_budget": self.meets_budget,
            "dense": dict(self.dense.figures),
            "seed": self.seed,
            "evaluations": len(self.evaluated),
            "seconds": self.seconds,
            "genes": {candidate.number: self.genome.text(candidate.genes) for candidate in self.front},
        }

    def apply(self, candidate: Candidate | int | None = None) -> keras.Model:
        """A new model with a candidate's masks held; further training keeps them.

        Args:
            candidate: One of the result's, or its number. Defaults to None: the best.

        Returns:
            The masked model; for channels `shrink(strip_masks(...))` makes it small.
        """
        masks = self.genome.masks(self._candidate(candidate).genes)
        model = apply_masks(clone_with_weights(self.model), masks)
        if self.training:
            trained = clone_with_weights(model)  # the optimizer of the result stays as new
            FineTuning(trained, self.training)(masks)
            carry_state(trained, model)
        if self.calibration:
            recalibrate(model, self.calibration)
        return model

    def plan(self, candidate: Candidate | int | None = None) -> ShrinkPlan:
        """The channels that a candidate keeps, as a plan for `shrink(model, plan)`.

        Args:
            candidate: One of the result's, or its number. Defaults to None: the best.

        Raises:
            PruningError: The genome does not remove channels.
        """
        if not isinstance(self.genome, ChannelGenome):
            raise PruningError("genome='weights' removes no channels, so there is nothing to shrink; use .apply().")
        return plan_shrink(self.model, Keeping(self.genome.keep(self._candidate(candidate).genes)))

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws every candidate and the front over the first two objectives; a single one over the evaluations.

        Args:
            path: Where to save the picture. Defaults to None: nowhere.

        Returns:
            The matplotlib figure.
        """
        figure = new_figure(9, 5)
        axes = figure.subplots()
        names = [objective.name for objective in self.judgement.objectives]
        up, across = names[0], names[1] if len(names) > 1 else "evaluation"

        def points(candidates: Sequence[Candidate]) -> tuple[list[float], list[float]]:
            known = [each for each in candidates if each.failure is None]
            return [each.number if len(names) == 1 else each[across] for each in known], [each[up] for each in known]

        front = sorted(self.front, key=lambda each: each[across] if len(names) > 1 else 0)
        axes.scatter(*points(self.evaluated), s=10, color=COLOURS[6], label="evaluated")
        axes.plot(*points(front), "o-", color=COLOURS[0], label="front")
        axes.plot(*points([self.dense]), "s", color=COLOURS[3], markersize=9, label="unpruned")
        best = f"picked: candidate {self.best.number}"
        axes.plot(*points([self.best]), "*", color=COLOURS[1], markersize=17, markeredgecolor=COLOURS[0], label=best)
        for axis, name in ((axes.xaxis, across), (axes.yaxis, up)):
            axis.set_label_text(in_plot({**HEADINGS, "macs": "MACs of one sample"}.get(name, name)))
            if name == "accuracy":
                as_shares(axis)
            elif name in ("macs", "parameters", "memory"):
                axis.set_major_formatter(counted())
        axes.set_title(self.title)
        figure.legend(loc="outside right upper", fontsize=8)
        return saved(figure, path)

    def _candidate(self, candidate: Candidate | int | None) -> Candidate:
        if candidate is None:
            return self.best
        if isinstance(candidate, Candidate):
            if len(candidate.genes) != self.genome.size:
                raise PruningError(
                    f"This candidate has {len(candidate.genes)} genes and the search {self.genome.size}: it is of "
                    "another search."
                )
            return candidate
        if not 0 <= candidate < len(self.evaluated):
            raise PruningError(f"There is no candidate {candidate}; they are numbered 0 to {len(self.evaluated) - 1}.")
        return self.evaluated[candidate]

    def _row(self, candidate: Candidate) -> dict[str, Any]:
        row: dict[str, Any] = {"candidate": candidate.number, **candidate.figures}
        for name, value in candidate.figures.items():
            if not self._is_quality(name):
                row[f"{name}_share"] = value / self.dense[name] if self.dense[name] else None
        row.update({f"measured_{name}": value for name, value in self.checks.get(candidate.number, {}).items()})
        return row

    def _checked(self) -> list[str]:
        return list(dict.fromkeys(name for figures in self.checks.values() for name in figures))

    def _is_own(self, name: str) -> bool:
        known = [each for each in self.judgement.objectives if each.name == name]
        return any(each.function is not None or each.judged is not None for each in known)

    def _is_quality(self, name: str) -> bool:
        return name in QUALITIES or self._is_own(name)


class Keeping:
    """Channels that are chosen already, in the form that `plan_shrink` takes."""

    def __init__(self, keep: Mapping[str, np.ndarray]):
        self._keep = dict(keep)

    def channels_to_keep(self, model: Any, groups: Any, data: Any = None) -> dict[str, np.ndarray]:
        """Those channels, whatever the model."""
        return self._keep
