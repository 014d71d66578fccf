"""Hybrid pruning: channels first, then weights of what is left."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import keras

from tfprune.channels import shrink
from tfprune.deciding import methods
from tfprune.deciding.methods import Percentile, Threshold
from tfprune.deciding.structured import Structured
from tfprune.errors import PruningError
from tfprune.model.summary import Summary, summary
from tfprune.model.tree import check_model
from tfprune.oneshot.prune import Pruning, prune
from tfprune.report import Column, Report
from tfprune.training.strip import strip_masks


@dataclass(frozen=True)
class Hybrid(Report):
    """What `prune_hybrid` did, stage by stage.

    Attributes:
        stages: A summary of the model as it was, with fewer channels, and with zeros among what is left.
        channels, weights: The reports of the two prunings.
    """

    title: ClassVar[str] = "Hybrid pruning"
    plotted: ClassVar[Sequence[str]] = ("nonzero", "macs")
    columns: ClassVar[Sequence[Column]] = (
        Column("stage", "stage"),
        Column("parameters", "parameters", ",d"),
        Column("nonzero", "non-zero", ",d"),
        Column("sparsity", "zeros in kernels", ".2%"),
        Column("macs", "MACs", ",d"),
    )

    stages: dict[str, Summary] = field(repr=False)
    channels: Pruning
    weights: Pruning

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "stage": name,
                "parameters": stage.parameters,
                "nonzero": stage.parameters - stage.zeros,
                "sparsity": stage.sparsity,
                "macs": stage.macs,
            }
            for name, stage in self.stages.items()
        ]

    def notes(self) -> list[str]:
        return [*self.channels.notes(), *self.weights.notes()]


def prune_hybrid(
    model: keras.Model, channels: Any, weights: Any, data: Any = None, reconstruct: Any = None
) -> tuple[keras.Model, Hybrid]:
    """Removes channels, then zeroes weights of the smaller model; one call, one report.

    The channels are really gone from the result; its zeros are held in any training that follows.

    Args:
        model: A functional or Sequential Keras 3 model, built; it is left as it is.
        channels: `Structured(0.3)`, its config, or a share of the channels.
        weights: `Percentile(0.8)`, `Threshold(0.05)`, ..., its config, or a sparsity of the weights that are left.
        data: Anything that `fit` takes, where a criterion or a repair needs it. Defaults to None.
        reconstruct: Repair after either stage: None (default), True, `"batch_norm"`, `"least_squares"` or `"obs"`;
            True also chooses anew which channels and entries stay.

    Returns:
        The pruned model and the report.

    Raises:
        PruningError: What `prune` and `shrink` raise, or methods in the wrong places.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> small, report = prune_hybrid(model, 0.5, 0.75)
    >>> [row["parameters"] for row in report.rows()]
    [58, 30, 30]
    >>> round(report.weights.sparsity, 2)
    0.75
    """
    check_model(model, "prune")
    first = Structured(channels) if isinstance(channels, (int, float)) else methods.get(channels)
    second = methods.get(weights)
    if not isinstance(first, Structured) or not isinstance(second, (Percentile, Threshold)):
        raise PruningError(
            f"prune_hybrid takes channels first and weights second, not {first!r} and {second!r}; write "
            "prune_hybrid(model, Structured(0.3), Percentile(0.8))."
        )
    masked, by_channels = prune(model, first, data, reconstruct, return_report=True)
    small = shrink(strip_masks(masked))
    pruned, by_weights = prune(small, second, data, reconstruct, return_report=True)
    stages = {"as given": summary(model), "fewer channels": summary(small), "zeros among the rest": summary(pruned)}
    return pruned, Hybrid(stages, by_channels, by_weights)
