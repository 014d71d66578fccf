"""Which families of keras.applications have kernels that skip zeros, for how much of their work, or what is in the way.

python benchmarks/sparse.py applications --output docs/benchmarks/sparse_applications
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.report import Column

FAMILIES = {
    "MobileNet": "MobileNet",
    "MobileNetV2": "MobileNetV2",
    "MobileNetV3": "MobileNetV3Large",
    "EfficientNet": "EfficientNetB0",
    "EfficientNetV2": "EfficientNetV2B0",
    "DenseNet": "DenseNet121",
    "Inception": "InceptionV3",
    "InceptionResNet": "InceptionResNetV2",
    "NASNet": "NASNetMobile",
    "ResNet": "ResNet50",
    "ResNetV2": "ResNet50V2",
    "VGG": "VGG16",
    "Xception": "Xception",
    "ConvNeXt": "ConvNeXtTiny",
}
SIZE = 224


class Taken(Measured):
    title: ClassVar[str] = "Where zeros make keras.applications faster"
    columns: ClassVar[Sequence[Column]] = (
        Column("family", "family"),
        Column("network", "network"),
        Column("web", "web, arm", ".0%"),
        Column("litert", "litert", ".0%"),
        Column("gain", "gain at 90%", ".1f"),
        Column("pointwise", "in 1x1", ".0%"),
        Column("reason", "what is in the way"),
    )


def layer_at(model: keras.Model, path: str) -> keras.layers.Layer:
    """The layer of a path, in models inside the model too."""
    for name in path.split("/"):
        model = model.get_layer(name)
    return model


def row(family: str, network: str) -> dict[str, Any]:
    keras.backend.clear_session()
    model = getattr(keras.applications, network)(weights=None, input_shape=(SIZE, SIZE, 3))
    plans = {runtime: tfprune.plan_sparse(model, runtime) for runtime in ("web", "litert")}
    macs = sum(found.macs for found in plans["web"].layers)
    share = {name: sum(found.macs for found in plan.prunable) / macs for name, plan in plans.items()}
    reasons: Counter[str] = Counter()
    for found in plans["web"].layers:
        reasons[found.reason] += found.macs if found.reason else 0
    convolutions = [found for found in plans["web"].layers if found.kind == "Conv2D"]
    layers = [layer_at(model, found.layer) for found in convolutions]
    pointwise = [found.macs for found, layer in zip(convolutions, layers) if layer.kernel_size == (1, 1)]
    return {
        "family": family,
        "network": network,
        **share,
        "gain": plans["web"].gain(0.9),
        "pointwise": sum(pointwise) / macs,
        "reason": None if share["web"] >= 0.5 else plans["web"].cluster.broken or reasons.most_common(1)[0][0],
    }


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_output(parser)
    arguments = parser.parse_args(words)
    found = []
    for family, network in FAMILIES.items():
        found.append(row(family, network))
        print(found[-1], flush=True)
    taken = [one["family"] for one in found if max(one["web"], one["litert"]) >= 0.5]
    about = [
        f"{SIZE} pixels; shares of the multiply-accumulates in layers that plan_sparse finds a kernel for, in float32: "
        "web (LiteRT.js) and arm, and litert (x86). in 1x1: the share in 1x1 convolutions, the most that the web's "
        "kernel could ever take. The gain is predicted from multiply-accumulates, for web.",
        f"For half of their work or more: {', '.join(taken)}, {len(taken)} of {len(found)} families.",
        versions(),
    ]
    write([Taken(found, about)], arguments.output)


if __name__ == "__main__":
    main()
