"""What a criterion is: scores of the entries of a weight, and the statistic that it needs for them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune.deciding.configured import Configured
from tfprune.errors import PruningError, answer_of
from tfprune.model.data import Batch, real_array
from tfprune.model.prunable import PrunableWeight


@dataclass(frozen=True)
class Context:
    """What a criterion may look at besides the weight.

    Args:
        key: The weight's place in the model, such as `"conv1/kernel"`.
        extras: What a pass over data gathered for this weight, by name (`"gradient"`, `"activation"`, ...).
    """

    key: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)


class Statistic:
    """What criteria look at besides the weights, measured over data; a criterion names the class that it `needs`.

    It is built for some weights of a model, and called with every batch. Its answers are averaged, each batch by its
    number of samples, and `finish` makes of the averages what the criterion is given: arrays of the weights' shapes.

    Args:
        model: A copy of the user's model, which may be changed.
        weights: Some of its weights.
        criterion: Whose statistic it is.

    Attributes:
        name: Where a criterion finds it among the `extras` of its context.
        reads_data: Whether there are batches to read; without, `finish` is given nothing.
    """

    name: str = ""
    reads_data: bool = True

    def __init__(self, model: keras.Model, weights: Sequence[PrunableWeight], criterion: "Criterion"):
        self.model, self.weights, self.criterion = model, weights, criterion
        self.prepare()

    def prepare(self) -> None:
        """Readies what does not depend on the batches; raises where the statistic is not defined."""

    def __call__(self, batch: Batch) -> list[np.ndarray]:
        """The mean over the samples of a batch, an array for each weight."""
        raise NotImplementedError

    def finish(self, means: list[np.ndarray]) -> list[np.ndarray]:
        """An array of its shape for each weight, from the means over all samples."""
        return [mean.astype(np.float32) for mean in means]


class TrainingStatistic(Statistic):
    """What criteria look at while `fit` trains: a state of each weight, zeros at first, that follows the gradients."""

    @staticmethod
    def update(state: Any, gradient: Any, value: Any) -> Any:
        """The state after a step, from that before, the gradient, and the weight's value before the step."""
        raise NotImplementedError


class Criterion(Configured):
    """Base of every criterion: entries that add up, and the score of a sum.

    Attributes:
        reads: Where a channel's importance is read: in the `"kernels"` that make it (default), or in the `"gamma"` of
            the batch norm after it.
        needs: The statistic that it looks at besides the weight. Defaults to None: nothing.
    """

    reads: str = "kernels"
    needs: "type[Statistic] | None" = None

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        """The additive importance of every entry, an array of the weight's shape."""
        raise NotImplementedError

    def total(self, summed: np.ndarray) -> np.ndarray:
        """The score of entries whose sum is given; single entries are sums of one."""
        return summed

    def channels(self, weights: np.ndarray, entries: np.ndarray) -> np.ndarray:
        """The additive score of every channel of one weight.

        Args:
            weights: Array `[channels, entries per channel]` of the weight.
            entries: What `__call__` gave for them, in the same order.
        """
        return entries.sum(axis=1)


class CriterionFunction(Criterion):
    """A plain function of the user's as a criterion; `get` makes it.

    Args:
        function: Takes the weight, or the weight and a `Context`; gives additive scores of the weight's shape.
    """

    def __init__(self, function: Callable[..., np.ndarray]):
        self.function = function

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        name = f"The criterion {getattr(self.function, '__name__', self.function)}"
        arguments = (weight, context) if self._takes_context() else (weight,)
        given = answer_of(f"{name} for '{context.key}'", self.function, *arguments)
        scores = real_array(given, f"The scores that {name[4:]} gave for '{context.key}'")
        scores = scores.astype(np.result_type(scores, np.float32), copy=False)
        if scores.shape != weight.shape:
            raise PruningError(
                f"{name} gave scores of shape "
                f"{scores.shape} for '{context.key}' of shape {weight.shape}; give one score for each entry."
            )
        return scores

    def _takes_context(self) -> bool:
        """Whether the function needs two arguments; one with a default is the user's own option."""
        try:
            parameters = inspect.signature(self.function).parameters.values()
        except ValueError:  # functions written in C may not tell
            return False
        needed = [
            p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        return len(needed) > 1


def needed(criterion: Criterion) -> type[Statistic] | None:
    """The statistic that a criterion needs; None where it looks at weights alone.

    Raises:
        PruningError: It names something else.
    """
    needs = criterion.needs
    if needs is None or (isinstance(needs, type) and issubclass(needs, Statistic)):
        return needs
    raise PruningError(
        f"{criterion!r} needs {needs!r}, which is no statistic; write a class of tfprune.deciding.statistics, such as "
        "needs = MeanGradient, or one of your own built on Statistic."
    )
