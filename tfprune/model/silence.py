"""Keeping TensorFlow's native code quiet for the length of a call."""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


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
