"""The part of a model that XNNPACK runs with the channels first, where zeros of 1x1 convolutions are skipped.

The conditions are those of XNNPACK's `xnn_subgraph_rewrite_for_nchw` (src/subgraph.c): it begins with a 3x3 convolution
of stride 2 on 3 channels, padded by 1 on all sides, ends in a mean over the image, and holds only 1x1 convolutions,
depthwise ones of 3x3 and 5x5 padded by 1 and 2, sums, products and functions of single values.

Keras pads "same" at stride 2 below and to the right alone where the size is even. That is the same function as padding
on all sides for the image turned by half a turn, with all kernels turned so too; so such a model is turned.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras

from tfprune.model.graph import Call, flow
from tfprune.model.hooks import operation_name

# Behind a mean that keeps four axes it may go on: squeezed channels come back by a product, or a head follows.
BEFORE, INSIDE, POOLED, AFTER = "before", "inside", "pooled", "after"

# Layers of the cluster that compute single values, or fold into a convolution, or do nothing in inference.
POINTWISE_LAYERS = (
    *(keras.layers.BatchNormalization, keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU),
    *(keras.layers.Dropout, keras.layers.SpatialDropout2D, keras.layers.Identity, keras.layers.Add),
    *(keras.layers.Multiply, keras.layers.Rescaling),
)
SCALING = (keras.layers.Multiply, keras.layers.Add)  # of an image by its squeezed channels
# The same as operations of `keras.ops` on tensors of the model.
SCALING_OPERATIONS = ("Add", "Multiply")
POINTWISE_OPERATIONS = (*SCALING_OPERATIONS, "Relu", "Relu6", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "Silu")
ACTIVATIONS = ("linear", "relu", "relu6", "leaky_relu", "sigmoid", "tanh", "elu", "silu", "hard_sigmoid", "hard_silu")


@dataclass(frozen=True)
class Flowing:
    """Where in the cluster a value lies.

    Args:
        stage: Before it, inside, pooled, or after it.
        shape: Its shape.
        padding: The zeros around it that no convolution has taken in yet.
        mean: The path of the mean that it comes from, where it was pooled.
        waiting: The paths of the 1x1 convolutions behind that mean.
    """

    stage: str
    shape: tuple[int | None, ...]
    padding: tuple[tuple[int, int], tuple[int, int]] | None = None
    mean: str = ""
    waiting: tuple[str, ...] = ()


@dataclass
class Cluster:
    """What of a model XNNPACK can run with the channels first.

    Attributes:
        pointwise: The paths of the 1x1 convolutions in it.
        stem: The path of the convolution that it begins with; empty where there is none.
        pads: The paths of the convolutions of stride 2 that need explicit padding, with the entries on each side.
        turning: The paths of the convolutions whose windows turn with the image.
        heads: The paths of the 1x1 convolutions behind the last mean, which become Dense.
        means: The paths of the means whose results come back into the cluster, on four axes.
        turned: Whether the image has to be turned for the paddings to be the same function.
        broken: What keeps XNNPACK from it; empty where nothing does.
        straight: The paths of convolutions of stride 2 that are padded on all sides of an even size.
        uneven: The paths of those that are padded below and to the right alone.
    """

    pointwise: list[str] = field(default_factory=list)
    stem: str = ""
    pads: dict[str, int] = field(default_factory=dict)
    turning: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    means: list[str] = field(default_factory=list)
    turned: bool = False
    broken: str = ""
    straight: list[str] = field(default_factory=list)
    uneven: list[str] = field(default_factory=list)

    @property
    def needs_rewriting(self) -> bool:
        """Whether the model has to be written differently."""
        return not self.broken and bool(self.pads or self.heads or self.means)

    @property
    def notes(self) -> list[str]:
        """What is written differently, in sentences."""
        if not self.needs_rewriting:
            return []
        said = []
        if self.turned:
            said.append(
                "In .model the image and all kernels are turned by half a turn, so that Keras' padding at stride 2 is "
                "the padding on all sides that XNNPACK asks for: the same function, nothing to retrain."
            )
        if self.heads:
            said.append("In .model the 1x1 convolutions behind the pooling are Dense layers, which XNNPACK asks for.")
        return said


def find_cluster(model: keras.Model) -> Cluster:
    """Reads a model's calls and notes the cluster, or what breaks it."""
    cluster = Cluster()

    def visit(call: Call) -> list[Flowing]:
        given = [x for x in keras.tree.flatten((call.args, call.kwargs)) if isinstance(x, Flowing)]
        stage, padding = _step(call, given, cluster)
        mean, waiting = _pooled(call, given, stage, cluster)
        return [Flowing(stage, tuple(output.shape), padding, mean, waiting) for output in call.outputs]

    ends = flow(model, [Flowing(BEFORE, tuple(x.shape)) for x in model.inputs], visit)
    cluster.heads = [path for path in cluster.heads if path not in cluster.pointwise]
    if not cluster.stem:
        _break(cluster, "no 3x3 convolution of stride 2 on an image of 3 channels, with which XNNPACK's cluster begins")
    elif any(end.stage == INSIDE for end in ends):
        _break(cluster, "the cluster does not end in a mean over the image (GlobalAveragePooling2D)")
    if cluster.straight and cluster.uneven:
        _break(
            cluster,
            f"'{cluster.straight[0]}' is padded on all sides and '{cluster.uneven[0]}' on two: write ZeroPadding2D(1) "
            "and padding='valid' before each convolution of stride 2, and train a little",
        )
    cluster.turned = bool(cluster.uneven) and not cluster.broken
    if cluster.turned:
        cluster.pads.setdefault(cluster.stem, 1)
    if cluster.broken:
        cluster.pointwise = []
    return cluster


