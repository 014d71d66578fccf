"""Sums of products: einsum, matmul and their kin."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfprune.channels.labels import Channels, Factor, Line
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.merging import merged, operands_of, outer_constant, staying
from tfprune.channels.rules.registry import Entry, Replay, Resized
from tfprune.channels.visit import Visit
from tfprune.model.fresh import fresh_operation
from tfprune.model.layers import Equation, letter_axes

Letters = dict[str, int]  # the axis that each letter stands for


def _contracted(visit: Visit, operands: Sequence[Channels], axes: Sequence[Letters], result: Letters) -> Channels:
    remaining = [list(operand.factors) for operand in operands]
    for letter in _summed(operands, axes, result):
        holders = [i for i, places in enumerate(axes) if letter in places]
        lines: list[Line] = []
        complete = True
        for i in holders:
            axis = axes[i][letter]
            crossing = [f for f in remaining[i] if axis in f.axes]
            remaining[i] = [f for f in remaining[i] if axis not in f.axes]
            lines += [visit.tied(f, [axis]).line(axis) for f in crossing]
            complete &= bool(crossing)
        if not complete:
            for line in lines:
                visit.freeze(line, Reason.MIXED)
            continue
        for line in lines[1:]:
            visit.join(lines[0].labels, line.labels)
        if lines:
            masked = np.where(np.any([line.masked == 0 for line in lines], axis=0), 0.0, math.nan)
            now = np.where(np.any([line.now == 0 for line in lines], axis=0), 0.0, math.nan)
            visit.demand_zero(lines[0].labels, masked, now, Reason.MIXED)
    rank = len(visit.shape)
    placed = []
    for operand, places, factors in zip(operands, axes, remaining):
        shape: list[int | None] = [1] * rank
        order = []
        for letter, axis in places.items():
            if letter in result:
                shape[result[letter]] = operand.shape[axis]
                order.append((result[letter], axis))
        moved = tuple(_placed(visit, factor, order, rank) for factor in factors)
        placed.append(Channels(tuple(shape), tuple(factor for factor in moved if factor is not None)))
    return merged(visit, placed, absorbing=len(placed))  # a sum of products with zeros is zero


def _summed(operands: Sequence[Channels], axes: Sequence[Letters], result: Letters) -> list[str]:
    """The letters that are summed, first those along which every operand has channels: one factor may lie along two."""
    letters = dict.fromkeys(letter for places in axes for letter in places if letter not in result)

    def is_incomplete(letter: str) -> bool:
        along = [(op, places[letter]) for op, places in zip(operands, axes) if letter in places]
        return not all(any(axis in factor.axes for factor in operand.factors) for operand, axis in along)

    return sorted(letters, key=is_incomplete)


def _side_by_side(visit: Visit, operands: list[Channels], axes: Sequence[Letters], result: Letters) -> list[Channels]:
    """Notes the heads of a product: products of inputs' samples, each of which is a sum of its own.

    A weight has no axis of samples, and experts side by side in it are no heads.
    """
    samples = [letter for letter, axis in result.items() if axis == 0 and all(p.get(letter) == 0 for p in axes)]
    if len(operands) < 2 or not samples:
        return operands
    for letter in result:
        if letter not in samples and all(letter in places for places in axes):
            operands = [visit.split_heads(op, places[letter]) for op, places in zip(operands, axes)]
    return operands


def _placed(visit: Visit, factor: Factor, order: list[tuple[int, int]], rank: int) -> Factor | None:
    """The factor on the axes of the output."""
    if not set(factor.axes) <= {axis for _, axis in order}:
        visit.freeze(factor, Reason.OTHER_AXIS)  # along axes under the dots
        return None
    order = sorted(order)
    others = tuple(axis for axis in range(factor.labels.ndim) if axis not in [a for _, a in order])

    def move(values: np.ndarray) -> np.ndarray:
        values = values.transpose([*(axis for _, axis in order), *others])
        target = [1] * rank
        for (place, _), size in zip(order, values.shape):
            target[place] = size
        return values.reshape(target)

    return factor.map(move)


def einsum(visit: Visit) -> Channels:
    """`keras.ops.einsum` with "->"."""
    if "->" not in visit.layer.subscripts or Equation.parse(visit.layer.subscripts).repeats_a_letter:
        return visit.freeze_all(Reason.MIXED)[0]
    operands = [x for x in keras.tree.flatten((visit.args, visit.kwargs)) if isinstance(x, Channels)]
    return product(
        visit, operands, *_letters_of_einsum(visit.layer, [operand.rank for operand in operands], len(visit.shape))
    )


def matmul(visit: Visit) -> Channels:
    """`keras.ops.matmul` and `x @ y`."""
    operands = operands_of(visit)
    if any(operand.rank < 2 for operand in operands):
        return visit.freeze_all(Reason.MIXED)[0]
    return product(
        visit, operands, *_letters_of_matmul(visit.layer, [operand.rank for operand in operands], len(visit.shape))
    )


def tensordot(visit: Visit) -> Channels:
    """`keras.ops.tensordot`, over axes that are counted or listed."""
    operands = operands_of(visit)
    ranks = [operand.rank for operand in operands]
    return product(visit, operands, *_letters_of_tensordot(visit.layer, ranks, len(visit.shape)))


def product(visit: Visit, operands: list[Channels], axes: Sequence[Letters], result: Letters) -> Channels:
    """What goes out of an einsum: `axes` says which axis of each operand a letter stands for, `result` of the output.

    Along a letter that is summed the operands lose the same channels, of which at least one is zero while masked.
    Along the others channels pass, and go together where operands share the letter. Constants lose the entries that
    others lose, and bring channels of their own.
    """
    plain = [
        operand
        if operand.constant is None
        else replace(outer_constant(visit, operand, place, axes[place].values()), constant=None)
        for place, operand in enumerate(operands)
    ]
    if all(operand.constant is None for operand in operands):
        plain = _side_by_side(visit, plain, axes, result)
    return _contracted(visit, plain, axes, result)


def _letters_of_einsum(op: Any, ranks: Sequence[int], rank: int) -> tuple[list[Letters], Letters]:
    equation = Equation.parse(op.subscripts)
    axes = [letter_axes(term, own) for term, own in zip(equation.terms, ranks)]
    return axes, letter_axes(equation.result, rank)


def _letters_of_matmul(_: Any, ranks: Sequence[int], rank: int) -> tuple[list[Letters], Letters]:
    letters = [chr(ord("A") + axis) for axis in range(rank - 2)]
    terms = [[*letters[rank - own :], *last] for own, last in zip(ranks, ("mk", "kn"))]
    axes = [{letter: axis for axis, letter in enumerate(term)} for term in terms]
    return axes, {letter: axis for axis, letter in enumerate([*letters, "m", "n"])}


def _letters_of_tensordot(op: Any, ranks: Sequence[int], _: int) -> tuple[list[Letters], Letters]:
    left, right = ranks
    count = op.axes
    summed = (range(left - count, left), range(count)) if isinstance(count, int) else count
    names = [[f"x{axis}" for axis in range(left)], [f"y{axis}" for axis in range(right)]]
    for one, other in zip(*summed):
        names[0][one] = names[1][other] = f"k{one % left}"
    axes = [{letter: axis for axis, letter in enumerate(term)} for term in names]
    return axes, {letter: axis for axis, letter in enumerate(n for term in names for n in term if n[0] != "k")}


def _replay(letters_of: Callable[[Any, Sequence[int], int], tuple[list[Letters], Letters]]) -> Replay:
    def replay(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
        """Constants lose the entries that the output and the other operands lose."""
        operands = keras.tree.flatten((args, kwargs))
        axes, result = letters_of(op, [len(operand.shape) for operand in operands], len(new.outputs[0]))
        kept = {letter: new.kept(0, axis) for letter, axis in result.items()}
        symbolic = [place for place, operand in enumerate(operands) if isinstance(operand, keras.KerasTensor)]
        for index, place in enumerate(symbolic):
            kept |= {letter: new.kept_input(index, axis) for letter, axis in axes[place].items() if letter not in kept}
        for place, operand in enumerate(operands):
            if place not in symbolic:
                array = keras.ops.convert_to_numpy(operand)
                operands[place] = staying(array, {axis: kept.get(letter) for letter, axis in axes[place].items()})
        return fresh_operation(op)(*operands)

    return replay


def dot(visit: Visit) -> Channels:
    """Sums the product of two inputs over one axis of each; with `normalize` both are first divided by their length."""
    x, y = visit.inputs
    given = visit.layer.axes
    left, right = (given, given) if isinstance(given, int) else given
    left, right = x.axis(left), y.axis(right)
    names = ["b", *(f"x{i}" for i in range(1, x.rank))], ["b", *(f"y{i}" for i in range(1, y.rank))]
    names[0][left] = names[1][right] = "k"
    result = ["b", *(n for n in names[0][1:] if n != "k"), *(n for n in names[1][1:] if n != "k")]
    if visit.layer.normalize:
        for operand, axis in ((x, left), (y, right)):
            for line in visit.take(operand, axis)[0]:
                visit.demand_zero(line.labels, line.masked, line.now, Reason.NORMALIZED)
    axes = [{letter: axis for axis, letter in enumerate(term)} for term in names]
    return product(visit, [x, y], axes, {letter: axis for axis, letter in enumerate(result)})


def convolution(visit: Visit) -> Channels:
    """`keras.ops.conv` by a kernel that is computed, as of weight normalisation: a product at each place."""
    operands = operands_of(visit)
    if len(operands) != 2 or any(operand.constant is not None for operand in operands):
        return visit.freeze_all(Reason.INPUT_SHAPE)[0]
    x, kernel = operands
    last = x.rank - 1
    if (visit.layer.data_format or keras.config.image_data_format()) == "channels_first":
        return visit.freeze_all(Reason.OTHER_AXIS)[0]
    if x.shape[last] != kernel.shape[-2]:  # in groups
        return visit.freeze_all(Reason.MIXED)[0]
    x = replace(x, factors=tuple(visit.frozen_axis(x, range(1, last), Reason.OTHER_AXIS)))
    kernel = replace(kernel, factors=tuple(visit.frozen_axis(kernel, range(last - 1), Reason.OTHER_AXIS)))
    axes = {"b": 0, "k": last}, {"k": last - 1, "n": last}
    return product(visit, [x, kernel], axes, {"b": 0, "n": last})


LAYERS: dict[type | None, Entry] = {keras.layers.Dot: Entry(dot)}
OPERATIONS = {
    "Conv": Entry(convolution),
    "Einsum": Entry(einsum, replay=_replay(_letters_of_einsum)),
    "Matmul": Entry(matmul, replay=_replay(_letters_of_matmul)),
    "Tensordot": Entry(tensordot, replay=_replay(_letters_of_tensordot)),
}
