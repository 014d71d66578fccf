"""Open sizes: which numbers stand for them in a trace, and how a graph says them again.

Code that computes with sizes runs as it is when every size is a number. So a trace has fixed sizes, and a second one
has others: what differs between the two is what depends on an open size, and by how much.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras

Pair = tuple[int, int]


class InputSpec(NamedTuple):
    """One input of a model: its name, shape (None for an open size) and type."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class Size(NamedTuple):
    """An open size in a graph: that of an axis of a tensor, so many times, and so much more."""

    tensor: Any
    axis: int
    more: int = 0
    times: int = 1

    def line(self) -> Any:
        """Zeros, as many as the size."""
        first = (0,) * (len(self.tensor.shape) - 1)
        line = keras.ops.moveaxis(self.tensor, self.axis, 0)[(slice(None), *first)]
        line = keras.ops.zeros_like(line, dtype="int32")
        line = keras.ops.concatenate([line] * self.times) if self.times > 1 else line
        if self.more < 0:
            return line[: self.more, ...]  # outside of a trace Keras takes no slice alone
        return keras.ops.pad(line, (self.more, 0)) if self.more else line


def index_like(size: Size) -> Any:
    """0, 1, 2, ... up to an open size."""
    return keras.ops.cumsum(size.line() + 1) - 1


def length(size: Size) -> Any:
    """An open size as a number."""
    return keras.ops.sum(size.line() + 1)


def zeros_along(size: Size, rank: int, axis: int) -> Any:
    """As many zeros as an open size, shaped to broadcast along one axis of a tensor of some rank."""
    return placed(size.line(), rank, axis)


def placed(line: Any, rank: int, axis: int) -> Any:
    """A tensor of one axis, shaped to broadcast along one of `rank` axes."""
    for other in range(rank):
        if other != axis:
            line = keras.ops.expand_dims(line, other)
    return line


def spread(x: Any, sizes: dict[int, Size]) -> Any:
    """A tensor with axes of length 1 made as long as open sizes.

    Zeros are subtracted: `keras.ops.add` on TensorFlow takes a second tensor with one axis for a bias, and adds it
    along axis 1 where that happens to be as long as the batch.
    """
    for axis, size in sizes.items():
        zeros = keras.ops.cast(zeros_along(size, len(x.shape), axis), x.dtype)
        x = keras.ops.logical_or(x, zeros) if x.dtype == "bool" else x - zeros
    return x


BATCH = (3, 2)
# The first of them suit sequences. Convolutional stems need larger ones, and short tables of positions smaller ones.
# No product with BATCH is alike in both traces, nor as much more than a length as in the other.
LENGTHS = ((11, 13), (5, 7), (64, 160), (224, 256), (2048, 2560))
SHORT = (2, 3)  # for a comparison alone: a trace takes such sizes for others of a model
MORE_LENGTHS = ((17, 21), (23, 29), (31, 39))  # further open sizes beside the first of LENGTHS, told apart by these


def groupings(specs: Sequence[InputSpec]) -> Iterator[list[list[Any]]]:
    """Ways to say which open axes are equally long: for each axis of each input a key, None where its size is fixed.

    Each for itself; those of an encoder's and of a decoder's inputs; all lengths alike. Equal ways come once.
    """

    def own(spec: InputSpec, axis: int) -> Any:
        return (spec.name, axis)

    def side(spec: InputSpec, axis: int) -> Any:
        prefix = spec.name.split("_")[0]
        return (prefix if prefix in ("encoder", "decoder") else "", axis if len(spec.shape) > 2 else 1)

    def alike(spec: InputSpec, axis: int) -> Any:
        return axis if len(spec.shape) > 3 else 1

    seen = []
    for key in (own, side, alike):
        found = [
            [key(spec, axis) if axis and size is None else None for axis, size in enumerate(spec.shape)]
            for spec in specs
        ]
        order = list(dict.fromkeys(each for keys in found for each in keys if each is not None))
        numbered = [[None if each is None else order.index(each) for each in keys] for keys in found]
        if numbered not in seen:
            seen.append(numbered)
            yield numbered


def sizes_for(specs: Sequence[InputSpec], groups: Sequence[Sequence[Any]], lengths: Pair) -> list[list[Pair]]:
    """The two sizes of every axis of every input in the two traces."""

    def pair(number: int) -> Pair:
        if number == 0 or lengths[0] > 60:
            return lengths
        if lengths == LENGTHS[0]:
            return MORE_LENGTHS[(number - 1) % len(MORE_LENGTHS)]
        return lengths[0] + 2 * number, lengths[1] + 4 * number

    return [
        [
            (size, size) if size is not None else BATCH if group is None else pair(group)
            for size, group in zip(spec.shape, keys)
        ]
        for spec, keys in zip(specs, groups)
    ]
