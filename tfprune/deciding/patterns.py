"""Where zeros may fall: single entries, blocks, all but n of m, or templates of the user's.

A pattern cuts a weight into units that are removed together. It answers three questions: the score of every unit
(`unit_scores`), which units are gone already (`pruned_units`), and the mask that removes the chosen ones (`mask`).
The choice itself is made elsewhere and is the same for all patterns: exactly `round(share * units)` units, the lowest
scores first, ties to the lowest flat index.
"""

import functools
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfprune.deciding.amounts import is_count
from tfprune.deciding.configured import Configured, from_identifier
from tfprune.deciding.criterion import Criterion
from tfprune.deciding.pieces import PIECE
from tfprune.errors import PruningError, listed, listing
from tfprune.model.data import real_array


class Pattern(Configured):
    """Base of every pattern."""

    # The sparsity at which every unit is chosen; below 1 where a unit is not removed whole.
    full: float = 1.0
    # Whether `mask` ranks the entries inside a unit by their scores.
    ranks_entries: bool = False
    # Whether each entry is a unit by itself.
    is_of_entries: bool = False

    def unit_scores(self, entries: np.ndarray, criterion: Criterion, input_axis: int) -> np.ndarray:
        """The score of each unit, from the additive scores of the entries."""
        raise NotImplementedError

    def pruned_units(self, kept: np.ndarray, input_axis: int) -> np.ndarray:
        """True for every unit that an earlier mask (True = kept) has removed already."""
        raise NotImplementedError

    def mask(self, chosen: np.ndarray, entries: np.ndarray, input_axis: int) -> np.ndarray:
        """The mask (True = kept) of the weight's shape that removes the chosen units.

        Args:
            chosen: True for the units to remove; it may be overwritten.
            entries: The scores of the entries; only their shape matters where the pattern does not rank them.
            input_axis: The axis of the input channels.
        """
        raise NotImplementedError

    def check(self, key: str, shape: tuple[int, ...]) -> None:
        """Raises where a weight of this shape cannot carry the pattern."""


class Element(Pattern):
    """Any entry by itself (unstructured sparsity)."""

    is_of_entries = True

    def unit_scores(self, entries: np.ndarray, criterion: Criterion, input_axis: int) -> np.ndarray:
        return criterion.total(entries)

    def pruned_units(self, kept: np.ndarray, input_axis: int) -> np.ndarray:
        return np.logical_not(kept)

    def mask(self, chosen: np.ndarray, entries: np.ndarray, input_axis: int) -> np.ndarray:
        return np.logical_not(chosen, out=chosen)


class Block(Pattern):
    """Rectangles of `height` x `width` over the last two axes of a weight.

    For kernels of Dense `(input, output)` and of convolutions `(..., input, output)` the height counts input channels
    and the width output channels; leading axes (the window) are cut into single positions. Blocks at the far edges are
    smaller where the axis does not divide; a block's score is taken over its mean entry, so they compete fairly.
    The amount counts blocks: `round(amount * blocks)` of them are removed.

    Args:
        height: Entries along the last axis but one, at least 1.
        width: Entries along the last axis, at least 1.

    >>> Block(1, 2).mask(np.array([[True, False]]), np.zeros((1, 4)), 0)
    array([[False, False,  True,  True]])
    """

    def __init__(self, height: int, width: int):
        for name, value in (("height", height), ("width", width)):
            if not is_count(value):
                raise PruningError(f"Block: {name}={value!r} is no number of entries; write Block(4, 1), say.")
        self.height, self.width = height, width

    def check(self, key: str, shape: tuple[int, ...]) -> None:
        if len(shape) < 2:
            raise PruningError(f"'{key}' of shape {shape} has no two axes for {self!r}; leave it out with layers=.")

    def _pool(self, array: np.ndarray) -> np.ndarray:
        rows = np.arange(0, array.shape[-2], self.height)
        columns = np.arange(0, array.shape[-1], self.width)
        return np.add.reduceat(np.add.reduceat(array, rows, axis=-2), columns, axis=-1)

    def unit_scores(self, entries: np.ndarray, criterion: Criterion, input_axis: int) -> np.ndarray:
        cells = self._pool(np.ones(entries.shape[-2:], np.float32))
        return criterion.total(self._pool(entries) / cells)

    def pruned_units(self, kept: np.ndarray, input_axis: int) -> np.ndarray:
        return self._pool(kept.astype(np.int32)) == 0

    def mask(self, chosen: np.ndarray, entries: np.ndarray, input_axis: int) -> np.ndarray:
        rows, columns = entries.shape[-2:]
        spread = chosen.repeat(self.height, axis=-2)[..., :rows, :].repeat(self.width, axis=-1)[..., :columns]
        return np.logical_not(spread)


