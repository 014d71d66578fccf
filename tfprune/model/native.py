"""The native code below Keras: kept quiet, its errors in one line, and its garbage collections short."""

import contextlib
import gc
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator

LONGEST = 300
# Keras prints the cause in bold between the name of the layer and the list of its arguments.
FRAMED = re.compile(r"\x1b\[1m(.*?)\x1b\[0m", re.DOTALL)


def reason_of(error: BaseException) -> str:
    """The cause that an error of Keras, TensorFlow or LiteRT names, in one line that ends in a full stop.

    Tracebacks and frames around it are left out.
    """
    text = str(error).strip() or type(error).__name__
    framed = FRAMED.search(text)
    if framed:
        text = framed[1]
    elif text.startswith("in user code:"):  # TensorFlow puts a traceback before it
        text = text.splitlines()[-1]
    elif " error: " in text:  # the converter puts the place in the source before what it says, and notes behind
        text = text.split(" error: ", 1)[1].splitlines()[0].rsplit("): ", 1)[-1]
    text = " ".join(text.split())
    return (text if len(text) <= LONGEST else text[:LONGEST] + " ...").rstrip(". ") + "."


class Spoken:
    """What was written to the standard error stream inside a `silence` block."""

    text = ""


@contextlib.contextmanager
def silence() -> Iterator[Spoken]:
    """Holds back what native code, TensorFlow's logger and warnings say inside the block; all is as before after it.

    Yields:
        An object whose `text` is, after the block, what native code wrote. The converter says there why it fails.
    """
    spoken = Spoken()
    logger = logging.getLogger("tensorflow")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            with _captured(spoken):
                yield spoken
        finally:
            logger.setLevel(level)


@contextlib.contextmanager
def _captured(spoken: Spoken) -> Iterator[None]:
    # Native code writes to file descriptor 2 itself, so replacing sys.stderr would not reach it.
    try:
        original = os.dup(2)
    except OSError:  # no standard error at all, as under some servers
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            file.seek(0)
            spoken.text = file.read().decode(errors="replace")


@contextlib.contextmanager
def only_new_garbage() -> Iterator[None]:
    """Collections inside the block look at what the block has made, and not at every object of the program.

    TensorFlow's converter collects at the end of each conversion. With TensorFlow and Keras loaded that takes longer
    than the conversion of a small network, since there are a million older objects to look at.
    """
    if gc.get_freeze_count():  # the program keeps objects out of collections itself, and unfreezing would end that
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
