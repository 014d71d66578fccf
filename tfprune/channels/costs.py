"""What channels cost: multiply-accumulates by kernel, and what one channel of a group takes with it."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tfprune.channels.groups import Member
from tfprune.model.macs import model_macs
from tfprune.model.tree import weight_keys


def kernel_macs(model: Any, keys: Mapping[int, str]) -> dict[str, float | None]:
    """The cost of each kernel by its key: that of its layer, spread evenly over the layer's kernels."""
    macs = model_macs(model).layers
    sizes: dict[str, dict[str, int]] = defaultdict(dict)
    paths = weight_keys(model)  # in an opened model other ones than in the model that it comes from
    for variable in model.weights:
        key = keys.get(id(variable))
        if key is None or len(variable.shape) < 2:
            continue
        parts = paths[id(variable)].split("/")
        owner = next((o for n in range(len(parts) - 1, 0, -1) if (o := "/".join(parts[:n])) in macs), None)
        if owner is not None:
            sizes[owner][key] = math.prod(variable.shape)
    costs: dict[str, float | None] = {}
    for owner, kernels in sizes.items():
        cost = macs[owner]
        for key, size in kernels.items():
            costs[key] = None if cost is None else cost * size / sum(kernels.values())
    return costs


def per_channel(members: Sequence[Member], totals: Mapping[str, float | None]) -> float | None:
    """What one channel takes with it of per-weight totals, nothing else being removed."""
    left: dict[str, tuple[int, int]] = {}  # entries that stay, of all, as if the other axes had size 1
    for member in members:
        size = member.variable.shape[member.axis]
        stay, all_of = left.get(member.key, (1, 1))
        left[member.key] = stay * (size - member.positions.shape[1]), all_of * size
    saved = 0.0
    for key, (stay, all_of) in left.items():
        total = totals.get(key, 0)
        if total is None:
            return None
        saved += total * (all_of - stay) / all_of
    return saved
