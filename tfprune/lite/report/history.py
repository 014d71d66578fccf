"""The history of training on the page, and the other results that are shown there."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from tfprune.errors import PruningError
from tfprune.model.drawing import as_shares, draw_curves
from tfprune.report import Column, Report, new_figure, saved


@dataclass(frozen=True, repr=False)
class History(Report):
    """The logs of a training, epoch by epoch.

    Args:
        epochs: Their numbers.
        logs: Values by name.
    """

    title: ClassVar[str] = "History of training"

    epochs: Sequence[int]
    logs: Mapping[str, Sequence[float]]

    @property
    def columns(self) -> Sequence[Column]:  # type: ignore[override]
        """A column for each value."""
        return [Column("epoch", "epoch"), *(Column(name, name, ".4g") for name in self.logs)]

    def rows(self) -> list[dict[str, Any]]:
        return [
            {"epoch": epoch, **dict(zip(self.logs, each))} for epoch, *each in zip(self.epochs, *self.logs.values())
        ]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws losses beside what are shares, such as accuracy and sparsity."""
        shares = {
            name for name, values in self.logs.items() if "loss" not in name and 0 <= min(values) <= max(values) <= 1
        }
        parts = [
            {name: values for name, values in self.logs.items() if (name in shares) is wanted}
            for wanted in (False, True)
        ]
        parts = [part for part in parts if part]
        figure = new_figure(5 * len(parts), 4)
        for axes, part in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts):
            draw_curves(axes, self.epochs, part, {})
            axes.set_xlabel("epoch")
            axes.set_xticks(self.epochs[:: 1 + len(self.epochs) // 12])
            axes.legend(fontsize=8)
            if set(part) <= shares:
                as_shares(axes.yaxis)
        figure.suptitle(self.title)
        return saved(figure, path)


def shown_results(results: Any, model: keras.Model) -> list[Report]:
    """What the caller wants to be on the page too, and the history of the model's last training.

    Raises:
        PruningError: Something is neither a result of tfprune nor a history of Keras.
    """
    given = list(results) if isinstance(results, Sequence) and not isinstance(results, (str, bytes)) else [results]
    if not any(isinstance(each, keras.callbacks.History) for each in given):
        given.append(getattr(model, "history", None))
    found: list[Report] = []
    for each in given:
        if isinstance(each, keras.callbacks.History):
            if each.history:
                found.append(History(each.epoch, each.history))
        elif isinstance(each, Report):
            found.append(each)
        elif each is not None:
            raise PruningError(
                f"report: results= holds {type(each).__name__}; give what sensitivity, a search, compress or benchmark "
                "returned, or the History of fit."
            )
    return found
