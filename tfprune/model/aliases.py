"""Names for layers whose own TensorFlow refuses as the name of a scope, so that such models are traced all the same.

Keras takes any name without a slash, and runs the model eagerly; a compiled step opens a scope by the name of each
layer, and a saved model one by that of each variable.
"""

import contextlib
import re
import threading
from collections.abc import Iterator

import keras

from tfprune.model.copying import clone_with_weights
from tfprune.model.tree import every_layer

ACCEPTED = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.-]*")  # of TensorFlow's pattern what its node names take too
_renaming = threading.RLock()


def aliases_of(model: keras.Model) -> dict[str, str]:
    """What to call each layer whose name TensorFlow refuses, by that name; no layer has the name yet.

    >>> aliases_of(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="[red]"), keras.layers.ReLU()]))
    {'[red]': 'layer_red_'}
    """
    layers = [layer for layer in every_layer(model) if not isinstance(layer, keras.layers.InputLayer)]
    taken = {layer.name for layer in layers}
    aliases: dict[str, str] = {}
    for name in sorted(name for name in taken if not ACCEPTED.fullmatch(name)):
        stem = re.sub(r"[^A-Za-z0-9.-]", "_", name)
        stem = stem if ACCEPTED.fullmatch(stem) else f"layer{stem}"
        numbered = (f"{stem}_{number}" if number else stem for number in range(len(taken) + 1))
        aliases[name] = next(alias for alias in numbered if alias not in taken)
        taken.add(aliases[name])
    return aliases


@contextlib.contextmanager
def under_aliases(model: keras.Model) -> Iterator[None]:
    """Lets layers of such names bear others inside the block, where the model is traced."""
    with _renaming, contextlib.ExitStack() as undo:
        aliases = aliases_of(model)
        for layer in every_layer(model) if aliases else ():
            if layer.name in aliases:
                undo.callback(setattr, layer, "name", layer.name)
                layer.name = aliases[layer.name]
        yield


def with_aliases(model: keras.Model) -> tuple[keras.Model, dict[str, str]]:
    """The model where TensorFlow takes all names, else an equal one, layers and variables named anew.

    Returns:
        The model, and the names of those layers by their aliases.
    """
    aliases = aliases_of(model)
    if not aliases:
        return model, {}
    with under_aliases(model):
        return clone_with_weights(model), {alias: name for name, alias in aliases.items()}