def _break(cluster: Cluster, reason: str) -> None:
    cluster.broken = cluster.broken or reason


Padding = tuple[tuple[int, int], tuple[int, int]] | None


def _step(call: Call, given: list[Flowing], cluster: Cluster) -> tuple[str, Padding]:
    """The stage behind a call, and the padding that its result waits with."""
    layer = getattr(call.operation, "holds_masks_of", call.operation)
    stages = {value.stage for value in given}
    if stages <= {AFTER, POOLED}:
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1):
            cluster.heads.append(call.path)
        return _behind_mean(call, layer, stages), None
    if stages == {BEFORE}:
        if _is_stem(layer, given[0]) and not cluster.stem and _padded(call, layer, given[0], cluster, 1):
            cluster.stem = call.path
            cluster.turning.append(call.path)
            return INSIDE, None
        if isinstance(layer, keras.layers.ZeroPadding2D):
            return BEFORE, layer.padding
        return BEFORE, None
    if all(isinstance(x, Flowing) for x in call.args):
        names = {(INSIDE,): POINTWISE_OPERATIONS, (INSIDE, POOLED): SCALING_OPERATIONS}
        if operation_name(layer) in names.get(tuple(sorted(stages)), ()):
            return _value(call, layer, given[0], cluster)
    if stages == {INSIDE} or (stages == {INSIDE, POOLED} and isinstance(layer, SCALING)):
        for kinds, rule in RULES:
            if isinstance(layer, kinds):
                return rule(call, layer, given[0], cluster)
    kind = type(layer).__name__
    _break(cluster, f"'{call.path}' ({kind}) is none of the operators that XNNPACK runs with the channels first")
    return AFTER, None


def _behind_mean(call: Call, layer: Any, stages: set[str]) -> str:
    """The stage behind what follows a mean: it may come back into the cluster as long as it has four axes."""
    four = len(call.outputs[0].shape) == 4 and tuple(call.outputs[0].shape[1:3]) == (1, 1)
    if isinstance(layer, keras.layers.Reshape):
        return POOLED if four else AFTER
    back = isinstance(layer, (keras.layers.Conv2D, *POINTWISE_LAYERS)) and _activation(layer)
    return POOLED if stages == {POOLED} and four and back else AFTER


def _pooled(call: Call, given: list[Flowing], stage: str, cluster: Cluster) -> tuple[str, tuple[str, ...]]:
    """The mean that a result comes from and the convolutions since, which are the cluster's where they come back."""
    layer = getattr(call.operation, "holds_masks_of", call.operation)
    pooled = [value for value in given if value.mean]
    if stage == INSIDE and pooled:
        cluster.pointwise += [path for value in pooled for path in value.waiting]
        cluster.means += [value.mean for value in pooled]
        return "", ()
    if isinstance(layer, keras.layers.GlobalAveragePooling2D) and stage in (POOLED, AFTER):
        return call.path, ()
    if stage == INSIDE or not pooled:
        return "", ()
    own = (call.path,) if isinstance(layer, keras.layers.Conv2D) else ()
    return pooled[0].mean, (*pooled[0].waiting, *own)


