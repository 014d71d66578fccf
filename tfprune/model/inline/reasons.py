"""Why a layer cannot be opened, in words: what its call does, the line that does it, and what to write instead."""

import inspect
import linecache
import re
import traceback
from typing import Any

# What Keras and Python say of the usual causes, with what the user has to know and write.
CAUSES = (
    (
        r"cannot be used as a boolean|symbolic value.*boolean|truth value",
        "its call branches on the value of a tensor; write keras.ops.where or keras.ops.cond in place of `if`",
    ),
    (
        r"cannot be used as input to a TensorFlow|cannot convert it to a NumPy|cannot convert a symbolic|"
        r"cannot be interpreted as an integer|is symbolic: it's a placeholder",
        "its call computes with TensorFlow, NumPy or Python numbers; write the functions of keras.ops",
    ),
    (
        r"cannot add new elements of state",
        "its call makes weights or layers; make them in __init__ or build, and only call them in call",
    ),
    (
        r"has no attribute 'assign|has no attribute 'value'",
        "its call writes into its own weights; let a metric or a callback keep what changes between calls",
    ),
    (
        r"missing a required argument: '\w*mask'",
        "a layer takes a mask and none reaches it: a layer before it makes none (Embedding(mask_zero=True) or Masking "
        "does) or drops it; write self.supports_masking = True in its __init__, or take call(self, inputs, mask=None)",
    ),
)

STANDARD_LIBRARY = inspect.__file__.replace("\\", "/").rsplit("/", 1)[0] + "/"


class CannotOpenError(Exception):
    """Why one layer, or the whole model where `layer` is None, stays closed."""

    def __init__(self, reason: str, layer: Any = None):
        super().__init__(reason)
        self.reason, self.layer = reason, layer


def reason_of(error: BaseException) -> str:
    """What stopped a trace, with the line of the user's code where there is one."""
    if isinstance(error, CannotOpenError):
        return error.reason + _line(error)
    text = " ".join(str(error).split())
    known = next((meaning for pattern, meaning in CAUSES if re.search(pattern, text)), None)
    return (known or f"{type(error).__name__}: {text[:200]}") + _line(error)


def may_be_the_size(reason: str) -> bool:
    """Whether a layer may open with other sizes: something in its call went wrong that has no known cause."""
    return re.match(r"[A-Z]\w*Error: ", reason) is not None


def is_about_sizes(reason: str) -> bool:
    """Whether a layer's call is no function of open sizes that a graph can follow; with fixed ones it may be."""
    return re.search(r"for other sizes|open size|in two traces", reason) is not None


def running_line() -> tuple[str, int]:
    """File and number of the line of the user's own code that is being run."""
    frame: Any = inspect.currentframe()
    while frame is not None and not _is_the_users(frame.f_code.co_filename):
        frame = frame.f_back
    return ("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def line_named(filename: str, number: int) -> str:
    """A line of code as reasons name it."""
    name = filename.replace("\\", "/").rsplit("/", 1)[-1]
    return f" ({name}:{number}: {linecache.getline(filename, number).strip()})" if filename else ""


def _line(error: BaseException) -> str:
    """The last line of the user's own code on the way to an error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_the_users(frame.filename)]
    return line_named(frames[-1].filename, frames[-1].lineno or 0) if frames else ""


def _is_the_users(filename: str) -> bool:
    filename = filename.replace("\\", "/")
    of_python = filename.startswith(STANDARD_LIBRARY) and "/site-packages/" not in filename
    known = of_python or re.search(r"/(keras/src|tfprune|optree|tensorflow|numpy)/", filename) or "/" not in filename
    return not known or "/tests/" in filename
