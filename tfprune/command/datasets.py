"""Data sets that the command knows by name, as images in [0, 1] with a channel axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from tfprune.errors import PruningError, nearest, require

if TYPE_CHECKING:  # the names are known before Keras is imported
    import numpy as np


class Dataset(NamedTuple):
    """Images `(n, height, width, channels)` in [0, 1] and class numbers, for training and for testing."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of `"train"` or `"test"`."""
        return (self.x_train, self.y_train) if name == "train" else (self.x_test, self.y_test)


def digits() -> Dataset:
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn brings along; every fourth is for testing.

    Raises:
        MissingPackageError: scikit-learn is missing.
    """
    import numpy as np

    sklearn = require("sklearn.datasets", extra="demo", purpose="The data set of digits")
    images, labels = sklearn.load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32).reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(images))  # the file is sorted by writer
    images, labels = images[order], labels[order]
    count = len(images) * 3 // 4
    return Dataset(images[:count], labels[:count], images[count:], labels[count:])


def _from_keras(name: str) -> Callable[[], Dataset]:
    def load() -> Dataset:
        import keras
        import numpy as np

        try:
            (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
        except Exception as error:  # Keras raises a bare Exception when a download fails
            raise PruningError(
                f"keras.datasets.{name} is not on this machine and cannot be downloaded: {error} "
                "Without a network, copy its files to ~/.keras/datasets, or use digits."
            ) from error
        images = [(array / np.float32(255.0)).astype(np.float32) for array in (x_train, x_test)]
        train, test = (array[..., None] if array.ndim == 3 else array for array in images)
        return Dataset(train, y_train.reshape(-1), test, y_test.reshape(-1))

    load.__doc__ = f"`keras.datasets.{name}`, from the cache of Keras or downloaded by it."
    return load


NAMES: dict[str, Callable[[], Dataset]] = {
    "digits": digits,
    "fashion_mnist": _from_keras("fashion_mnist"),
    "mnist": _from_keras("mnist"),
    "cifar10": _from_keras("cifar10"),
}


def load(name: str) -> Dataset:
    """The data set of this name.

    Raises:
        PruningError: The name is not known, or the data are not there and cannot be downloaded.

    >>> load("digits").x_train.shape
    (1347, 8, 8, 1)
    """
    if name not in NAMES:
        raise PruningError(f"There is no data set '{name}'. {nearest(name, NAMES)}")
    return NAMES[name]()


def shaped(images: np.ndarray, shape: tuple[Any, ...]) -> np.ndarray:
    """The images in the shape that a model takes, where it has the same number of entries: flat, or without channels.

    >>> shaped(np.zeros((3, 8, 8, 1)), (None, 64)).shape
    (3, 64)
    """
    wanted = tuple(shape[1:])
    fits = None not in wanted and math.prod(wanted) == math.prod(images.shape[1:])
    return images.reshape(len(images), *wanted) if fits else images
