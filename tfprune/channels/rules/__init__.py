"""One short rule for each kind of layer and operation: what it does with the channels that come in.

Every file ends with its tables: the rule of each layer class, and of each operation by the name of its class
("Reshape" for `keras.ops.reshape`).
"""

from tfprune.channels.rules import (
    activation,
    attention,
    filters,
    merging,
    moves,
    norms,
    operations,
    parts,
    products,
    recurrent,
    space,
    updates,
    weighted,
)
from tfprune.channels.rules.activation import elementwise
from tfprune.channels.rules.registry import LAYERS, OPERATIONS, Entry, Resized, find, has_rule, register_rule

for _file in (
    activation,
    attention,
    filters,
    merging,
    moves,
    norms,
    operations,
    parts,
    products,
    recurrent,
    space,
    updates,
    weighted,
):
    LAYERS.update(getattr(_file, "LAYERS", {}))
    OPERATIONS.update(getattr(_file, "OPERATIONS", {}))
LAYERS.pop(None, None)  # stands for layers that this Keras does not have

__all__ = ["Entry", "Resized", "elementwise", "find", "has_rule", "register_rule"]
