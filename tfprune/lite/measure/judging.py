"""The metrics of a model and of its file over all samples, beside what the comparison of their answers tells."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.model.data import Batch, joined
from tfprune.model.hooks import compile_arguments
from tfprune.model.metrics import found_metrics
from tfprune.model.signature import output_names


class Judging:
    """Keeps what both models answered where a metric needs all of it together."""

    def __init__(self, model: keras.Model, metric: Any, mode: Any):
        self._model, self._metric, self._mode = model, metric, mode
        self.strict = metric is None  # labels that fit no decision may be for the metric alone
        compiled = bool(getattr(model, "compiled", False)) and compile_arguments(model).get("metrics")
        self._wanted = metric is not None or bool(compiled)
        self._outputs: Any = None
        self._batches: list[Batch] = []
        self._answers: list[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]] = []

    def add(self, batch: Batch, outputs: Any, expected: Any, answers: Any, truth: Sequence[Any]) -> None:
        """Takes in one batch: its samples, what both answered, and the labels of each output."""
        has_labels = any(each is not None for each in truth)
        self._wanted = self._wanted and (has_labels or self._metric is not None)
        if not self._wanted:
            return
        named = dict(zip(output_names(self._model, outputs), truth)) if isinstance(outputs, Mapping) else list(truth)
        targets = (truth[0] if len(truth) == 1 else named) if has_labels else None
        self._outputs = outputs
        self._batches.append(Batch(batch.inputs, targets, batch.weights))
        self._answers.append((expected, answers))

    def result(self) -> tuple[dict[str, tuple[float, float]], tuple[str, ...]]:
        """The metrics of both but for those that the comparison tells anyway, and what could not be measured."""
        if not self._wanted:
            return {}, ()
        both = [joined([list(pair[side]) for pair in self._answers]) for side in (0, 1)]
        try:
            found = found_metrics(
                self._model, self._batches, self._metric, self._mode, both[0], "verify()", self._outputs
            )
            told = [each for each in found if self._metric is not None or not each.is_share]
            return {each.name: (each(both[0]), each(both[1])) for each in told}, ()
        except PruningError as error:
            if self._metric is not None:
                raise
            return {}, (f"Not measured by the metrics that the model is compiled with: {error}",)
