"""Which families of keras.applications convert to int8 whole, one network of each.

    python benchmarks/int8_applications.py --output docs/benchmarks/int8_applications

Networks have random weights, since only their operators are asked about: whether every one has an int8 form, how many
bytes come out, and whether LiteRT runs the file. What prevents a conversion is written as tfprune says it.
"""

import argparse
import gc
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.report import Column

SIDE, SAMPLES = 96, 4
FAMILIES = {
    "VGG": "VGG16",
    "ResNet": "ResNet50",
    "ResNet V2": "ResNet50V2",
    "Inception": "InceptionV3",
    "Inception-ResNet": "InceptionResNetV2",
    "Xception": "Xception",
    "MobileNet": "MobileNet",
    "MobileNet V2": "MobileNetV2",
    "MobileNet V3": "MobileNetV3Small",
    "DenseNet": "DenseNet121",
    "NASNet": "NASNetMobile",
    "EfficientNet": "EfficientNetB0",
    "EfficientNet V2": "EfficientNetV2B0",
    "ConvNeXt": "ConvNeXtTiny",
}


class Conversions(Measured):
    """One network of each family in int8."""

    title: ClassVar[str] = "keras.applications in int8"
    plotted: ClassVar[str] = "kilobytes"
    columns: ClassVar[Sequence[Column]] = (
        Column("family", "family"),
        Column("network", "network"),
        Column("outcome", "int8"),
        Column("operators", "operators", ",d"),
        Column("in_float", "of these in float", ",d"),
        Column("float_kilobytes", "weights in float32, kB", ",.0f"),
        Column("kilobytes", "int8 kB", ",.0f"),
    )

    def notes(self) -> list[str]:
        return [
            f"Images of {SIDE}x{SIDE}, {SAMPLES} of them to calibrate on, random weights, 1,000 classes; batch_size=1. "
            "'whole': no operator computes in floating point, and LiteRT runs the file.",
            versions(),
        ]


def converted(family: str, network: str) -> dict[str, Any]:
    """Builds, converts and runs one network."""
    keras.utils.set_random_seed(0)
    begin = time.perf_counter()
    model = getattr(keras.applications, network)(weights=None, input_shape=(SIDE, SIDE, 3))
    images = np.random.default_rng(0).uniform(0, 255, (SAMPLES, SIDE, SIDE, 3)).astype(np.float32)
    row: dict[str, Any] = {"family": family, "network": network}
    try:
        lite = tfprune.convert(model, "int8", representative_data=images)
        lite(images[:1])
        report = lite.inspect()
        row |= {
            "outcome": "whole" if not report.float_ops else f"but for {', '.join(report.float_ops)}",
            "operators": len(report.operators),
            "in_float": sum(report.float_ops.values()),
            "kilobytes": lite.size / 1000,
            "float_kilobytes": 4 * model.count_params() / 1000,
        }
    except (tfprune.ConversionError, tfprune.PruningError) as error:
        row["outcome"] = str(error)
    print(f"{row} in {time.perf_counter() - begin:.0f} s", flush=True)
    keras.backend.clear_session()
    gc.collect()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    add_output(parser)
    arguments = parser.parse_args()
    write([Conversions([converted(family, FAMILIES[family]) for family in arguments.families])], arguments.output)


if __name__ == "__main__":
    main()
