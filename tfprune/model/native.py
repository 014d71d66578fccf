"""The native code below Keras: kept quiet, its errors in one line, and its garbage collections short."""

import contextlib
import gc
import logging
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from typing import IO

LONGEST = 300
# Keras prints the cause in bold between the name of the layer and the list of its arguments.
FRAMED = re.compile(r"\x1b\[1m(.*?)\x1b\[0m", re.DOTALL)


def reason_of(error: BaseException) -> str:
    """The cause that an error of Keras, TensorFlow or LiteRT names, in one line that ends in a full stop, or is cut.

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
    return text.rstrip(". ") + "." if len(text) <= LONGEST else text[:LONGEST].rstrip() + " ..."


class Spoken:
    """What was written to the standard error stream inside a `silence` block."""

    text = ""


@contextlib.contextmanager
def silence() -> Iterator[Spoken]:
    """Holds back what native code, TensorFlow's logger and warnings say inside the block; all is as before after it.

    Streams and filters belong to the process, so blocks of several threads share one diversion: the first in makes it,
    and the last out puts back what the first found.

    Yields:
        An object whose `text` is, after the block, what native code wrote meanwhile, in this thread or another that is
        silenced too. The converter says there why it fails.
    """
    spoken = Spoken()
    begin = _diversion.enter()
    try:
        yield spoken
    finally:
        spoken.text = _diversion.leave(begin)


class _Diversion:
    """Where the process's messages go while any thread is in a `silence` block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._file: IO[bytes] | None = None
        self._undo = contextlib.ExitStack()

    def enter(self) -> int:
        """Begins a block; the place in the file where its messages will begin."""
        with self._lock:
            if not self._inside:
                self._begin()
            self._inside += 1
            return self._file.seek(0, os.SEEK_END) if self._file else 0

    def leave(self, begin: int) -> str:
        """Ends a block; what was said since."""
        with self._lock:
            self._inside -= 1
            if self._file and sys.stderr:
                sys.stderr.flush()
            text = self._read(begin)
            if not self._inside:
                self._undo.close()
                self._file = None
            return text

    def _begin(self) -> None:
        logger = logging.getLogger("tensorflow")
        self._undo.enter_context(warnings.catch_warnings())
        self._undo.callback(logger.setLevel, logger.level)
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        # Native code writes to file descriptor 2 itself, so replacing sys.stderr would not reach it.
        try:
            original = os.dup(2)
        except OSError:  # no standard error at all, as under some servers
            return
        if sys.stderr:
            sys.stderr.flush()
        # Appending, since reading what was said moves the place that the descriptors share.
        self._file = self._undo.enter_context(tempfile.TemporaryFile("a+b"))  # noqa: SIM115
        self._undo.callback(os.close, original)
        self._undo.callback(os.dup2, original, 2)
        os.dup2(self._file.fileno(), 2)

    def _read(self, begin: int) -> str:
        if self._file is None:
            return ""
        self._file.seek(begin)
        return self._file.read().decode(errors="replace")


_diversion = _Diversion()


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
