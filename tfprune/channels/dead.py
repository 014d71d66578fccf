"""Dead channels: those that a model as it is can lose without a change of its answers."""

from typing import Any

import numpy as np

from tfprune.channels.grouping import traced_groups
from tfprune.channels.groups import ChannelGroups
from tfprune.channels.labels import KEPT
from tfprune.channels.trace import Role, Trace


def dead_groups(model: Any, **settings: Any) -> tuple[ChannelGroups, dict[str, np.ndarray], list[str]]:
    """The groups of a model by which most of it is dead, with what `dead_channels` says of them.

    Where heads and the width inside them lie along one axis of a kernel, the zeros tell which of them was removed.

    Args:
        model: The model.
        **settings: Of `traced_groups`.
    """
    found = []
    for prefers in (None, "head", "width"):
        groups = traced_groups(model, values=True, prefers=prefers, **settings)
        keep, folds = dead_channels(groups)
        gone = sum(groups[name].parameters * int((~vector).sum()) for name, vector in keep.items())
        found.append((gone, groups, keep, folds))
        if not groups.trace.shares_axes:
            break
    _, groups, keep, folds = max(found, key=lambda each: each[0])  # the first of the best
    return groups, keep, folds


def dead_channels(groups: ChannelGroups) -> tuple[dict[str, np.ndarray], list[str]]:
    """Finds the channels that can be removed from a model as it is, its answers staying the same.

    A channel is dead when every weight that listens to it has zeros in its place or gets nothing but zeros from it,
    whatever the model's input. It gives nothing but zeros when the slices that make it and its bias are zero, or gamma
    and beta of a norm after them are, and every activation on the way is zero at zero. Where it is a constant other
    than zero, and all that listen are layers with a bias and without padding, the constant can move into that bias.

    Returns:
        Group name -> True for each channel to keep; names of the groups for which a constant has to move.
    """
    trace, root = groups.trace, groups.trace.partition.root
    quiet = np.ones(trace.size, bool)
    exact = np.ones(trace.size, bool)
    heard = np.zeros(trace.size, bool)
    for use in trace.uses:
        if use.role is Role.INPUT:
            sets = root[use.line.labels]
            silent = trace.values.is_zero(use.variable, use.axis) | (use.line.now == 0)
            # A layer that is called twice has one bias, but may be given two constants.
            foldable = use.foldable & np.isfinite(use.line.now) & (trace.times_called(use.operation) == 1)
            heard[sets] = True
            quiet[sets[~(silent | foldable)]] = False
            exact[sets[~silent]] = False
    for labels, now in trace.demands:
        sets = root[labels]
        heard[sets] = True
        quiet[sets[~(now == 0)]] = False
    dead = quiet & heard
    dead[KEPT] = False
    for group in groups.values():
        if group.frozen:
            dead[group.roots] = False
    _revive(trace, dead)
    keep = {name: ~dead[group.roots] for name, group in groups.items()}
    return keep, [name for name, group in groups.items() if (dead & ~exact)[group.roots].any()]


def _revive(trace: Trace, dead: np.ndarray) -> None:
    """Lets one channel live where a layer would be left with none: the first that is not masked, if there is one."""
    for use in trace.uses:
        sets = trace.partition.root[use.line.labels]
        if dead[sets].all():
            dead[sets[trace.values.is_zero(use.variable, use.axis).argmin()]] = False
