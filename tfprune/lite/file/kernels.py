"""The kernels that are faster with zeros, as data: what each takes, in which pattern, from which share it wins.

The figures are of one thread and relative to the dense kernel of the same layer; `benchmarks/sparse.py` measures them.
"""

import math
from dataclasses import dataclass

from tfprune.errors import PruningError, nearest

RUNTIMES = ("litert", "web", "arm", "micro")


@dataclass(frozen=True)
class Kernel:
    """One way through a runtime that makes use of zeros.

    Args:
        name: What it is called in plans.
        runtimes: Where it is compiled in.
        quantization: What it computes in.
        block: Entries along the input axis (TFLite's last) that have to be zero together; 1 for any zeros.
        kept_costs: Time of an entry that is kept, over that of an entry of the dense kernel, by the least number of
            rows of inputs for which it holds: a dense kernel reads its weights once for many rows.
        fixed_cost: Time that it takes with nothing but zeros, over that of the dense kernel.
        tolerance: How much slower a layer may become by it where the size of the file counts (`sparse="size"`).
        surroundings: What has to be around the layer, in words.
        source: Where these conditions are read from or measured.
    """

    name: str
    runtimes: tuple[str, ...]
    quantization: str
    block: int
    kept_costs: tuple[tuple[int, float], ...]
    fixed_cost: float
    tolerance: float
    surroundings: str
    source: str

    @property
    def zeros(self) -> str:
        """The zeros it uses, in words."""
        return f"blocks of 1x{self.block}" if self.block > 1 else "single entries"

    @property
    def pattern(self) -> str:
        """The pattern of a Keras kernel, whose inputs come first, as methods take it."""
        return f"{self.block}x1" if self.block > 1 else "element"

    def kept_cost(self, rows: int = 1) -> float:
        """Time of an entry that is kept, over that of an entry of the dense kernel, for so many rows of inputs."""
        return next(cost for least, cost in reversed(self.kept_costs) if rows >= least)

    def gain(self, share: float, rows: int = 1) -> float:
        """How many times faster the layer is than its dense self with this share of zeros."""
        return 1.0 / max(self.fixed_cost + self.kept_cost(rows) * (1.0 - share), 0.01)

    def share(self, rows: int = 1) -> float:
        """The share of zeros from which the layer is faster than its dense self, in whole hundredths."""
        return math.ceil(100 * (1.0 - (1.0 - self.fixed_cost) / self.kept_cost(rows))) / 100


FULLY_CONNECTED = "tensorflow/lite/kernels/fully_connected.cc, EvalFloat and EvalQuantized"

DENSE_FLOAT = Kernel(
    name="Dense float 1x4",
    runtimes=("litert", "arm"),
    quantization="float32",
    block=4,
    kept_costs=((1, 5.2), (4, 6.5), (16, 11.0)),
    fixed_cost=0.02,
    tolerance=2.0,
    surroundings="",
    source=f"{FULLY_CONNECTED}: blocks of 1x4; measured on x86 with LiteRT 2.3.0, layers of 1024 and 2048",
)
DENSE_FLOAT_WEB = Kernel(
    name="Dense float 1x4 in WebAssembly",
    runtimes=("web",),
    quantization="float32",
    block=4,
    kept_costs=((1, 6.4), (4, 8.0), (16, 13.0)),
    fixed_cost=0.05,
    tolerance=2.0,
    surroundings="",
    source=f"{FULLY_CONNECTED}: blocks of 1x4; measured in LiteRT.js 2.5.3, layers of 1024",
)
DENSE_INT8 = Kernel(
    name="Dense int8 1x16",
    runtimes=("litert", "arm"),
    quantization="int8",
    block=16,
    kept_costs=((1, 11.8),),
    fixed_cost=0.5,
    tolerance=2.0,
    surroundings="",
    source=f"{FULLY_CONNECTED}: blocks of 1x16; measured on x86 with VNNI and LiteRT 2.3.0, layers of 1024 and 2048",
)
POINTWISE = Kernel(
    name="1x1 convolution",
    runtimes=("web", "arm"),
    quantization="float32",
    block=1,
    kept_costs=((1, 2.8),),
    fixed_cost=0.0,
    tolerance=1.0,
    surroundings="a cluster from a 3x3 stem of stride 2 on 3 channels to a mean over the image",
    source="XNNPACK src/subgraph.c, xnn_subgraph_rewrite_for_nchw; measured in LiteRT.js 2.5.3",
)
KERNELS = (DENSE_FLOAT, DENSE_FLOAT_WEB, DENSE_INT8, POINTWISE)
BLOCKS = {"FLOAT32": DENSE_FLOAT, "INT8": DENSE_INT8}  # those that files are written for, by the type of the weights


def block_kernel(runtime: str, kind: str) -> Kernel | None:
    """The kernel of a runtime that reads blocks of weights of this type, `"FLOAT32"`; None where it has none."""
    return next((k for k in KERNELS if k.block > 1 and runtime in k.runtimes and k.quantization.upper() == kind), None)


def kernels_for(runtime: str, quantization: str) -> list[Kernel]:
    """The kernels that a runtime has for a quantization.

    Raises:
        PruningError: One of them is not known.
    """
    if runtime not in RUNTIMES:
        raise PruningError(f"runtime={runtime!r} is unknown. {nearest(str(runtime), RUNTIMES)}")
    if quantization not in ("float32", "int8"):
        raise PruningError(
            f"quantization={quantization!r} has no sparse kernel: write 'float32' or 'int8'. Zeros of the others make "
            "the file smaller, and no faster."
        )
    return [kernel for kernel in KERNELS if runtime in kernel.runtimes and quantization == kernel.quantization]
