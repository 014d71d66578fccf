"""The images that the benchmarks train on, without a network where the machine brings them along."""

import os
import shutil
from pathlib import Path

from tfprune.command import datasets
from tfprune.command.datasets import Dataset

# Where Debian's package dataset-fashion-mnist puts the four original files.
PACKAGED = Path("/usr/share/datasets/fashion-mnist")


def fashion_mnist(samples: int | None = None) -> Dataset:
    """Fashion-MNIST from the cache of Keras, from Debian's package, or downloaded by Keras; in that order.

    Args:
        samples: How many of the training images, from the first on. Defaults to None: all.
    """
    cached = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets" / "fashion-mnist"
    if not cached.exists() and PACKAGED.exists():
        shutil.copytree(PACKAGED, cached)
    data = datasets.load("fashion_mnist")
    return data._replace(x_train=data.x_train[:samples], y_train=data.y_train[:samples])
