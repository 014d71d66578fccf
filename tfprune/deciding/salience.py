"""Importance from data: criteria that look at gradients, curvature or activations besides the weight.

Scores by gradients are shares of one loss, so they are on one scale in all layers: for weights, give them
`allocation="global"`. LAMP is made for magnitudes, and does for those by activations, such as Wanda.

What a criterion `needs` is gathered in one pass over the data that `prune(model, method, data)` is given, and comes to
it in the context's extras, arrays of the weight's shape. Movement is gathered by `fit` as it trains.
"""

from typing import Any

import keras
import numpy as np

from tfprune.deciding.criterion import Context, Criterion, needed
from tfprune.deciding.statistics import (
    ChannelOutput,
    Curvature,
    GradientFlow,
    InputScale,
    MeanGradient,
    MeanSquaredGradient,
    PathFlow,
    WeightMovement,
)
from tfprune.deciding.tasks import TaskGradients, shares_of
from tfprune.errors import PruningError, nearest

MEASURES = ("mean", "nonzero", "percentile")


class DataCriterion(Criterion):
    """Base of the criteria that need a pass over data.

    Attributes:
        needs: The statistic that it looks at, which the pass gathers.

    Args:
        loss: The loss, a Keras name, object or function `(targets, outputs) -> loss`. Defaults to None: the one that
            the model is compiled with.
    """

    needs: Any = None

    def __init__(self, loss: Any = None):
        self.loss = loss

    def statistic(self, context: Context) -> np.ndarray:
        """What was gathered for the weight.

        Raises:
            PruningError: Nothing was: the method is used without data.
        """
        needs = needed(self)
        if needs is None or needs.name not in context.extras:
            raise PruningError(self.missing(context.key))
        return context.extras[needs.name]

    def missing(self, key: str) -> str:
        """What to do where nothing was gathered for a weight."""
        name = "statistic" if self.needs is None else self.needs.name.replace("_", " ")
        return (
            f"{self!r} needs the {name} of '{key}', which only a pass over data gives. "
            "Write tfprune.prune(model, method, data=(x, y)); fit cannot use it."
        )

    def arguments(self) -> dict[str, Any]:
        # Losses of Keras do not compare by value; their configs do.
        return {} if self.loss is None else {"loss": keras.saving.serialize_keras_object(self.loss)}


class GradientNorm(DataCriterion):
    """The size of the gradient of the loss; over blocks and channels the root of the sum of squares.

    >>> GradientNorm()(np.array([5.0]), Context(extras={"gradient": np.array([-3.0])}))
    array([9.])
    """

    needs = MeanGradient

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return np.square(self.statistic(context))

    def total(self, summed: np.ndarray) -> np.ndarray:
        return np.sqrt(summed)


class Taylor(DataCriterion):
    """How much the loss changes when the entry goes, to first order: |weight x gradient|.

    Molchanov et al., "Importance estimation for neural network pruning", 2019 (https://arxiv.org/abs/1906.10771).

    >>> Taylor()(np.array([2.0]), Context(extras={"gradient": np.array([-3.0])}))
    array([6.])
    """

    needs = MeanGradient

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return np.abs(weight * self.statistic(context))


class Snip(Taylor):
    """Connection sensitivity, |weight x gradient|, meant for a network before training, on one batch.

    Lee et al., "SNIP: single-shot network pruning based on connection sensitivity", 2019
    (https://arxiv.org/abs/1810.02340). Use it with `allocation="global"`.
    """


class NormalizedSensitivity(DataCriterion):
    """The size of the gradient over the root of the sum of squares of all gradients of the weight.

    >>> NormalizedSensitivity()(np.ones(2), Context(extras={"gradient": np.array([-3.0, 4.0])}))
    array([0.6, 0.8])
    """

    needs = MeanGradient

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        gradient = np.abs(self.statistic(context))
        length = np.sqrt(np.sum(np.square(gradient)))
        return gradient / length if length > 0 else gradient


class Fisher(DataCriterion):
    """Half the squared weight times its mean squared gradient: the rise of the loss by the empirical Fisher matrix.

    The squares are those of batches, so give small batches. Theis et al., "Faster gaze prediction with dense networks
    and Fisher pruning", 2018 (https://arxiv.org/abs/1801.05787).

    >>> Fisher()(np.array([2.0]), Context(extras={"squared_gradient": np.array([3.0])}))
    array([6.])
    """

    needs = MeanSquaredGradient

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return 0.5 * np.square(weight) * self.statistic(context)


