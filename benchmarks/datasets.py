"""The images that the benchmarks train on, without a network where the machine brings them along."""

import os
import shutil
from pathlib import Path

from tfprune import datasets
from tfprune.datasets import Dataset

# Where Debian's package dataset-fashion-mnist puts the four original files.
PACKAGED = Path("/usr/share/datasets/fashion-mnist")


def fashion_mnist() -> Dataset:
    """Fashion-MNIST from the cache of Keras, from Debian's package, or downloaded by Keras; in that order."""
    cached = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets" / "fashion-mnist"
    if not cached.exists() and PACKAGED.exists():
        shutil.copytree(PACKAGED, cached)
    return datasets.load("fashion_mnist")
