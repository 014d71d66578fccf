"""One short rule for each kind of layer and operation: what it does with the channels that come in."""

from tfprune.channels.rules import (  # noqa: F401 - each registers its rules
    activation,
    attention,
    merging,
    moves,
    norms,
    operations,
    recurrent,
    space,
    weighted,
)
from tfprune.channels.rules.activation import elementwise
from tfprune.channels.rules.registry import Entry, Resized, find, find_rule, register_rule

__all__ = ["Entry", "Resized", "elementwise", "find", "find_rule", "register_rule"]
