"""Keeping the garbage collection that a conversion ends with short."""

import contextlib
import gc
from collections.abc import Iterator


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
