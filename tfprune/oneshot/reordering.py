"""Hidden channels in another order, so that what is pruned falls into whole blocks; the model computes the same.

Blocks lose more than single entries, since large and small ones stand together. The channels between two layers may
stand in any order: sorted so that rows with large entries in the same columns become neighbours, more is kept at the
same share (Ji et al., "TETRIS: TilE-matching the TRemendous Irregular Sparsity", 2018; Pool and Yu, "Channel
permutations for N:M sparsity", 2021).
"""

import keras
import numpy as np

from tfprune.channels import certify, channel_groups
from tfprune.channels.groups import ChannelGroup, Member
from tfprune.deciding.method import Method
from tfprune.deciding.patterns import Block
from tfprune.errors import PruningError
from tfprune.model.copying import clone_with_weights
from tfprune.model.tree import as_array

ROUNDS = 200  # of exchanges between pairs of blocks
TOLERANCE = 1e-4  # of the largest output: sums are taken in another order


def reordered(model: keras.Model, method: Method) -> keras.Model:
    """An equal model whose hidden channels stand so that a method's blocks keep as much as they can.

    Args:
        model: A model whose channel groups are known; it is left as it is.
        method: A method with a pattern of blocks of several inputs, such as `Percentile(0.9, pattern="4x1")`.

    Raises:
        PruningError: The pattern has no such blocks, or the model in another order answers something else.
    """
    pattern = getattr(method, "pattern", None)
    if not isinstance(pattern, Block) or pattern.height == 1 or not method.by_share:
        raise PruningError(
            "reorder=True sorts channels so that what goes falls into whole blocks of inputs, and "
            f"{method!r} has none; write Percentile(0.9, pattern='4x1'), or leave it out."
        )
    copy = clone_with_weights(model)
    keys = {weight.key for weight in method.bind(copy).weights}
    for group in channel_groups(copy).free.values():
        rows = [_rows(member, pattern) for member in group.members if member.key in keys and _reads(member, pattern)]
        if rows:
            _put_in_order(group, best_order(np.concatenate(rows, axis=1), method.final, pattern.height))
    difference = certify(model, copy).largest
    if not difference <= TOLERANCE:
        raise PruningError(
            f"'{model.name}' with its channels in another order differs from itself by {difference:.1e} of its largest "
            "output, so a layer minds the order of its channels. Leave out reorder=True."
        )
    return copy


def _reads(member: Member, pattern: Block) -> bool:
    """Whether the channels are inputs of this weight, one entry each, in a row that begins with a block."""
    places = member.positions
    in_row = places.shape[1] == 1 and np.array_equal(places[:, 0], places[0, 0] + np.arange(len(places)))
    is_input = member.axis == len(member.variable.shape) - 2
    return is_input and in_row and places[0, 0] % pattern.height == 0


def _rows(member: Member, pattern: Block) -> np.ndarray:
    """The sizes of a weight's entries, a row for each channel, as wide as blocks are added up."""
    sizes = np.abs(as_array(member.variable)).take(member.positions[:, 0], member.axis)
    pooled = np.add.reduceat(sizes, np.arange(0, sizes.shape[-1], pattern.width), axis=-1)
    return np.moveaxis(pooled, member.axis, 0).reshape(len(member.positions), -1)


def _put_in_order(group: ChannelGroup, order: np.ndarray) -> None:
    """Moves the channels of a group on all the weights that they lie on."""
    for member in group.members:
        values = np.moveaxis(as_array(member.variable).copy(), member.axis, 0)
        values[member.positions.ravel()] = values[member.positions[order].ravel()]
        member.variable.assign(np.moveaxis(values, 0, member.axis))


def best_order(rows: np.ndarray, share: float, height: int) -> np.ndarray:
    """An order of rows in which blocks of some of them, one under the other, keep much at a share of zeros.

    Args:
        rows: Array `[rows, columns]` of sizes.
        share: The share of blocks that go, in [0, 1).
        height: Rows in a block; those of the last, shorter one stay where they are.

    Returns:
        The numbers of the rows, in their new order. The order that they have where no better one was found.
    """
    whole = len(rows) - len(rows) % height
    first = np.arange(whole).reshape(-1, height)
    if len(first) < 2:
        return np.arange(len(rows))
    found = _exchanged(_neighbours(rows[:whole], share, height), rows, share)
    best = max((first, found), key=lambda blocks: _kept(rows[blocks].sum(axis=1), share))
    return np.concatenate([best.ravel(), np.arange(whole, len(rows))])


def _kept(blocks: np.ndarray, share: float) -> float:
    """What is left of blocks when the smallest go."""
    gone = round(share * blocks.size)
    return float(np.partition(blocks.ravel(), gone)[gone:].sum()) if gone < blocks.size else 0.0


def _neighbours(rows: np.ndarray, share: float, height: int) -> np.ndarray:
    """Blocks of rows whose large entries stand in the same columns, begun with the rows that have most of them."""
    large = np.where(rows >= np.quantile(rows, share), rows, 0.0)
    alike, weight = large @ large.T, large.sum(axis=1)
    waiting = np.ones(len(rows), bool)
    blocks = np.zeros((len(rows) // height, height), int)
    for block in blocks:
        near = weight
        for place in range(height):
            block[place] = np.argmax(np.where(waiting, near, -1.0))
            waiting[block[place]] = False
            near = alike[block[: place + 1]].sum(axis=0)
    return blocks


def _exchanged(blocks: np.ndarray, rows: np.ndarray, share: float) -> np.ndarray:
    """Blocks that keep more, by exchanging rows between pairs of them drawn at random, the best pair of rows each."""
    generator, half, height = np.random.default_rng(0), len(blocks) // 2, blocks.shape[1]
    for _ in range(ROUNDS):
        sums = rows[blocks].sum(axis=1)
        threshold = np.quantile(sums, share)
        drawn = generator.permutation(len(blocks))
        one, other = drawn[:half], drawn[half : 2 * half]
        gains = np.stack([
            _above(sums[one] + moved, threshold) + _above(sums[other] - moved, threshold)
            for i, j in np.ndindex(height, height)
            for moved in (rows[blocks[other, j]] - rows[blocks[one, i]],)
        ])  # fmt: skip
        better = gains.max(axis=0) > _above(sums[one], threshold) + _above(sums[other], threshold) + 1e-6
        one, other = one[better], other[better]
        i, j = np.unravel_index(gains.argmax(axis=0)[better], (height, height))
        blocks[one, i], blocks[other, j] = blocks[other, j], blocks[one, i]
    return blocks


def _above(sums: np.ndarray, threshold: float) -> np.ndarray:
    """By how much the entries of each block exceed a threshold, added up."""
    return np.maximum(sums - threshold, 0.0).sum(axis=-1)