class MultiTask(DataCriterion):
    """For models of several outputs: the rise of each output's loss when the entry goes, added up on one scale.

    The rise is the squared weight times the mean squared gradient of that loss alone, as in `Fisher`, over the rise
    that all weights shared with other outputs stand for together. So no output decides by the size of its loss, which a
    unit or a loss weight may change; `weights` say what each is worth. The squares are of batches, so give small ones.

    Args:
        weights: Name of an output -> its part, 0 or more; 1 for those that are not named. Defaults to None: all alike.
        loss: Name of an output -> its loss, or one loss for all. Defaults to None: those that the model is compiled
            with, whose loss weights do not count here.

    Raises:
        PruningError: Weights that are none, or for an output that is not there; an output without loss or targets.

    Theis et al., as for `Fisher`, for each loss; that gradients of tasks be normalised before they are added up, after
    Chen et al., "GradNorm: gradient normalization for adaptive loss balancing in deep multitask networks", 2018
    (https://arxiv.org/abs/1711.02257).

    >>> MultiTask({"kind": 2.0})(np.array([2.0]), Context(extras={"task_gradients": np.array([3.0])}))
    array([12.])
    """

    needs = TaskGradients

    def __init__(self, weights: Any = None, loss: Any = None):
        super().__init__(loss)
        self.weights = shares_of(weights)

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return np.square(weight) * self.statistic(context)

    def arguments(self) -> dict[str, Any]:
        return {**({} if self.weights is None else {"weights": self.weights}), **super().arguments()}


class Hessian(DataCriterion):
    """Half the squared weight times the curvature of the loss: optimal brain damage.

    The curvature is the diagonal of the Hessian, estimated by Hutchinson's method with one random vector of signs for
    each batch. LeCun et al., "Optimal brain damage", 1989.

    >>> Hessian()(np.array([2.0]), Context(extras={"curvature": np.array([3.0])}))
    array([6.])
    """

    needs = Curvature

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return 0.5 * np.square(weight) * self.statistic(context)


class Grasp(DataCriterion):
    """The weight times (Hessian x gradient): what keeps gradients flowing, for a network before training.

    Wang et al., "Picking winning tickets before training by preserving gradient flow", 2020
    (https://arxiv.org/abs/2002.07376). Use it with `allocation="global"`.

    >>> Grasp()(np.array([2.0]), Context(extras={"gradient_flow": np.array([-3.0])}))
    array([-6.])
    """

    needs = GradientFlow

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return weight * self.statistic(context)


class SynapticFlow(DataCriterion):
    """The share of an entry in all paths from input to output, with absolute weights; needs no data.

    Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow", 2020
    (https://arxiv.org/abs/2006.05467), here in one step. Use it with `allocation="global"`.

    >>> SynapticFlow()(np.array([-2.0]), Context(extras={"synaptic_flow": np.array([3.0])}))
    array([6.])
    """

    needs = PathFlow

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return np.abs(weight * self.statistic(context))


class Wanda(DataCriterion):
    """The magnitude times the root mean square of the input that the entry is multiplied with; needs no labels.

    Sun et al., "A simple and effective pruning approach for large language models", 2023
    (https://arxiv.org/abs/2306.11695), where entries of one output compete; here those of the weight do.

    >>> Wanda()(np.array([-2.0]), Context(extras={"input_scale": np.array([3.0])}))
    array([6.])
    """

    needs = InputScale

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return np.abs(weight) * self.statistic(context)


class Activation(DataCriterion):
    """For channels and neurons: what comes out of them, shared evenly among the entries that make it.

    The output is that of the layer, or of the batch norm and activation right behind it. Needs no labels.

    Args:
        measure: `"mean"` (default): the mean absolute output. `"nonzero"`: the share of outputs that are not zero,
            that is one minus the average percentage of zeros; without an activation, outputs below zero count as zeros
            too, as a ReLU would make them. `"percentile"`: the percentile of the
            absolute outputs, the mean over batches of that in each batch.
        percentile: Which one, in [0, 100]. Defaults to `90.0`.

    Raises:
        PruningError: An unknown measure, or a percentile out of its range.

    Hu et al., "Network trimming: a data-driven neuron pruning approach", 2016 (https://arxiv.org/abs/1607.03250).

    >>> Activation("percentile", 95.0)
    Activation(measure='percentile', percentile=95.0)
    """

    needs = ChannelOutput

    def __init__(self, measure: str = "mean", percentile: float = 90.0):
        super().__init__()
        if measure not in MEASURES:
            known = nearest(str(measure), MEASURES)
            raise PruningError(f"Activation: there is no measure {measure!r}. {known}")
        if isinstance(percentile, bool) or not 0.0 <= percentile <= 100.0:
            raise PruningError(f"Activation: percentile={percentile!r} is not in [0, 100]; write 90.0, say.")
        self.measure, self.percentile = measure, float(percentile)

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return self.statistic(context)

    def arguments(self) -> dict[str, Any]:
        return {"measure": self.measure, "percentile": self.percentile}


class Movement(DataCriterion):
    """How far training pushes an entry away from zero: minus weight x gradient, summed over the steps of `fit`.

    Entries that training brings nearer to zero go first, however large they are: made for fine-tuning a model that was
    trained on something else. Use it with `allocation="uniform"` or `"global"`, since scores may be negative.
    Sanh et al., "Movement pruning: adaptive sparsity by fine-tuning", 2020 (https://arxiv.org/abs/2005.07683), here
    with entries that are gone staying gone.

    >>> Movement()(np.array([2.0]), Context(extras={"movement": np.array([-3.0])}))
    array([-3.])
    """

    needs = WeightMovement

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return self.statistic(context)

    def missing(self, key: str) -> str:
        return (
            f"{self!r} adds up what happens in training, and there was no step of it yet for '{key}'. "
            'Write model.fit(..., callbacks=[tfprune.PercentilePruning(0.8, criterion="movement")]), with a '
            "schedule that prunes nothing at the first step."
        )