def _is_stem(layer: Any, given: Flowing) -> bool:
    return (
        isinstance(layer, keras.layers.Conv2D)
        and not isinstance(layer, keras.layers.DepthwiseConv2D)
        and layer.kernel_size == (3, 3)
        and layer.strides == (2, 2)
        and layer.groups == 1
        and given.shape[-1] == 3
    )


def _padded(call: Call, layer: Any, given: Flowing, cluster: Cluster, wanted: int) -> bool:
    """Whether a convolution is padded by so many on all sides, or can be written so as the same function."""
    sizes = given.shape[1:3]
    if None in sizes:
        return False
    before = given.padding
    if layer.padding == "same" and before is None:
        if layer.strides == (1, 1):
            return True
        around = tuple(_same(int(size or 0), layer.kernel_size[0], layer.strides[0]) for size in sizes)
    elif layer.padding == "valid" and before is not None:
        around = tuple((pair[0], pair[1]) for pair in before)
    else:
        return False
    if around == ((wanted, wanted),) * 2:
        inner = [int(size or 0) - (2 * wanted if before is not None else 0) for size in sizes]
        if layer.strides == (2, 2) and any(size % 2 == 0 for size in inner):
            cluster.straight.append(call.path)
        if before is None:
            cluster.pads[call.path] = wanted
        return True
    if layer.strides == (2, 2) and around == ((wanted - 1, wanted),) * 2:
        cluster.uneven.append(call.path)
        cluster.pads[call.path] = wanted
        return True
    return False


def _same(size: int, window: int, stride: int) -> tuple[int, int]:
    """The entries that "same" puts before and behind an axis."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def _convolution(call: Call, layer: Any, given: Flowing, cluster: Cluster) -> tuple[str, Padding]:
    plain = layer.kernel_size == (1, 1) and layer.strides == (1, 1) and layer.groups == 1 and given.padding is None
    if plain and _activation(layer):
        cluster.pointwise.append(call.path)
        return INSIDE, None
    size = f"{'x'.join(str(side) for side in layer.kernel_size)} of stride {layer.strides[0]}"
    _break(cluster, f"'{call.path}' is a convolution of {size}, and only 1x1 of stride 1 may stand inside")
    return AFTER, None


def _depthwise(call: Call, layer: Any, given: Flowing, cluster: Cluster) -> tuple[str, Padding]:
    window, stride = layer.kernel_size, layer.strides
    known = window in ((3, 3), (5, 5)) and stride in ((1, 1), (2, 2)) and layer.depth_multiplier == 1
    plain = known and layer.dilation_rate in (1, (1, 1)) and _activation(layer)
    if plain and _padded(call, layer, given, cluster, window[0] // 2):
        cluster.turning.append(call.path)
        return INSIDE, None
    _break(cluster, f"'{call.path}' is no depthwise convolution of 3x3 or 5x5 with the padding that XNNPACK asks for")
    return AFTER, None


def _padding(call: Call, layer: Any, given: Flowing, cluster: Cluster) -> tuple[str, Padding]:
    return INSIDE, layer.padding


def _mean(call: Call, layer: Any, given: Flowing, cluster: Cluster) -> tuple[str, Padding]:
    return POOLED if layer.keepdims else AFTER, None


def _value(call: Call, layer: Any, given: Flowing, cluster: Cluster) -> tuple[str, Padding]:
    if not _activation(layer) or given.padding is not None:
        kind = type(layer).__name__
        _break(cluster, f"'{call.path}' ({kind}) is no function that XNNPACK runs with the channels first")
    return INSIDE, None


def _activation(layer: Any) -> bool:
    function = getattr(layer, "activation", None)
    return function is None or getattr(function, "__name__", "") in ACTIVATIONS


Rule = Callable[[Call, Any, Flowing, Cluster], tuple[str, Padding]]
RULES: list[tuple[Any, Rule]] = [
    (keras.layers.DepthwiseConv2D, _depthwise),
    (keras.layers.Conv2D, _convolution),
    (keras.layers.ZeroPadding2D, _padding),
    (keras.layers.GlobalAveragePooling2D, _mean),
    (POINTWISE_LAYERS, _value),
]
