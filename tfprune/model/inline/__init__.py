"""Composite layers and subclassed models opened: what their own `call` does, as a plain functional Keras model.

A layer that calls other layers is a closed box to everything that reads a graph. Run on symbolic tensors, its `call`
records what it does as calls of built-in layers and of `keras.ops` operations (`tracing`). The sizes of axes that a
model leaves open are numbers then, and a second trace with others tells what depends on them (`sizes`, `operations`).
The graph is built of both (`building`); what cannot be recorded stays closed and is named, with the line of the user's
code (`reasons`).
"""

from tfprune.model.inline.inline import inline, inline_notes, inlined
from tfprune.model.inline.inputs import inputs_of, sample
from tfprune.model.inline.notes import closed_of, losses_of
from tfprune.model.inline.opening import Opened, open_model, opened

__all__ = [
    "Opened",
    "closed_of",
    "inline",
    "inline_notes",
    "inlined",
    "inputs_of",
    "losses_of",
    "open_model",
    "opened",
    "sample",
]
