"""From a schedule to a mask: how much goes at which step, how important each entry is, and where zeros may fall.

In come a model, a method (amount, criterion, pattern, allocation) and, where the criterion needs it, data. Out come
masks, boolean arrays of the weights' shapes, True where an entry is kept; nothing in the model is changed.
"""

__all__ = [
    "allocation",
    "amounts",
    "configured",
    "costs",
    "criteria",
    "criterion",
    "method",
    "methods",
    "patterns",
    "salience",
    "schedules",
    "scores",
    "selection",
    "sensitivity",
    "statistics",
    "structured",
]
