"""Which operators of a file XNNPACK runs with the channels first, where it skips zeros, and where that goes wrong.

It follows XNNPACK's `xnn_subgraph_rewrite_for_nchw` (src/subgraph.c), which is compiled in on ARM and in WebAssembly:
operators that can do it are joined into clusters, from a 3x3 convolution of stride 2 on 3 channels (`ENTERS`) to a mean
over the image (`LEAVES`). A cluster with an input of another layout is left as it is, and so is one with 2/3 of zeros
or fewer; but one without an end is not. Then operators read the channels first and write as if they had not: the
runtime fails, or answers garbage without a word.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfprune.lite.file import flatbuffer
from tfprune.lite.file.edit import Graph
from tfprune.lite.file.flatbuffer import operator_name, shape_of

ENTERS, INSIDE, LEAVES = "enters", "inside", "leaves"

# Functions of single values, which XNNPACK computes in any order of axes. A softmax is made of such and of a sum.
POINTWISE = {
    *("ABS", "CEIL", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "NEG", "RELU"),
    *("RELU6", "RELU_N1_TO_1", "ROUND", "RSQRT", "SQRT", "SQUARE", "TANH", "SIN", "COS", "SOFTMAX"),
}
SAME, VALID = 0, 1  # the schema's Padding


@dataclass
class Node:
    """An operator as XNNPACK sees it.

    Args:
        number: Its place in the order of execution.
        inputs: The results that it reads, constants left out.
        output: The result that it writes.
        flags: What of `ENTERS`, `INSIDE` and `LEAVES` it can do; empty where none.
        weights: Entries of its weights, and how many of them are zero, where they count.
        leader: The number of its cluster.
        spoilt: Whether it takes something that its cluster cannot.
    """

    number: int
    inputs: list[int]
    output: int
    flags: set[str]
    weights: tuple[int, int] = (0, 0)
    leader: int = 0
    spoilt: bool = False


@dataclass(frozen=True)
class ChannelsFirst:
    """What XNNPACK runs with the channels first.

    Args:
        sparse: The numbers of the operators whose zeros are skipped.
        wrong: Those that write in another order of axes than is read.
        share: The zeros of each cluster's weights, by the numbers of its 1x1 convolutions.
        spoiler: The number of an operator that keeps a cluster from it, by those numbers; -1 where none is known.
    """

    sparse: frozenset[int] = frozenset()
    wrong: frozenset[int] = frozenset()
    share: dict[int, float] = field(default_factory=dict)
    spoiler: dict[int, int] = field(default_factory=dict)


def channels_first(model: Any, graph: Any, delegated: Iterable[int]) -> ChannelsFirst:
    """Follows XNNPACK through the operators of a graph that are handed to it.

    Args:
        model: The file as objects of the schema.
        graph: Its main graph.
        delegated: The numbers of the operators that XNNPACK takes.
    """
    nodes = _nodes(model, graph, set(delegated))
    makers = {node.output: node for node in nodes}
    if not _join(nodes, makers):
        return ChannelsFirst()
    leaders = {node.number: node for node in nodes}
    for node in nodes:
        leaders[node.leader].spoilt |= node.spoilt
    readers: dict[int, int] = {}
    for operator in graph.operators:
        for index in {int(index) for index in operator.inputs}:
            readers[index] = readers.get(index, 0) + 1
    ends = {int(index) for index in graph.outputs}
    capable: dict[int, int] = {}
    for node in _turning(nodes, leaders):
        for index in node.inputs:
            capable[index] = capable.get(index, 0) + 1
    for node in _turning(nodes, leaders):
        if any(capable[index] != readers.get(index, 0) or index in ends for index in node.inputs):
            leaders[node.leader].spoilt = True
    return _laid_out(graph, nodes, leaders)


def _turning(nodes: list[Node], leaders: dict[int, Node]) -> list[Node]:
    """The nodes whose inputs would lie with the channels first."""
    return [node for node in nodes if node.flags & {INSIDE, LEAVES} and not leaders[node.leader].spoilt]


def _laid_out(graph: Any, nodes: list[Node], leaders: dict[int, Node]) -> ChannelsFirst:
    """Which results lie with the channels first in the end, and who reads and writes them."""
    totals: dict[int, np.ndarray] = {}
    for node in nodes:
        totals[node.leader] = totals.get(node.leader, np.zeros(2, int)) + node.weights
    share = {leader: float(zeros / max(count, 1)) for leader, (count, zeros) in totals.items()}
    turned = {
        index
        for node in _turning(nodes, leaders)
        if 3 * totals[node.leader][1] > 2 * totals[node.leader][0]
        for index in node.inputs
    }
    sparse, wrong = set(), set()
    for node in nodes:
        reads, writes = any(index in turned for index in node.inputs), node.output in turned
        rank = len(shape_of(graph.tensors[node.output]))
        if node.flags & {INSIDE} and reads and not writes and LEAVES not in node.flags and rank == 4:
            wrong.add(node.number)
        elif reads and node.weights[0] and rank == 4:
            sparse.add(node.number)
    counted = [node for node in nodes if node.weights[0]]
    spoilers = {node.leader: node.number for node in reversed(nodes) if node.spoilt and node.number != node.leader}
    return ChannelsFirst(
        frozenset(sparse),
        frozenset(wrong),
        {node.number: share[node.leader] for node in counted},
        {node.number: spoilers.get(node.leader, -1) for node in counted if leaders[node.leader].spoilt},
    )


def _join(nodes: list[Node], makers: dict[int, Node]) -> bool:
    """Joins nodes into clusters, from their ends backwards; False where no end is found and nothing is done."""

    def take_in(node: Node) -> bool:
        joined = False
        for index in node.inputs:
            maker = makers.get(index)
            if maker is None or not maker.flags & {ENTERS, INSIDE} or maker.spoilt:
                node.spoilt = True
                continue
            maker.flags.discard(LEAVES)
            if maker.leader != node.leader:
                maker.leader = node.leader = max(maker.leader, node.leader)
                joined = True
        return joined

    def sweep(flags: set[str]) -> bool:
        joined = [take_in(node) for node in nodes if node.flags & flags and not node.spoilt]
        return any(joined)

    if not sweep({LEAVES}):
        return False
    while sweep({INSIDE, LEAVES}):
        pass
    return True


def _nodes(model: Any, graph: Any, delegated: set[int]) -> list[Node]:
    """The operators as XNNPACK has them after it has joined paddings to the convolutions behind them."""
    pads = {}
    readers: dict[int, int] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            readers[int(index)] = readers.get(int(index), 0) + 1
    for number, operator in enumerate(graph.operators):
        if operator_name(model, operator) == "PAD" and number in delegated and readers[int(operator.outputs[0])] == 1:
            amounts = flatbuffer.stored_values(model, graph.tensors[operator.inputs[1]])
            if amounts is not None and len(amounts) == 8:
                around = amounts.reshape(4, 2)
                if not around[[0, 3]].any():
                    pads[int(operator.outputs[0])] = (number, int(operator.inputs[0]), around[1:3].reshape(-1).tolist())
    nodes, fused, whole = [], set(), Graph(model, graph)
    for number, operator in enumerate(graph.operators):
        name = operator_name(model, operator)
        if number not in delegated or name in ("DENSIFY", "DEQUANTIZE"):
            continue
        made = [int(index) for index in operator.inputs if index >= 0 and not whole.is_constant(int(index))]
        node = Node(number, made, int(operator.outputs[0]), set(), leader=number)
        padding: list[int] | None = None
        if made and made[0] in pads and name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            pad, source, sides = pads[made[0]]
            if operator.builtinOptions.padding == VALID:
                padding, node.inputs = sides, [source, *made[1:]]
                fused.add(pad)
        node.flags = _flags(model, graph, operator, padding)
        if node.flags and name in ("CONV_2D", "FULLY_CONNECTED") and ENTERS not in node.flags:
            node.weights = _zeros(model, graph, int(operator.inputs[1]))
        nodes.append(node)
    return [node for node in nodes if node.number not in fused]


def _zeros(model: Any, graph: Any, index: int) -> tuple[int, int]:
    pattern = flatbuffer.zero_pattern(model, graph.tensors[Graph(model, graph).source(index)])
    return (0, 0) if pattern is None else (pattern.size, int(np.count_nonzero(pattern)))


def _flags(model: Any, graph: Any, operator: Any, padding: list[int] | None) -> set[str]:
    """What an operator can do with the channels first; nothing where it computes in integers."""
    name = operator_name(model, operator)
    inputs = [graph.tensors[index] for index in operator.inputs if index >= 0]
    kinds = {flatbuffer.type_name(tensor) for tensor in (inputs[0], graph.tensors[operator.outputs[0]])}
    if not kinds <= {"FLOAT32"}:
        return set()
    shapes = [shape_of(tensor) for tensor in inputs]
    options = operator.builtinOptions
    if name == "FULLY_CONNECTED":
        return {INSIDE} if Graph(model, graph).is_constant(int(operator.inputs[1])) else set()
    if len(shapes[0]) != 4:
        return set()
    if name in POINTWISE or name == "RESIZE_BILINEAR":
        return {INSIDE}
    if name in ("ADD", "MUL"):
        return {INSIDE} if all(len(shape) == 4 for shape in shapes) else set()
    if name in ("MEAN", "SUM"):
        return {INSIDE, LEAVES}
    if name == "DEPTH_TO_SPACE":
        return {LEAVES}
    if name == "CONV_2D":
        return _convolution(options, shapes, padding)
    if name == "DEPTHWISE_CONV_2D":
        return _depthwise(options, shapes, padding)
    return set()


def _convolution(options: Any, shapes: list[tuple[int, ...]], padding: list[int] | None) -> set[str]:
    window, strides, channels = shapes[1][1:3], (options.strideH, options.strideW), shapes[0][-1]
    if channels != shapes[1][-1] or (options.dilationHFactor, options.dilationWFactor) != (1, 1):
        return set()
    if window == (1, 1) and strides == (1, 1) and not any(padding or ()):
        return {INSIDE}
    stem = window == (3, 3) and strides == (2, 2) and channels == 3 and padding == [1, 1, 1, 1]
    return {ENTERS} if stem else set()


def _depthwise(options: Any, shapes: list[tuple[int, ...]], padding: list[int] | None) -> set[str]:
    window, strides = shapes[1][1:3], (options.strideH, options.strideW)
    if window not in ((3, 3), (5, 5)) or strides not in ((1, 1), (2, 2)) or options.depthMultiplier != 1:
        return set()
    if (options.dilationHFactor, options.dilationWFactor) != (1, 1):
        return set()
    if options.padding == SAME:
        return {INSIDE} if strides == (1, 1) else set()
    return {INSIDE} if padding == [window[0] // 2] * 4 else set()
