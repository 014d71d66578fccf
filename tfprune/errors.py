"""The exceptions that tfprune raises, and the sentence pieces that its messages share.

A message says what came (value and layer), what is accepted, and what to write instead.
"""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


def printable(text: str) -> str:
    """A text whose control characters, which a name may hold and a terminal obeys, are written out; lines stay lines.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)


class PrintableError(Exception):
    """An error whose message is safe to print, whatever names are in it."""

    def __str__(self) -> str:
        return printable(super().__str__())


class PruningError(PrintableError, ValueError):
    """A value, model or plan that tfprune cannot work with; raised before anything is changed."""


class MissingPackageError(PruningError, ImportError):
    """An optional package that is not installed; the message holds the line that installs it."""


class ConversionError(PrintableError, RuntimeError):
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


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """A module of an optional package, imported now.

    Args:
        module: Its whole name, such as `"matplotlib.figure"`.
        extra: The extra of tfprune that installs it, such as `"plot"`.
        purpose: What needs it, the subject of the message.

    Raises:
        MissingPackageError: It cannot be imported; an `ImportError` and a `PruningError`.

    >>> require("no_such_package.part", extra="plot", purpose="Drawing")
    Traceback (most recent call last):
    tfprune.errors.MissingPackageError: Drawing needs the package no-such-package, which is not installed (No module
    named 'no_such_package'). Write: pip install 'tfprune[plot]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise MissingPackageError(
            f"{purpose} needs the package {package}, which is not installed ({error}). "
            f"Write: pip install 'tfprune[{extra}]'"
        ) from error
