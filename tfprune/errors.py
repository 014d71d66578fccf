"""The exceptions that tfprune raises, and the sentence pieces that its messages share.

A message says what came (value and layer), what is accepted, and what to write instead.
"""

import difflib
import importlib
import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any


def printable(text: str) -> str:
    """A text whose control characters, which a name may hold and a terminal obeys, are written out; lines stay lines.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)


# Names are the user's, or whoever's who made a file, and may hold what a terminal, a page or a plot would obey. A cell
# and a message keep control characters out; these three do the rest for their medium, and rich is given plain texts.


def in_cell(text: str) -> str:
    """A text in one line, its control characters written out."""
    return printable(text).replace("\n", "\\n")


def in_markdown(text: str) -> str:
    """A text that Markdown shows as it is: no tags, links, emphasis, formulas or further columns.

    >>> in_markdown("<b> [x](y) a|b _c_ block_1")
    '&lt;b> \\\\[x\\\\](y) a\\\\|b \\\\_c\\\\_ block_1'
    """
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"[\\`*|$~\[\]]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def in_plot(text: str) -> str:
    """A text that matplotlib draws as it is: a dollar begins a formula there, and a label after "_" is left out."""
    return re.sub("^_", " _", in_cell(text).replace("$", "\\$"))


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


def number(name: str, value: Any, least: float = -math.inf, most: float = math.inf, write: str = "0.5") -> float:
    """A value as a finite number.

    Args:
        name: What it is, the subject of the message.
        value: A number of Python, NumPy or TensorFlow; no text, no truth value.
        least, most: The range, both ends included.
        write: A value that would do, for the message.

    Raises:
        PruningError: It is none, or outside of the range.

    >>> number("strength", "x", least=0)
    Traceback (most recent call last):
    tfprune.errors.PruningError: strength='x' is no number of 0 or more; write 0.5.
    """
    try:
        is_none = isinstance(value, (str, bytes, bool, complex))
        found = math.nan if is_none else float(value)
    except Exception:  # whatever the value's own __float__ raises
        found = math.nan
    if math.isfinite(found) and least <= found <= most:
        return found
    within = f" in [{least:g}, {most:g}]" if math.isfinite(most) else f" of {least:g} or more" if least > -1e300 else ""
    raise PruningError(f"{name}={value!r} is no number{within}; write {write}.")


def path_of(name: str, value: Any, write: str) -> Path:
    """A value as a path.

    Raises:
        PruningError: It is none.
    """
    if isinstance(value, (str, os.PathLike)):
        return Path(value)
    raise PruningError(f"{name}={value!r} is no path; write {write!r}.")


def listed(name: str, values: Any, write: str) -> list[Any]:
    """Several values as a list; a text is one value.

    Raises:
        PruningError: It is none.
    """
    if isinstance(values, Iterable) and not isinstance(values, (str, bytes)):
        return list(values)
    raise PruningError(f"{name}={values!r} is no list; write {name}={write}.")


def answer_of(owner: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of the user's gives.

    Args:
        owner: The function and what it was asked, the subject of the message.
        function: The function.
        *arguments: What it is given.

    Raises:
        PruningError: It raised an error.
    """
    try:
        return function(*arguments)
    except PruningError:
        raise
    except Exception as error:
        raise PruningError(f"{owner} raised {type(error).__name__}: {error}") from error


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
