"""Importance from data: criteria that look at gradients, curvature or activations besides the weight.

Scores by gradients are shares of one loss, so they are on one scale in all layers: for weights, give them
`allocation="global"`. LAMP is made for magnitudes, and does for those by activations, such as Wanda.

What a criterion `needs` is gathered in one pass over the data that `prune(model, method, data)` is given, and comes to
it in the context's extras, arrays of the weight's shape. Movement is gathered by `fit` as it trains.
"""

from typing import Any

import keras
import numpy as np

from tfprune.deciding import criteria
from tfprune.deciding.criteria import Context, Criterion
from tfprune.errors import PruningError, nearest

MEASURES = ("mean", "nonzero", "percentile")


class DataCriterion(Criterion):
    """Base of the criteria that need a pass over data.

    Attributes:
        needs: The name of what it looks at, as `tfprune.statistics` gathers it.
        uses_loss: Whether targets and a loss are needed.

    Args:
        loss: The loss, a Keras name, object or function `(targets, outputs) -> loss`. Defaults to None: the one that
            the model is compiled with.
    """

    needs: str = ""
    uses_loss: bool = True

    def __init__(self, loss: Any = None):
        self.loss = loss

    def statistic(self, context: Context) -> np.ndarray:
        """What was gathered for the weight.

        Raises:
            PruningError: Nothing was: the method is used without data.
        """
        if self.needs not in context.extras:
            raise PruningError(
                f"{self!r} needs the {self.needs.replace('_', ' ')} of '{context.key}', which only a pass over data "
                "gives. Write tfprune.prune(model, method, data=(x, y)); fit cannot use it."
            )
        return context.extras[self.needs]

    def get_config(self) -> dict[str, Any]:
        if self.loss is None or isinstance(self.loss, str):
            return {"loss": self.loss} if self.loss is not None else {}
        return {"loss": keras.saving.serialize_keras_object(self.loss)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DataCriterion":
        loss = config.get("loss")
        return cls(keras.saving.deserialize_keras_object(loss) if isinstance(loss, dict) else loss)


@keras.saving.register_keras_serializable(package="tfprune")
class GradientNorm(DataCriterion):
    """The size of the gradient of the loss; over blocks and channels the root of the sum of squares.

    >>> GradientNorm()(np.array([5.0]), Context(extras={"gradient": np.array([-3.0])}))
    array([9.])
    """

    needs = "gradient"

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return np.square(self.statistic(context))

    def total(self, summed: np.ndarray) -> np.ndarray:
        return np.sqrt(summed)


@keras.saving.register_keras_serializable(package="tfprune")
class Taylor(DataCriterion):
    """How much the loss changes when the entry goes, to first order: |weight x gradient|.

    Molchanov et al., "Importance estimation for neural network pruning", 2019 (https://arxiv.org/abs/1906.10771).

    >>> Taylor()(np.array([2.0]), Context(extras={"gradient": np.array([-3.0])}))
    array([6.])
    """

    needs = "gradient"

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return np.abs(weight * self.statistic(context))


@keras.saving.register_keras_serializable(package="tfprune")
class Snip(Taylor):
    """Connection sensitivity, |weight x gradient|, meant for a network before training, on one batch.

    Lee et al., "SNIP: single-shot network pruning based on connection sensitivity", 2019
    (https://arxiv.org/abs/1810.02340). Use it with `allocation="global"`.
    """


@keras.saving.register_keras_serializable(package="tfprune")
class NormalizedSensitivity(DataCriterion):
    """The size of the gradient over the root of the sum of squares of all gradients of the weight.

    >>> NormalizedSensitivity()(np.ones(2), Context(extras={"gradient": np.array([-3.0, 4.0])}))
    array([0.6, 0.8])
    """

    needs = "gradient"

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        gradient = np.abs(self.statistic(context))
        length = np.sqrt(np.sum(np.square(gradient)))
        return gradient / length if length > 0 else gradient


@keras.saving.register_keras_serializable(package="tfprune")
class Fisher(DataCriterion):
    """Half the squared weight times its mean squared gradient: the rise of the loss by the empirical Fisher matrix.

    The squares are those of batches, so give small batches. Theis et al., "Faster gaze prediction with dense networks
    and Fisher pruning", 2018 (https://arxiv.org/abs/1801.05787).

    >>> Fisher()(np.array([2.0]), Context(extras={"squared_gradient": np.array([3.0])}))
    array([6.])
    """

    needs = "squared_gradient"

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return 0.5 * np.square(weight) * self.statistic(context)


@keras.saving.register_keras_serializable(package="tfprune")
class Hessian(DataCriterion):
    """Half the squared weight times the curvature of the loss: optimal brain damage.

    The curvature is the diagonal of the Hessian, estimated by Hutchinson's method with one random vector of signs for
    each batch. LeCun et al., "Optimal brain damage", 1989.

    >>> Hessian()(np.array([2.0]), Context(extras={"curvature": np.array([3.0])}))
    array([6.])
    """

    needs = "curvature"

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return 0.5 * np.square(weight) * self.statistic(context)


@keras.saving.register_keras_serializable(package="tfprune")
class Grasp(DataCriterion):
    """The weight times (Hessian x gradient): what keeps gradients flowing, for a network before training.

    Wang et al., "Picking winning tickets before training by preserving gradient flow", 2020
    (https://arxiv.org/abs/2002.07376). Use it with `allocation="global"`.

    >>> Grasp()(np.array([2.0]), Context(extras={"gradient_flow": np.array([-3.0])}))
    array([-6.])
    """

    needs = "gradient_flow"

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return weight * self.statistic(context)


@keras.saving.register_keras_serializable(package="tfprune")
class SynapticFlow(DataCriterion):
    """The share of an entry in all paths from input to output, with absolute weights; needs no data.

    Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow", 2020
    (https://arxiv.org/abs/2006.05467), here in one step. Use it with `allocation="global"`.

    >>> SynapticFlow()(np.array([-2.0]), Context(extras={"synaptic_flow": np.array([3.0])}))
    array([6.])
    """

    needs = "synaptic_flow"
    uses_loss = False

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return np.abs(weight * self.statistic(context))


@keras.saving.register_keras_serializable(package="tfprune")
class Wanda(DataCriterion):
    """The magnitude times the root mean square of the input that the entry is multiplied with; needs no labels.

    Sun et al., "A simple and effective pruning approach for large language models", 2023
    (https://arxiv.org/abs/2306.11695), where entries of one output compete; here those of the weight do.

    >>> Wanda()(np.array([-2.0]), Context(extras={"input_scale": np.array([3.0])}))
    array([6.])
    """

    needs = "input_scale"
    uses_loss = False

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return np.abs(weight) * self.statistic(context)


@keras.saving.register_keras_serializable(package="tfprune")
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

    needs = "activation"
    uses_loss = False

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

    def get_config(self) -> dict[str, Any]:
        return {"measure": self.measure, "percentile": self.percentile}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Activation":
        return cls(**config)


@keras.saving.register_keras_serializable(package="tfprune")
class Movement(DataCriterion):
    """How far training pushes an entry away from zero: minus weight x gradient, summed over the steps of `fit`.

    Entries that training brings nearer to zero go first, however large they are: made for fine-tuning a model that was
    trained on something else. Use it with `allocation="uniform"` or `"global"`, since scores may be negative.
    Sanh et al., "Movement pruning: adaptive sparsity by fine-tuning", 2020 (https://arxiv.org/abs/2005.07683), here
    with entries that are gone staying gone.

    >>> Movement()(np.array([2.0]), Context(extras={"movement": np.array([-3.0])}))
    array([-3.])
    """

    needs = "movement"
    uses_loss = False

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return self.statistic(context)

    def statistic(self, context: Context) -> np.ndarray:
        if self.needs not in context.extras:
            raise PruningError(
                f"{self!r} adds up what happens in training, and there was no step of it yet for '{context.key}'. "
                'Write model.fit(..., callbacks=[tfprune.PercentilePruning(0.8, criterion="movement")]), with a '
                "schedule that prunes nothing at the first step."
            )
        return context.extras[self.needs]


@keras.saving.register_keras_serializable(package="tfprune")
class NormalizedMagnitude(Criterion):
    """The absolute value over the largest of the weight, so that layers compare on one scale.

    >>> NormalizedMagnitude()(np.array([-2.0, 4.0]), Context())
    array([0.5, 1. ])
    """

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        size = np.abs(weight)
        largest = size.max(initial=0.0)
        return size / largest if largest > 0 else size


criteria.NAMES.update(
    {
        "normalized_magnitude": NormalizedMagnitude,
        "gradient_norm": GradientNorm,
        "taylor": Taylor,
        "sensitivity": Taylor,
        "normalized_sensitivity": NormalizedSensitivity,
        "fisher": Fisher,
        "hessian": Hessian,
        "snip": Snip,
        "grasp": Grasp,
        "synflow": SynapticFlow,
        "wanda": Wanda,
        "activation": Activation,
        "movement": Movement,
    }
)
