"""How near `tfprune why` comes with what half of the channels would leave of the time, for keras.applications.

python benchmarks/predicted_times.py --output docs/benchmarks/predicted_times

The prediction is made from the dense file alone. Beside it stands the file of the network of which every layer has
really lost half of its channels. All three run in turns.
"""

import argparse
import statistics
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from sparse_applications import FAMILIES
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.lite import LiteModel
from tfprune.lite.file.narrowing import narrowed
from tfprune.lite.measure.benchmark import filled, interleaved
from tfprune.report import Column

SIZE, SHARE, RUNS, ROUNDS = 128, 0.5, 20, 5
ALLOWED = 0.15


class Predicted(Measured):
    title: ClassVar[str] = "Half of the channels: predicted time and measured time"
    columns: ClassVar[Sequence[Column]] = (
        Column("network", "network"),
        Column("dense", "dense, ms", ".2f"),
        Column("predicted", "predicted, ms", ".2f"),
        Column("shrunk", "shrunk, ms", ".2f"),
        Column("off", "off by", "+.1%"),
        Column("lowest", "low", "+.1%"),
        Column("highest", "high", "+.1%"),
    )


def row(network: str, size: int) -> dict[str, Any]:
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, network)(weights=None, input_shape=(size, size, 3))
    dense = tfprune.convert(model)
    pruned = tfprune.prune(model, tfprune.Structured(SHARE, allocation="uniform"), verbose=0)
    shrunk = tfprune.convert(tfprune.shrink(tfprune.strip_masks(pruned)))
    files = {"dense": dense, "predicted": LiteModel.written(narrowed(dense.content, SHARE)), "shrunk": shrunk}
    ready = {name: filled(lite, threads=1, xnnpack=True) for name, lite in files.items()}
    interleaved(ready, 3)
    rounds = [
        {name: statistics.median(found) for name, found in interleaved(ready, RUNS).items()} for _ in range(ROUNDS)
    ]
    off = [found["predicted"] / found["shrunk"] - 1 for found in rounds]
    times = {name: statistics.median(found[name] for found in rounds) for name in files}
    found = {"network": network, **times, "off": statistics.median(off), "lowest": min(off), "highest": max(off)}
    print(found, flush=True)
    return found


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=SIZE, help="pixels")
    parser.add_argument("networks", nargs="*", default=list(FAMILIES.values()))
    add_output(parser)
    arguments = parser.parse_args(words)
    rows = [row(network, arguments.size) for network in arguments.networks]
    near = sum(abs(found["off"]) <= ALLOWED for found in rows)
    about = [
        f"{near} of {len(rows)} within {ALLOWED:.0%}. Networks of keras.applications, {arguments.size} pixels, random "
        f"weights, float32. Predicted: the dense file with the first half of the channels of every layer, as `tfprune "
        f"why` runs it. Shrunk: half of every layer by tfprune.Structured({SHARE}, allocation='uniform'), shrunk and "
        f"converted. Medians of {ROUNDS} rounds of {RUNS} runs in turns, LiteRT, one thread; off by: predicted against "
        "shrunk, median, least and most of the rounds.",
        versions(),
    ]
    write([Predicted(rows, about)], arguments.output)


if __name__ == "__main__":
    main()
