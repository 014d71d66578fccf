"""Multiply-accumulates of a subclassed model, read from the graph that it opens into."""

from typing import Any

import keras

from tfprune.model.graph import is_graph
from tfprune.model.inline import open_model
from tfprune.model.macs import Macs, model_macs, whole_layer
from tfprune.model.tree import own_weights, places


def macs_of(model: keras.Model) -> Macs:
    """The counts by the layers of any model; None for each of a model that neither is a graph nor opens into one."""
    if is_graph(model):
        return model_macs(model)
    try:
        found = open_model(model)
    except Exception:  # whatever the user's call raises: then nothing is known, as before
        return model_macs(model)
    wholes = {place.path: whole_layer(place)[0] for place in places(model)}
    counts: dict[str, int | None] = {wholes[p.path]: 0 for p in places(model) if own_weights(p.layer)}
    opened = model_macs(found.graph)
    names = {operation.name: found.paths.get(id(operation), "") for operation in found.graph.operations}

    def whole(name: str) -> str:
        path: str = names.get(name.split("/")[0], "")
        return wholes.get(path, path or name)

    for name, count in opened.layers.items():
        before: Any = counts.get(whole(name), 0)
        counts[whole(name)] = None if count is None or before is None else before + count
    return Macs(counts, list(dict.fromkeys(map(whole, opened.unknown))))
