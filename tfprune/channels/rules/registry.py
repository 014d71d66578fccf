"""Which rule handles which layer or operation; where users add theirs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from tfprune.channels.visit import Rule
from tfprune.errors import PruningError
from tfprune.model.hooks import operation_name


@dataclass(frozen=True)
class Resized:
    """Sizes after shrinking, for the code that adapts a layer's configuration.

    Attributes:
        size: Takes a weight of the old layer, gives the shape it will have.
        inputs: The new shapes of the inputs.
        outputs: The new shapes of the outputs.
        old_outputs: The shapes that the outputs had.
        kept: Takes the index of an output and an axis, gives which positions stay (boolean), None for all.
        kept_input: Likewise for an input.
        approximate: Whether layers that normalise become smaller too, although statistics change.
        layer: The layer or operation before shrinking.
    """

    size: Callable[[Any], tuple[int, ...]]
    inputs: list[tuple[int | None, ...]]
    outputs: list[tuple[int | None, ...]]
    old_outputs: list[tuple[int | None, ...]]
    kept: Callable[[int, int], Any]
    kept_input: Callable[[int, int], Any]
    approximate: bool = False
    layer: Any = None

    def padding(self, index: int) -> list[tuple[int, int]]:
        """For each axis of an input, how many entries are gone, to be put behind those that stay."""
        kept = [self.kept_input(index, axis) for axis in range(len(self.inputs[index]))]
        return [(0, 0 if stays is None else int((~stays).sum())) for stays in kept]


Resize = Callable[[Any, dict[str, Any], Resized], None]
Adjust = Callable[[Any, Any, Resized], None]
Replay = Callable[[Any, tuple[Any, ...], dict[str, Any], Resized], Any]


def sized(key: str, weight: str, axis: int) -> Resize:
    """The resize of a layer whose configuration holds, under `key`, the size of one of its weights along an axis."""

    def resize(layer: Any, config: dict[str, Any], new: Resized) -> None:
        config[key] = new.size(getattr(layer, weight))[axis]

    return resize


@dataclass(frozen=True)
class Entry:
    """What is known about one kind of layer or operation.

    Attributes:
        rule: Follows the channels through one call.
        resize: Writes the new sizes into the configuration of the layer's copy; None: nothing in it changes.
        adjust: Changes the new layer's weights after they are set, where a size also acts as a factor.
        replay: Makes the call anew, of an operation or of the layer's copy, where what surrounds it changes too.
    """

    rule: Rule
    resize: Resize | None = None
    adjust: Adjust | None = None
    replay: Replay | None = None


# Filled by `rules/__init__.py` from the tables at the end of each file of rules; users add to LAYERS.
LAYERS: dict[type | None, Entry] = {}
OPERATIONS: dict[str, Entry] = {}


def register_rule(cls: type, rule: Rule, resize: Resize | None = None) -> None:
    """Teaches the channel trace a layer of your own; without a rule its channels are left alone.

    Args:
        cls: The layer's class. Subclasses that do not override `call` share the rule.
        rule: A function that takes one call of the layer, a `Visit`, says which axes of its weights carry which
            channels, and returns the `Channels` of the output. `tfprune.channels.elementwise` is the rule of layers
            that treat every entry alone.
        resize: A function `(layer, config, resized)` that writes the new sizes into `config`, the `get_config()` of
            the layer; needed where the configuration holds a number of channels.

    Raises:
        PruningError: `cls` is not a Keras layer class, or `rule` is not callable.

    Example, a layer that multiplies every channel by a weight:
        class Scale(keras.layers.Layer):
            def build(self, shape):
                self.scale = self.add_weight(shape=(shape[-1],), name="scale")

            def call(self, x):
                return x * self.scale

        def scale_rule(visit):
            lines, others = visit.take(visit.input, axis=-1)     # the channels along the last axis
            for line in lines:
                visit.use(Role.SCALE, visit.layer.scale, 0, line)
            zero = [line.with_values(masked=0.0, now=math.nan) for line in lines]
            return visit.result([visit.along(-1, line) for line in zero] + others)

        register_rule(Scale, scale_rule)
    """
    if not (isinstance(cls, type) and issubclass(cls, keras.Layer)):
        raise PruningError(f"register_rule needs a keras.Layer class, not {cls!r}; pass the class, not a layer.")
    if not callable(rule):
        raise PruningError(f"The rule of {cls.__name__} must be a function of one Visit, not {rule!r}.")
    LAYERS[cls] = Entry(rule, resize)


def find(operation: Any) -> Entry | None:
    """What is known about a layer or operation; None when nothing is.

    A subclass is handled as its nearest known base, as long as it computes its output and builds its weights as the
    base does.
    """
    if not isinstance(operation, keras.Layer):
        return OPERATIONS.get(operation_name(operation) or "")
    if getattr(operation, "quantization_mode", None) or getattr(operation, "lora_enabled", False):
        return None  # such a layer computes with more weights than its class says
    mro = type(operation).__mro__
    for index, cls in enumerate(mro):
        if cls in LAYERS:
            altered = any(name in vars(sub) for sub in mro[:index] for name in ("call", "build", "__call__"))
            return None if altered else LAYERS[cls]
    return None


def has_rule(layer: Any) -> bool:
    """Whether something is known about a layer, so that it need not be opened."""
    return find(layer) is not None
