"""How long `tfprune.report` takes for a large network, and how large the page is.

    python benchmarks/report.py --output docs/benchmarks/report

ResNet50 with random weights, 80 % of them zero, its int8 file, and some images: each model and the file are asked once,
layers are compared, files timed and compressed. The time is that of the clock: let the machine do nothing else.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.report import Column

SECONDS, BYTES = 120, 2_000_000  # needed


class Pages(Measured):
    title: ClassVar[str] = "A report of ResNet50"
    columns: ClassVar[Sequence[Column]] = (
        Column("network", "network"),
        Column("samples", "samples", ",d"),
        Column("seconds", "seconds", ".0f"),
        Column("most_seconds", "needed", ".0f"),
        Column("processor", "seconds of processors", ".0f"),
        Column("bytes", "bytes of the page", ",d"),
        Column("most_bytes", "needed", ",d"),
    )


def measure(samples: int) -> Pages:
    keras.utils.set_random_seed(0)
    dense = keras.applications.ResNet50(weights=None)
    pruned = tfprune.strip_masks(tfprune.prune(dense, tfprune.Percentile(0.8), verbose=0))
    images = np.random.default_rng(0).normal(size=(samples, 224, 224, 3)).astype("float32")
    labels = np.asarray(dense.predict(images, verbose=0)).argmax(-1)
    lite = tfprune.convert(pruned, "int8", representative_data=images[:8])
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        began, used = time.perf_counter(), time.process_time()
        tfprune.report(pruned, dense, lite, (images, labels), page)
        seconds, processor = time.perf_counter() - began, time.process_time() - used
        load, size = max(os.getloadavg()[0] - processor / seconds, 0.0), page.stat().st_size
    row = {"network": "ResNet50, random weights", "samples": samples, "seconds": seconds, "processor": processor}
    row.update(bytes=size, most_seconds=SECONDS, most_bytes=BYTES)
    return Pages([row], ["Seed 0; one run.", f"{load:.1f} other processes wanted a core meanwhile.", versions()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64)
    add_output(parser)
    arguments = parser.parse_args()
    write([measure(arguments.samples)], arguments.output)


if __name__ == "__main__":
    main()
