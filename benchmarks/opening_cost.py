"""What opening and planning a transformer of BERT-base size cost, and how they grow with the number of blocks.

    python benchmarks/opening_cost.py --output docs/benchmarks/opening_cost

Each number of blocks is measured in a process of its own. The blocks are a composite layer, so that all of them open.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from keras import layers
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.report import Column

WIDTH, HEADS, HIDDEN, WORDS, STEPS = 768, 12, 3072, 30522, 512
STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Cost(Measured):
    """Processor time and memory by the number of blocks."""

    title: ClassVar[str] = "What opening and planning cost, BERT-base width"
    plotted: ClassVar[str] = "opening"
    columns: ClassVar[Sequence[Column]] = (
        Column("blocks", "blocks", "d"),
        Column("parameters", "parameters", ",d"),
        Column("opening", "opening, CPU s", ".1f"),
        Column("planning", "planning, CPU s", ".1f"),
        Column("block", "CPU s per block", ".2f"),
        Column("memory", "peak memory / model", ".2f"),
        Column("groups", "groups", "d"),
    )


class Block(layers.Layer):
    """Self-attention and an MLP, each normalised behind its residual."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name="attention")
        self.inner, self.outer = layers.Dense(HIDDEN, "gelu", name="inner"), layers.Dense(WIDTH, name="outer")
        self.norms = [layers.LayerNormalization(name=name) for name in ("attention_norm", "norm")]

    def build(self, shape: Any) -> None:
        self.attention.build(shape, shape)
        self.inner.build(shape)
        self.outer.build((*shape[:-1], HIDDEN))
        for norm in self.norms:
            norm.build(shape)

    def call(self, x: Any) -> Any:
        x = self.norms[0](x + self.attention(x, x))
        return self.norms[1](x + self.outer(self.inner(x)))


class Embedded(layers.Layer):
    """Words and places."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.words, self.places = layers.Embedding(WORDS, WIDTH, name="words"), layers.Embedding(STEPS, WIDTH)

    def build(self, shape: Any) -> None:
        self.words.build(shape)
        self.places.build(shape)

    def call(self, x: Any) -> Any:
        return self.words(x) + self.places(keras.ops.arange(keras.ops.shape(x)[1]))


def transformer(blocks: int) -> keras.Model:
    """An encoder for classification with an open length."""
    x = inputs = keras.Input((None,), dtype="int32")
    x = Embedded(name="embedded")(x)
    for number in range(blocks):
        x = Block(name=f"block_{number}")(x)
    return keras.Model(inputs, layers.Dense(2, name="classes")(x[:, 0]))


def gigabytes(key: str) -> float:
    """A figure of the process's memory."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key))
    return float(line.split()[1]) / 1e6


def measure(blocks: int) -> dict[str, Any]:
    """The row of one number of blocks."""
    model = transformer(blocks)
    model(np.ones((1, 8), "int32"))
    PEAK.write_text("5")  # the peak counts from here
    before, start = gigabytes("VmRSS"), time.process_time()
    tfprune.channel_groups(model)
    opened = time.process_time()
    plan = tfprune.plan_shrink(model, tfprune.Structured(0.3))
    planned, parameters = time.process_time(), model.count_params()
    own = 4 * parameters / 1e9
    return {
        "blocks": blocks,
        "parameters": parameters,
        "opening": opened - start,
        "planning": planned - opened,
        "block": (planned - start) / blocks,
        "memory": (gigabytes("VmHWM") - before + own) / own,  # the model and what was taken beside it
        "groups": len(plan),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, nargs="+", default=[12, 24, 48])
    parser.add_argument("--one", type=int, help="measures one number of blocks in this process, and prints JSON")
    add_output(parser)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return 0
    found = []
    for blocks in options.blocks:
        run = subprocess.run(
            [sys.executable, __file__, "--one", str(blocks)], capture_output=True, text=True, check=True
        )
        found.append(json.loads(run.stdout.splitlines()[-1]))
        print(found[-1], flush=True)
    about = [
        "Opening is `channel_groups` of the model as it is written: its blocks opened, compared with the model on two "
        "sizes, and traced. Planning is `plan_shrink` with Structured(0.3) after that, which reads every weight.",
        "Peak memory is that of the model and of all that was taken beside it, over that of the model.",
        versions(),
    ]
    write([Cost(found, about)], options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
