"""Where tensors meet: entry by entry, or summed against one another."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.channels.labels import KEPT, Channels, Factor, Line
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.registry import (
    Resized,
    fresh_operation,
    layer_of_applications,
    layer_rule,
    operation_rule,
)
from tfprune.channels.rules.weighted import letter_axes
from tfprune.channels.visit import Visit

layers = keras.layers
ops = keras.ops

Function = Callable[..., Any]


def merged(
    visit: Visit,
    operands: Sequence[Channels],
    function: Function | None = None,
    index: int = 0,
    absorbing: bool = False,
) -> Channels:
    """What goes out where tensors meet entry by entry, as under broadcasting.

    Channels that meet go together. A channel that meets entries which stay is frozen, except where the other tensor
    has a single entry for all of them.

    Args:
        visit: the call.
        operands: what meets, constants included, in the order of `function`'s arguments.
        function: gives the values; None when they are not to be followed.
        index: which output this is.
        absorbing: whether zero meets anything as zero (products).
    """
    shape = visit.shapes[index]
    rank = len(shape)
    sizes = [(1,) * (rank - len(op.shape)) + tuple(op.shape) for op in operands]
    lists = [[factor.aligned(rank) for factor in op.factors] for op in operands]
    factors: list[Factor] = []
    while any(lists):
        # The widest factor first: those that vary along fewer axes join it.
        owner = max((i for i in range(len(lists)) if lists[i]), key=lambda i: len(lists[i][0].axes))
        factor = lists[owner].pop(0)
        partners: list[Factor | None] = [None] * len(operands)
        partners[owner] = factor
        for other in range(len(operands)):
            if other == owner or operands[other].constant is not None:
                continue
            meeting = [axis for axis in factor.axes if sizes[other][axis] == shape[axis]]
            found = [f for f in lists[other] if set(f.axes) & set(meeting)]
            alone = [axis for axis in meeting if not any(axis in f.axes for f in found)]
            if alone:
                # Along these axes the other tensor cannot lose entries.
                rest = [axis for axis in factor.axes if axis not in alone]
                if not rest:
                    visit.freeze(factor, Reason.FIXED_PARTNER)
                    partners = [None] * len(operands)
                    break
                factor = visit.tied(factor, rest)
                partners[owner] = factor
            for partner in found:
                visit.join(*np.broadcast_arrays(factor.labels, partner.labels))
                partners[other] = partner
            lists[other] = [f for f in lists[other] if not any(f is partner for partner in found)]
        if any(partner is not None for partner in partners):
            factors.append(_met(visit, partners, operands, function, absorbing))
    return visit.result(factors, index)


def _met(
    visit: Visit,
    partners: Sequence[Factor | None],
    operands: Sequence[Channels],
    function: Function | None,
    absorbing: bool,
) -> Factor:
    present = [partner for partner in partners if partner is not None]
    labels = present[0].labels
    for partner in present[1:]:
        ours, theirs = np.broadcast_arrays(labels, partner.labels)
        labels = np.where(ours == KEPT, theirs, ours)
    rank = labels.ndim
    values = []
    for name in ("masked", "now"):
        arrays = [
            _constant(operand, rank) if partner is None else getattr(partner, name)
            for partner, operand in zip(partners, operands)
        ]
        values.append(_evaluate(function, arrays, absorbing, labels.shape))
    masked, now = values
    if np.isinf(masked).any():
        visit.freeze(labels, Reason.NOT_FINITE)
    alike = all(
        _is_alike(operand, labels.shape) if partner is None else partner.alike
        for partner, operand in zip(partners, operands)
    )
    return Factor(labels, masked, np.where(np.isfinite(now), now, math.nan), alike)


def _is_alike(operand: Channels, shape: tuple[int, ...]) -> bool:
    """Whether an operand has a single entry along every axis where labels of this compact shape vary."""
    padded = (*(1 for _ in shape), *operand.shape)[-len(shape) :]
    return all(theirs == 1 or ours == 1 for ours, theirs in zip(shape, padded))


def _constant(operand: Channels, rank: int) -> np.ndarray:
    if operand.constant is None:
        return np.full((1,) * rank, math.nan)
    array = np.asarray(operand.constant, np.float64)
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _evaluate(
    function: Function | None, arrays: Sequence[np.ndarray], absorbing: bool, shape: tuple[int, ...]
) -> np.ndarray:
    full = np.broadcast_arrays(*arrays, np.zeros(shape))[:-1]
    known = ~np.any([np.isnan(array) for array in full], axis=0)
    result = np.full(full[0].shape, math.nan)
    if function is not None and known.any():
        with np.errstate(all="ignore"):
            given = [array[known].astype(np.float32) for array in full]
            result[known] = np.asarray(function(*given), np.float64)
            # A value that is no number, such as 0 / 0, is as bad as an infinite one.
            result[known] = np.where(np.isnan(result[known]), math.inf, result[known])
    if absorbing:
        result[np.any([array == 0 for array in full], axis=0)] = 0.0
    return result


def _merge_rule(function: Function, absorbing: bool = False) -> Callable[[Visit], Channels]:
    def rule(visit: Visit) -> Channels:
        """Entry by entry."""
        return merged(visit, _operands(visit), function, absorbing=absorbing)

    return rule


def _operands(visit: Visit) -> list[Channels]:
    """Tensors, arrays and numbers among the arguments, in order."""
    found = []
    for x in keras.tree.flatten((visit.args, visit.kwargs)):
        if isinstance(x, Channels):
            found.append(x)
        elif isinstance(x, (int, float, np.number)) and not isinstance(x, bool):
            found.append(Channels((), constant=np.asarray(x)))
    return found


def _sum(*arrays: np.ndarray) -> np.ndarray:
    return np.sum(arrays, axis=0)


def _product(*arrays: np.ndarray) -> np.ndarray:
    return np.prod(arrays, axis=0)


def _mean(*arrays: np.ndarray) -> np.ndarray:
    return np.mean(arrays, axis=0)


def _largest(*arrays: np.ndarray) -> np.ndarray:
    return np.max(arrays, axis=0)


def _smallest(*arrays: np.ndarray) -> np.ndarray:
    return np.min(arrays, axis=0)


layer_rule(layers.Add)(_merge_rule(_sum))
layer_rule(layers.Subtract)(_merge_rule(np.subtract))
layer_rule(layers.Multiply)(_merge_rule(_product, absorbing=True))
layer_rule(layers.Average)(_merge_rule(_mean))
layer_rule(layers.Maximum)(_merge_rule(_largest))
layer_rule(layers.Minimum)(_merge_rule(_smallest))


@layer_rule(layer_of_applications("inception_resnet_v2", "CustomScaleLayer"))
def scaled_sum(visit: Visit) -> Channels:
    """x[0] + scale * x[1]."""
    return merged(visit, visit.inputs, lambda x, y: x + y * visit.layer.scale)


# Operations entry by entry: what they give is looked up by running NumPy's function of the same name.
_BINARY = {
    "Add": np.add, "Subtract": np.subtract, "Maximum": np.maximum, "Minimum": np.minimum, "Fmax": np.fmax,
    "Fmin": np.fmin, "Hypot": np.hypot, "Arctan2": np.arctan2, "Logaddexp": np.logaddexp, "Logaddexp2": np.logaddexp2,
    "Equal": np.equal, "NotEqual": np.not_equal, "Greater": np.greater, "GreaterEqual": np.greater_equal,
    "Less": np.less, "LessEqual": np.less_equal, "LogicalAnd": np.logical_and, "LogicalOr": np.logical_or,
    "LogicalXor": np.logical_xor,
}  # fmt: skip


def slice_constants(args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> tuple[Any, dict[str, Any]]:
    """The arguments with every constant array cut to the entries that stay in the output."""

    def cut(x: Any) -> Any:
        if not (isinstance(x, (np.ndarray, np.generic)) or (keras.ops.is_tensor(x) and not _is_symbolic(x))):
            return x
        array = keras.ops.convert_to_numpy(x)
        rank = len(new.outputs[0])
        for axis in range(array.ndim):
            kept = new.kept(0, axis + rank - array.ndim)
            if kept is not None and array.shape[axis] == len(kept):
                array = array.compress(kept, axis)
        return array

    return keras.tree.map_structure(cut, (args, kwargs))


def _is_symbolic(x: Any) -> bool:
    return isinstance(x, keras.KerasTensor)


def replay_with_constants(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    """Calls a fresh operation with its constants cut."""
    args, kwargs = slice_constants(args, kwargs, new)
    return fresh_operation(op)(*args, **kwargs)


for _name, _function in _BINARY.items():
    operation_rule(_name, replay=replay_with_constants)(_merge_rule(_function))
operation_rule("Multiply", replay=replay_with_constants)(_merge_rule(_product, absorbing=True))


@operation_rule("Divide", "TrueDivide", "FloorDivide", "Mod", "Fmod", "Power", replay=replay_with_constants)
def division(visit: Visit) -> Channels:
    """A masked channel below the line must not be zero."""
    functions = {"Divide": np.divide, "TrueDivide": np.divide, "FloorDivide": np.floor_divide, "Power": np.power}
    function = functions.get(type(visit.layer).__name__, np.mod)
    operands = _operands(visit)
    for operand in operands[1:]:
        for factor in operand.factors:
            visit.freeze(factor.labels[~(np.isfinite(factor.masked) & (factor.masked != 0))], Reason.NOT_FINITE)
    return merged(visit, operands, function)


@operation_rule("DivideNoNan", replay=replay_with_constants)
def guarded_division(visit: Visit) -> Channels:
    """Division that gives 0 for x / 0."""
    return merged(visit, _operands(visit))


@operation_rule("Where", replay=replay_with_constants)
def where(visit: Visit) -> Channels:
    """`keras.ops.where(condition, x, y)`."""
    return merged(visit, _operands(visit), np.where)


# Sums of products


def contracted(
    visit: Visit, operands: Sequence[Channels], axes: Sequence[dict[str, int]], result: dict[str, int]
) -> Channels:
    """What goes out of an einsum: `axes` says which axis of each operand a letter stands for, `result` of the output.

    Along a letter that is summed the operands lose the same channels, of which at least one is zero while masked.
    Along the others channels pass, and go together where operands share the letter.
    """
    remaining = [list(operand.factors) for operand in operands]
    for letter in {letter for places in axes for letter in places if letter not in result}:
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
    return merged(visit, placed)


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


@operation_rule("Einsum")
def einsum(visit: Visit) -> Channels:
    """`keras.ops.einsum` with "->"."""
    operands = [x for x in keras.tree.flatten((visit.args, visit.kwargs)) if isinstance(x, Channels)]
    equation = visit.layer.subscripts.replace(" ", "")
    if "->" not in equation or any(operand.constant is not None for operand in operands):
        return visit.freeze_all(Reason.MIXED)[0]
    terms, result = equation.split("->")
    axes = [letter_axes(term, operand.rank) for term, operand in zip(terms.split(","), operands)]
    if any(len(set(term.replace(".", ""))) != len(term.replace(".", "")) for term in terms.split(",")):
        return visit.freeze_all(Reason.MIXED)[0]
    return contracted(visit, operands, axes, letter_axes(result, len(visit.shape)))


@operation_rule("Matmul")
def matmul(visit: Visit) -> Channels:
    """`keras.ops.matmul` and `x @ y`."""
    operands = _operands(visit)
    if any(operand.constant is not None or operand.rank < 2 for operand in operands):
        return visit.freeze_all(Reason.MIXED)[0]
    rank = len(visit.shape)
    letters = [chr(ord("A") + axis) for axis in range(rank - 2)]
    batch = [letters[rank - 2 - (op.rank - 2) :] for op in operands]
    axes = [
        {letter: axis for axis, letter in enumerate([*batch[0], "m", "k"])},
        {letter: axis for axis, letter in enumerate([*batch[1], "k", "n"])},
    ]
    return contracted(visit, operands, axes, {letter: axis for axis, letter in enumerate([*letters, "m", "n"])})


@layer_rule(layers.Dot)
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
    return contracted(visit, [x, y], axes, {letter: axis for axis, letter in enumerate(result)})