class NofM(Pattern):
    """Keeps the best `keep` of every `group` entries along the input-channel axis, as sparse hardware wants it.

    The axis is the one that TFLite stores last, where its kernels read a row. Along an axis that `group` does not
    divide, the last group is shorter and keeps at most `keep`, as if padded with zeros. The amount is the share of all
    entries removed; it ends at `1 - keep / group`. On the way there, the groups that lose least are thinned first.

    Args:
        keep: Entries kept of each group, at least 1.
        group: Entries in a group, more than `keep`.

    NVIDIA's 2:4 form: Mishra et al., "Accelerating sparse deep neural networks", 2021
    (https://arxiv.org/abs/2104.08378).
    """

    ranks_entries = True

    def __init__(self, keep: int, group: int):
        for name, value in (("keep", keep), ("group", group)):
            if not is_count(value):
                raise PruningError(f"NofM: {name}={value!r} is no number of entries; write NofM(2, 4).")
        if keep >= group:
            raise PruningError(f"NofM: keeping {keep} of {group} removes nothing; write NofM(keep=2, group=4).")
        self.keep, self.group = keep, group
        self.full = 1.0 - keep / group

    def _groups(
        self, input_axis: int, *arrays: np.ndarray
    ) -> Iterator[tuple[tuple[slice, slice], Sequence[np.ndarray]]]:
        """Cuts arrays of one shape into views `[before, groups, places, after]`, a few groups of places at a time.

        Where the groups do not divide the axis, the last ones come by themselves and have fewer places. With them comes
        where they are in `[before, groups, after]`.
        """
        shape = arrays[0].shape
        inputs, after = shape[input_axis], math.prod(shape[input_axis:][1:])
        flat = [array.reshape(-1, inputs, after) for array in arrays]
        whole = inputs // self.group
        rows = max(1, PIECE // max(1, inputs * after))
        columns = max(1, PIECE // max(1, self.group * after))
        cuts = [(start, min(start + columns, whole), self.group) for start in range(0, whole, columns)]
        if inputs % self.group:
            cuts.append((whole, whole + 1, inputs % self.group))
        for row, (start, stop, places) in itertools.product(range(0, len(flat[0]), rows), cuts):
            here = slice(row, row + rows)
            cut = [array[here, start * self.group : (stop - 1) * self.group + places] for array in flat]
            yield (here, slice(start, stop)), [part.reshape(len(part), stop - start, places, after) for part in cut]

    def _by_group(self, units: np.ndarray, shape: tuple[int, ...], input_axis: int) -> np.ndarray:
        """A view `[before, groups, after]` of an array of the units, which has the groups of the input axis last."""
        after = math.prod(shape[input_axis:][1:])
        return np.moveaxis(units.reshape(-1, after, units.shape[-1]), -1, 1)

    def _new_units(self, shape: tuple[int, ...], input_axis: int, dtype: Any) -> np.ndarray:
        groups = -(-shape[input_axis] // self.group)
        return np.empty((*np.delete(shape, input_axis), groups), dtype)

    def _thinned(self, groups: np.ndarray) -> list[np.ndarray]:
        """For each place in some groups, True where a thinned one keeps its entry; of equal ones it keeps the last."""
        places = [groups[:, :, place] for place in range(groups.shape[2])]
        counter = np.min_scalar_type(self.group)
        better = [np.zeros(place.shape, counter) for place in places]  # how many of the group rank above this entry
        for first, second in itertools.combinations(range(len(places)), 2):
            above = places[second] >= places[first]
            better[first] += above
            better[second] += np.logical_not(above, out=above)
        return [count < self.keep for count in better]

    def unit_scores(self, entries: np.ndarray, criterion: Criterion, input_axis: int) -> np.ndarray:
        units = self._new_units(entries.shape, input_axis, entries.dtype)
        sums = self._by_group(units, entries.shape, input_axis)
        for where, (groups,) in self._groups(input_axis, entries):
            removed = [
                np.where(kept, entries.dtype.type(0), groups[:, :, place])
                for place, kept in enumerate(self._thinned(groups))
            ]
            sums[where] = functools.reduce(np.add, removed)
        return criterion.total(units)

    def pruned_units(self, kept: np.ndarray, input_axis: int) -> np.ndarray:
        pruned = self._new_units(kept.shape, input_axis, bool)
        flags = self._by_group(pruned, kept.shape, input_axis)
        for where, (groups,) in self._groups(input_axis, kept):
            flags[where] = groups.sum(axis=2, dtype=np.min_scalar_type(self.group)) <= self.keep
        return pruned

    def mask(self, chosen: np.ndarray, entries: np.ndarray, input_axis: int) -> np.ndarray:
        mask = np.empty(entries.shape, bool)
        flags = self._by_group(chosen, entries.shape, input_axis)
        for where, (groups, target) in self._groups(input_axis, entries, mask):
            whole = np.logical_not(flags[where])
            for place, kept in enumerate(self._thinned(groups)):
                np.logical_or(kept, whole, out=target[:, :, place])
        return mask


class Template(Pattern):
    """Gives the window of every kernel that one of a few templates which keeps most of it.

    A kernel is the window by which one input channel is multiplied for one output channel: all axes of a convolution's
    weight but the last two. All templates keep the same number of entries, so the amount is known: it is the share of
    all entries removed and ends at `1 - kept / window`. On the way there, the kernels that lose least get theirs first.

    Args:
        templates: Boolean arrays (or nested lists) of the window's shape, True = kept.

    Raises:
        PruningError: No template, shapes or numbers of kept entries that differ, or one that removes nothing or all;
            when bound, a weight whose window has another shape.

    Niu et al., "PatDNN: achieving real-time DNN execution on mobile devices with pattern-based weight pruning", 2020
    (https://arxiv.org/abs/2001.00138).

    >>> cross = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    >>> corners = [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    >>> round(Template([cross, corners]).full, 3)
    0.444
    """

    ranks_entries = True

    def __init__(self, templates: Any):
        example = "[[[0, 1], [1, 1]], [[1, 1], [1, 0]]]"
        arrays = [real_array(template, "Template: a template") for template in listed("templates", templates, example)]
        if not arrays:
            raise PruningError("Template: no templates given; write Template([[[0, 1], [1, 1]], [[1, 1], [1, 0]]]).")
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) > 1 or arrays[0].ndim == 0:
            raise PruningError(f"Template: templates of shapes {shapes}; all must have the shape of the window.")
        if not all(np.isin(array, (0, 1)).all() for array in arrays):
            raise PruningError("Template: a template holds other values than True and False; write 1 where it keeps.")
        counts = sorted({int(np.count_nonzero(array)) for array in arrays})
        if len(counts) > 1:
            raise PruningError(
                f"Template: templates that keep {listing(counts)} entries, so the share of zeros would depend on the "
                "choice; let all keep the same number."
            )
        if counts[0] in (0, arrays[0].size):
            raise PruningError(f"Template: keeping {counts[0]} of {arrays[0].size} entries is no choice; keep some.")
        self.templates = np.stack(arrays).astype(bool)
        self.full = 1.0 - counts[0] / arrays[0].size

    def check(self, key: str, shape: tuple[int, ...]) -> None:
        window = self.templates.shape[1:]
        if shape[:-2] != window:
            raise PruningError(
                f"'{key}' has kernels of shape {shape[:-2]}, the templates {window}; leave it out with layers=, or "
                "write templates of its shape."
            )

    def _kept_scores(self, entries: np.ndarray) -> np.ndarray:
        """What each template keeps of each kernel: `[templates, inputs, outputs]`."""
        axes = self.templates.ndim - 1
        return np.tensordot(self.templates.astype(entries.dtype), entries, axes=axes)

    def _best(self, entries: np.ndarray) -> np.ndarray:
        """The template that keeps most of each kernel, the first among equals: a mask of the weight's shape."""
        finite = np.maximum(entries, np.finfo(entries.dtype).min / entries.size)  # what is pruned already counts least
        best = np.argmax(self._kept_scores(finite), axis=0)
        return np.moveaxis(self.templates[best], (0, 1), (-2, -1))

    def unit_scores(self, entries: np.ndarray, criterion: Criterion, input_axis: int) -> np.ndarray:
        window = tuple(range(self.templates.ndim - 1))
        return criterion.total(np.where(self._best(entries), 0.0, entries).sum(axis=window))

    def pruned_units(self, kept: np.ndarray, input_axis: int) -> np.ndarray:
        window = tuple(range(self.templates.ndim - 1))
        return kept.sum(axis=window) <= np.count_nonzero(self.templates[0])

    def mask(self, chosen: np.ndarray, entries: np.ndarray, input_axis: int) -> np.ndarray:
        return self._best(entries) | ~chosen

    def arguments(self) -> dict[str, Any]:
        return {"templates": self.templates.astype(int).tolist()}


def get(identifier: Any) -> Pattern:
    """A pattern from its name, config or itself: `"element"`, `"2:4"` (keep 2 of 4), `"4x1"` (blocks).

    Raises:
        PruningError: Anything else.

    >>> get("2:4"), get("4x1")
    (NofM(keep=2, group=4), Block(height=4, width=1))
    """
    found = re.fullmatch(r"(\d+)([:x])(\d+)", identifier) if isinstance(identifier, str) else None
    if found:
        return (NofM if found[2] == ":" else Block)(int(found[1]), int(found[3]))
    pattern = from_identifier(Pattern, identifier, {"element": Element})
    if pattern is None:
        raise PruningError(
            f"{identifier!r} is no pattern; give 'element', '2:4' (keep 2 of every 4), '4x1' (blocks), "
            "Block(height, width), NofM(keep, group) or Template(templates)."
        )
    return pattern
