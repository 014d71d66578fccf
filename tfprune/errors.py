"""The exceptions that tfprune raises, and the sentence pieces that its messages share.

A message says what came (value and layer), what is accepted, and what to write instead.
"""

import difflib
from collections.abc import Iterable


class PruningError(ValueError):
    """A value, model or plan that tfprune cannot work with; raised before anything is changed."""


class ConversionError(RuntimeError):
    """A model that the TFLite converter or the LiteRT interpreter refused; names the layer or op where known."""


def listing(names: Iterable[object], limit: int = 8) -> str:
    """Joins names for a message, cut after `limit` of them.

    >>> listing(["conv1", "conv2", "dense"], limit=2)
    "'conv1', 'conv2' and 1 more"
    """
    quoted = [repr(str(name)) for name in names]
    if not quoted:
        return "none"
    if len(quoted) > limit:
        return f"{', '.join(quoted[:limit])} and {len(quoted) - limit} more"
    return ", ".join(quoted)


def nearest(name: str, names: Iterable[str]) -> str:
    """Says which known names are like `name`, for the end of a message.

    >>> nearest("dens", ["dense", "conv"])
    "Did you mean 'dense'?"
    """
    known = list(names)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(repr(match) for match in close)}?"
    return f"Known names: {listing(known)}."
