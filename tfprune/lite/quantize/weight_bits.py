"""How many bits each kernel is stored in: eight, or four where LiteRT has a kernel that reads them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from tfprune.errors import PruningError
from tfprune.model.tree import asked_layers, covers

WEIGHT_BITS = (4, 8)
LEVELS = {bits: 2 ** (bits - 1) - 1 for bits in WEIGHT_BITS}  # symmetric, so that -w is as exact as w


Bits = int | Mapping[str, int]


@dataclass(frozen=True)
class WeightBits:
    """The bits of every kernel.

    Args:
        default: Of Dense layers and convolutions that are not named; depthwise ones and others keep eight.
        layers: Of layers by name or path, those inside them included.
    """

    default: int = 8
    layers: Mapping[str, int] = field(default_factory=dict)

    @property
    def has_four(self) -> bool:
        """Whether any kernel is to have four bits."""
        return 4 in (self.default, *self.layers.values())

    def of(self, paths: Iterable[str], in_default: bool) -> int:
        """The bits of one kernel.

        Args:
            paths: Of its layer.
            in_default: Whether the default is for kernels of its kind.
        """
        named = [bits for name, bits in self.layers.items() if any(covers(name, path) for path in paths)]
        return named[-1] if named else self.default if in_default else 8


def checked_weight_bits(model: keras.Model, weight_bits: Any) -> WeightBits:
    """What a user's `weight_bits` means for a model.

    Args:
        model: The Keras model.
        weight_bits: 8 or 4 for all, or a mapping from names or paths of layers to 8 or 4.

    Raises:
        PruningError: Another number, or the model has no such layer.
    """
    chosen = dict(weight_bits) if isinstance(weight_bits, Mapping) else {"": weight_bits}
    for bits in chosen.values():
        if isinstance(bits, bool) or bits not in WEIGHT_BITS:
            raise PruningError(
                f"weight_bits={weight_bits!r}: LiteRT stores weights in 8 bits or in 4. Write weight_bits=4 for all "
                "Dense layers and convolutions, or weight_bits={'name': 4} for some layers."
            )
    if not isinstance(weight_bits, Mapping):
        return WeightBits(int(weight_bits))
    known = asked_layers(model, chosen, "weight_bits")
    return WeightBits(layers={known[layer]: int(bits) for layer, bits in chosen.items()})


def learned_weight_bits(model: keras.Model) -> WeightBits:
    """The bits that the layers of a quantization-aware model learned with, which they keep as `weight_bits`."""
    learned = {layer.name: getattr(layer, "weight_bits", 8) for layer in model.layers}
    return WeightBits(layers={name: bits for name, bits in learned.items() if bits != 8})


def refuse_left(bits: WeightBits, served: Collection[str]) -> None:
    """Raises where a layer was named for four bits, and none of its kernels, or of those inside it, got them.

    Args:
        bits: The bits of every kernel.
        served: Paths of the layers with a kernel in four bits.
    """
    left = [
        name for name, chosen in bits.layers.items() if chosen == 4 and not any(covers(name, path) for path in served)
    ]
    if left:
        raise PruningError(
            f"weight_bits: layer '{left[0]}' has no kernel that LiteRT reads in 4 bits. It does so for Dense, Conv1D, "
            "Conv2D and DepthwiseConv2D in int8, and for no others. Leave it out of weight_bits."
        )
