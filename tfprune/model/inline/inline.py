"""The opened model as a user gets it: with weights of its own, compiled alike."""

import warnings
from typing import Any

import keras

from tfprune.errors import PruningError
from tfprune.model.copying import clone_with_weights, compile_like, copy_model, scope_of
from tfprune.model.fresh import fresh_layer, fresh_operation
from tfprune.model.inline.first_call import sizes_of_the_call
from tfprune.model.inline.notes import notes_of
from tfprune.model.inline.opening import Known, has_something_to_open, known_to_nobody, open_model, opened
from tfprune.model.state import carry_state, check_copy, check_ties
from tfprune.model.tree import check_model


def inline(model: keras.Model, data: Any = None) -> keras.Model:
    """Opens a model: an equal functional Keras model in which composite layers are what their own `call` does.

    Subclassed models and layers of your own that call other layers become calls of Keras' own layers and operations,
    so that the result loads with Keras alone and its channels can be removed. Layers are named after their place
    (`encoder.layer_0.attention.query`). Open sizes stay open, and layers follow `training` as before. What cannot be
    opened, such as a call that branches on the value of a tensor, stays a closed layer; a warning names it, with the
    reason and the line of code.

    Args:
        model: Any built Keras 3 model; it is left as it is, and nothing is shared with it.
        data: Example inputs, in any form that `fit` takes, for a model whose inputs Keras does not know (a subclassed
            one with several, or one that was never called), whose open sizes belong together, or that holds a layer
            whose call does something else for every size, such as a loop over pieces of a sequence: the opened model
            then takes the sizes of the example, where it opens for no others. Sizes of a subclassed model are those
            that it was first called with; those in which the example differs stay open. Defaults to None.

    Returns:
        The new model, compiled as the first was, with a fresh optimizer. It has been compared with the first on a
        probe of two sizes.

    Raises:
        PruningError: The model's own `call` cannot be traced; the message names the line, and what to write instead.

    Example:
        plain = tfprune.inline(model)
        plain.save("plain.keras")
    """
    if data is None or not isinstance(model, keras.Model):
        check_model(model, "open")
    if not has_something_to_open(model):
        return clone_with_weights(model)
    found = open_model(model, data)
    for note in notes_of(found):
        warnings.warn(f"tfprune: {note}", stacklevel=2)
    with scope_of(model):
        made = copy_model(found.graph, _own)
        carry_state(found.graph, made)
        check_ties(found.graph, made)
        check_copy(found.graph, made)
        if made.dtype_policy != model.dtype_policy:
            made.dtype_policy = model.dtype_policy
        if model.compiled and type(model).compile is keras.Model.compile:
            compile_like(model, made)
    return made


def inlined(model: Any, purpose: str, known: Known = known_to_nobody) -> keras.Model:
    """The model itself where its graph can be read and holds known layers only, else its opened copy.

    Args:
        model: What the user gave.
        purpose: What needs a graph, the subject of the message.
        known: Which layers of the user's stay closed, since something is known about them.

    Raises:
        PruningError: There is no graph to read, and the model cannot be opened.
    """
    return inline(model) if opened(model, purpose, known).graph is not model else model


def inline_notes(model: keras.Model, data: Any = None) -> list[str]:
    """What opening a model leaves closed, and why, in sentences; those that `inline` warns of, and for which sizes."""
    if not has_something_to_open(model):
        return []
    found = open_model(model, data)
    return [*notes_of(found), *sizes_of_the_call(model, found)]


def _own(layer: Any) -> Any:
    """A layer or operation with weights of its own; a closed layer that Keras cannot make again is the user's."""
    if isinstance(layer, keras.Layer):
        try:
            return fresh_layer(layer)
        except PruningError:
            warnings.warn(
                f"tfprune: '{layer.name}' ({type(layer).__name__}) cannot be made again from its config, so the opened "
                "model shares it with yours. Give its class a get_config() that returns every argument of __init__.",
                stacklevel=6,
            )
            return layer
    return fresh_operation(layer)
