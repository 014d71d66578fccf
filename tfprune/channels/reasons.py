"""Why channels cannot be removed: a short closed list."""

import enum
from typing import NamedTuple


class Reason(enum.Enum):
    """Why a group of channels is left alone; the value is the sentence that plans print and save."""

    MODEL_OUTPUT = "they are the outputs of the model"
    FIXED_PARTNER = "they meet entries that no channel stands for, such as the model's inputs"
    UNKNOWN_LAYER = "no rule is known for this layer; give it one with tfprune.channels.register_rule"
    UNKNOWN_FUNCTION = "this activation is no function of Keras, so it may mix channels"
    NORMALIZED = "this layer takes statistics over channels, which change when one goes (approximate=True allows it)"
    MIXED = "this layer combines channels without weights, so none of them can be left out"
    OTHER_AXIS = "this layer works along the axis that they lie on as if it were space or time"
    OPEN_SIZE = "an axis of unknown size stands in the way"
    NOT_FINITE = "this layer would turn the zeros of a masked channel into infinities"
    INPUT_SHAPE = "this layer is told a size that cannot be changed"
    SINGLE = "it is the only channel there"


class Frozen(NamedTuple):
    """Why channels are left alone, and the layer that is the cause."""

    reason: Reason
    layer: str

    def __str__(self) -> str:
        return f"'{self.layer}': {self.reason.value}"

    @classmethod
    def parse(cls, text: str) -> "Frozen":
        """What was written as text, as plans are saved; raises ValueError for what is no reason."""
        layer, _, sentence = text.rpartition("': ")
        return cls(Reason(sentence), layer[1:])
