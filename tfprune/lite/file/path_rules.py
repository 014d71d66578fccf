"""The rules by which an operator of a file takes its way through a runtime, each with its reason.

What is said of LiteRT and of LiteRT.js was seen by running files there: tests/lite/test_paths.py runs them again.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.lite.file import flatbuffer
from tfprune.lite.file.channels_first import ChannelsFirst
from tfprune.lite.file.flatbuffer import operator_name, shape_of, type_name
from tfprune.lite.file.kernels import POINTWISE, Kernel, block_kernel
from tfprune.lite.file.sparsity import READS_BLOCKS, block_of

DENSE, SPARSE, DENSIFIED, FALLS_BACK = "dense", "sparse kernel", "densified at load", "falls back"
FAILS, WRONG = "will fail", "wrong answers"
BROKEN = (FAILS, WRONG)

# Operators that XNNPACK takes over, tensorflow/lite/delegates/xnnpack/README.md; plain kernels run all others.
DELEGATED = {
    *("ABS", "ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CEIL", "CONCATENATION", "CONV_2D", "COS", "DEPTH_TO_SPACE"),
    *("DEPTHWISE_CONV_2D", "DEQUANTIZE", "DIV", "ELU", "EXP", "EXPAND_DIMS", "FLOOR", "FULLY_CONNECTED", "GELU"),
    *("HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL", "NEG", "PAD"),
    *("PRELU", "QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "ROUND", "RSQRT", "SIN"),
    *("SLICE", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "STRIDED_SLICE", "SUB"),
    *("SUM", "TANH", "TRANSPOSE", "TRANSPOSE_CONV", "DENSIFY"),
}


# Those that the interpreter of the package tflite-micro registers (python_ops_resolver.cc).
MICRO = {
    *("ABS", "ADD", "ADD_N", "ARG_MAX", "ARG_MIN", "ASSIGN_VARIABLE", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CAST"),
    *("CEIL", "BATCH_TO_SPACE_ND", "BROADCAST_ARGS", "BROADCAST_TO", "CALL_ONCE", "CONCATENATION", "CONV_2D", "COS"),
    *("CUMSUM", "DEPTH_TO_SPACE", "DEPTHWISE_CONV_2D", "DEQUANTIZE", "DIV", "ELU", "EQUAL", "EXP", "EXPAND_DIMS"),
    *("FILL", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "FULLY_CONNECTED", "GATHER", "GATHER_ND", "GREATER"),
    *("GREATER_EQUAL", "HARD_SWISH", "IF", "L2_NORMALIZATION", "L2_POOL_2D", "LEAKY_RELU", "LESS", "LESS_EQUAL"),
    *("LOG", "LOGICAL_AND", "LOGICAL_NOT", "MUL", "LOGICAL_OR", "LOGISTIC", "LOG_SOFTMAX", "MAX_POOL_2D", "MAXIMUM"),
    *("MEAN", "MINIMUM", "MIRROR_PAD", "NEG", "PACK", "NOT_EQUAL", "PAD", "PADV2", "PRELU", "QUANTIZE"),
    *("READ_VARIABLE", "REDUCE_MAX", "RELU", "RELU6", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
    *("ROUND", "RSQRT", "SELECT_V2", "SHAPE", "SIN", "SLICE", "SOFTMAX", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH"),
    *("SPLIT", "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SQUEEZE", "STRIDED_SLICE", "SUB", "SUM", "SVDF"),
    *("TANH", "TRANSPOSE", "TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNPACK", "VAR_HANDLE", "WHILE"),
    *("ZEROS_LIKE", "DYNAMIC_UPDATE_SLICE", "REVERSE_V2"),
}


@dataclass(frozen=True)
class Passage:
    """One operator with what its rule needs to know; `makers` has the operator that makes each tensor."""

    model: Any
    graph: Any
    operator: Any
    name: str
    runtime: str
    turned: ChannelsFirst
    number: int
    makers: Mapping[int, Any]

    @property
    def has_xnnpack(self) -> bool:
        """Whether XNNPACK takes over what it can."""
        return self.runtime != "micro"

    def kind(self, index: int) -> str:
        """The type of a tensor in the schema's words."""
        return type_name(self.graph.tensors[index])

    def sparse_inputs(self) -> list[int]:
        """The constants that it reads as they are encoded."""
        return [int(index) for index in self.operator.inputs if index >= 0 and self._tensor(index).sparsity is not None]

    def densified(self) -> list[int]:
        """The results of DENSIFY that it reads."""
        return [
            int(index)
            for index in self.operator.inputs
            if int(index) in self.makers and operator_name(self.model, self.makers[int(index)]) == "DENSIFY"
        ]

    @functools.cached_property
    def weights(self) -> int | None:
        """The constant that it multiplies with, as the file has it."""
        if len(self.operator.inputs) < 2 or self.name not in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"):
            return None
        index = int(self.operator.inputs[1])
        while index in self.makers and operator_name(self.model, self.makers[index]) in ("DENSIFY", "DEQUANTIZE"):
            index = int(self.makers[index].inputs[0])
        return index if flatbuffer.stored_bytes(self.model, self._tensor(index)) is not None else None

    @functools.cached_property
    def pattern(self) -> np.ndarray | None:
        """Where its weights are zero; None where it has none, or they are not known."""
        return None if self.weights is None else flatbuffer.zero_pattern(self.model, self._tensor(self.weights))

    def zero_blocks(self, block: int) -> float:
        """The share of blocks of so many weights that are zero whole."""
        return 0.0 if self.pattern is None else float(np.mean(self.pattern.reshape(-1, block).all(axis=1)))

    @property
    def rows(self) -> int:
        """Rows of inputs that it multiplies at once."""
        inputs = shape_of(self._tensor(self.operator.inputs[1]))[-1]
        return max(1, int(np.prod(shape_of(self._tensor(self.operator.inputs[0])))) // max(inputs, 1))

    def _tensor(self, index: int) -> Any:
        return self.graph.tensors[index]


Verdict = tuple[str, str]


def title_of(runtime: str) -> str:
    """What a runtime is called in sentences."""
    return {"web": "LiteRT.js", "micro": "tflite-micro"}.get(runtime, "LiteRT")


def _custom(passage: Passage) -> Verdict | None:
    if not passage.name.startswith("CUSTOM"):
        return None
    what = passage.name.removeprefix("CUSTOM ")
    if passage.runtime == "micro" and what == "TFLM_DECODE":
        return DENSE, "makes weights whole that are stored without their zeros; smaller in flash, no faster"
    return (
        FAILS,
        f"{title_of(passage.runtime)} has no operator '{what}'; only programs that bring it along run the file",
    )


def _reads_sparse(passage: Passage) -> Verdict | None:
    """Weights that are read as they are encoded."""
    sparse = passage.sparse_inputs()
    if not sparse or passage.name == "DENSIFY":
        return None
    if not passage.has_xnnpack:
        return WRONG, "tflite-micro takes the stored entries for dense values. Convert with sparse=False"
    if passage.name not in READS_BLOCKS or sparse != [int(passage.operator.inputs[1])]:
        return WRONG, f"{passage.name} takes the stored entries for dense values; a DENSIFY is missing"
    block = block_of(passage.graph.tensors[sparse[0]])
    source, kind = passage.kind(passage.operator.inputs[0]), passage.kind(sparse[0])
    if source != kind:
        return WRONG, f"{source.lower()} inputs and sparse {kind.lower()} weights go together in no kernel"
    known = {"FLOAT32": (1, 4), "INT8": (16,)}.get(kind, ())
    if block is not None and block < 0 and "FLOAT32" in kind and _looks_like_rows(passage.graph.tensors[sparse[0]]):
        return WRONG, "stored column by column, and the kernel takes the columns for rows"
    if block not in known:
        wanted = " or ".join(f"1x{size}" for size in known) or "no sparse weights"
        stored = f"blocks of 1x{block}" if block is not None and block > 0 else "another order"
        outcome = WRONG if passage.runtime == "web" else FAILS  # LiteRT.js goes on after a kernel has failed
        return outcome, f"stored in {stored}, and the kernel for {kind.lower()} reads {wanted}"
    version = passage.model.operatorCodes[passage.operator.opcodeIndex].version
    if version < READS_BLOCKS[passage.name]:
        return WRONG, (
            f"says version {version}, with which XNNPACK takes blocks for dense values; "
            f"{READS_BLOCKS[passage.name]} is the one that reads them"
        )
    return SPARSE, f"the kernel reads {f'blocks of 1x{block}' if block != 1 else 'single entries'}"


def _looks_like_rows(tensor: Any) -> bool:
    """Whether an encoding has the levels of rows of entries, whatever their order."""
    return len(tensor.sparsity.dimMetadata) == 2


def _micro(passage: Passage) -> Verdict | None:
    """What a microcontroller's interpreter lacks."""
    if passage.has_xnnpack:
        return None
    if passage.name not in MICRO:
        return FAILS, f"tflite-micro has no operator {passage.name}"
    kinds = [passage.kind(index) for index in passage.operator.inputs if index >= 0]
    if passage.name != "DEQUANTIZE" and kinds[:2] == ["FLOAT32", "INT8"]:
        return FAILS, "tflite-micro does not multiply float inputs with int8 weights. Convert to int8 or float32"
    if "FLOAT16" in kinds:
        return FAILS, "tflite-micro has no float16. Convert to int8 or float32"
    return None


def _densify(passage: Passage) -> Verdict | None:
    if passage.name != "DENSIFY":
        return None
    if not passage.has_xnnpack:
        return FAILS, "tflite-micro has no operator DENSIFY. Convert with sparse=False"
    return DENSIFIED, "once, when the file is loaded"


def _reads_densified(passage: Passage) -> Verdict | None:
    """Weights that DENSIFY makes dense: XNNPACK refuses some in int8."""
    densified = passage.densified()
    if not densified or not passage.has_xnnpack:
        return None
    if passage.number in passage.turned.sparse:
        return None
    source, kind = passage.kind(passage.operator.inputs[0]), passage.kind(densified[0])
    taken = passage.name == "FULLY_CONNECTED" or (passage.name == "CONV_2D" and source == "FLOAT32")
    if kind == "INT8" and source in ("INT8", "FLOAT32") and taken:
        outcome = WRONG if passage.runtime == "web" else FAILS
        return outcome, "XNNPACK cannot prepare int8 weights behind DENSIFY here. Convert with sparse=False"
    return None


def _turned(passage: Passage) -> Verdict | None:
    """Operators of a cluster that XNNPACK runs with the channels first."""
    if passage.number in passage.turned.wrong:
        return WRONG, (
            "reads the channels first and writes them last: XNNPACK's cluster of sparse 1x1 convolutions has no end "
            "here. Behind a mean put a Dense layer on two axes; elsewhere leave sparse out: tfprune.plan_sparse"
        )
    if passage.number in passage.turned.sparse:
        return SPARSE, "XNNPACK runs it with the channels first and skips zeros"
    return None


def _falls_back(passage: Passage) -> Verdict | None:
    if not passage.has_xnnpack or passage.name in DELEGATED:
        return None
    return FALLS_BACK, "XNNPACK does not take it; a plain kernel runs it"


def _dense(passage: Passage) -> Verdict | None:
    if passage.weights is None:
        return DENSE, ""
    outcome = DENSIFIED if passage.densified() else DENSE
    return outcome, _why_dense(passage, passage.weights)


RULES: Sequence[Callable[[Passage], Verdict | None]] = (
    _custom,
    _reads_sparse,
    _densify,
    _micro,
    _turned,
    _reads_densified,
    _falls_back,
    _dense,
)


def _why_dense(passage: Passage, weights: int) -> str:
    """Why zeros do not make an operator faster, and what would."""
    kernel = _kernel(passage, weights)
    if kernel is None:
        return "no kernel makes use of its zeros; fewer channels help: tfprune.plan_shrink"
    if kernel is POINTWISE:
        return _why_not_turned(passage)
    pattern = passage.pattern
    needed, rows = kernel.share(passage.rows), passage.rows
    if needed >= 1.0:
        return f"multiplies {rows} rows at once, where the dense kernel is as fast; fewer units help"
    if pattern is None or pattern.shape[-1] % kernel.block:
        return f"its inputs are no multiple of {kernel.block}; fewer units help"
    blocks = passage.zero_blocks(kernel.block)
    if blocks >= needed:
        return "its zeros are in blocks that a kernel reads: convert(..., sparse=True) stores them so"
    return f"{blocks:.0%} of its {kernel.zeros} are zero; a kernel is faster from {needed:.0%} on: tfprune.plan_sparse"


def _why_not_turned(passage: Passage) -> str:
    turned = passage.turned
    if not turned.share:
        return "no zeros are stored sparsely, so XNNPACK does not look for any: convert(..., sparse=True)"
    share = turned.share.get(passage.number, 0.0)
    if passage.number in turned.spoiler:
        other = turned.spoiler[passage.number]
        what = "what stands beside it" if other < 0 else f"operator {other}"
        return f"XNNPACK keeps the channels last because of {what}; tfprune.plan_sparse(model, 'web') tells how"
    if passage.number not in turned.share:
        return "lies in no cluster that XNNPACK runs with the channels first: tfprune.plan_sparse(model, 'web')"
    return f"{share:.0%} of the cluster's weights are zero, and XNNPACK skips them from 67% on"


def _kernel(passage: Passage, weights: int) -> Kernel | None:
    """The sparse kernel that could run an operator in this runtime."""
    kind, source = passage.kind(weights), passage.kind(passage.operator.inputs[0])
    if passage.name == "FULLY_CONNECTED" and source == kind:
        return block_kernel(passage.runtime, kind)
    if passage.name == "CONV_2D" and source == "FLOAT32" and passage.runtime in POINTWISE.runtimes:
        options = passage.operator.builtinOptions
        one = shape_of(passage.graph.tensors[weights])[1:3] == (1, 1) and (options.strideH, options.strideW) == (1, 1)
        return POINTWISE if one else None
    return None


def gain_of(passage: Passage, path: str, zeros: float) -> float:
    """How many times faster the zeros make an operator, as predicted."""
    kernel = None if passage.weights is None else _kernel(passage, passage.weights)
    if path != SPARSE or kernel is None:
        return 1.0
    return kernel.gain(zeros) if kernel is POINTWISE else kernel.gain(passage.zero_blocks(kernel.block), passage.rows)
