"""Fixtures that several test files share, and which files begin first."""

import gc
import os

import keras
import numpy as np
import pytest

from tfprune.model.native import only_new_garbage

os.environ["COLUMNS"] = "120"  # tables are as wide as the terminal, which differs with who starts the tests

# Thousands of tests build and drop graphs: garbage is looked for seldom.
gc.set_threshold(50_000, 20, 20)

# Files that take minutes; begun first, so that no process is left alone with one of them in the end.
LONGEST = ("random_graphs", "convert", "keras_applications", "neighbours", "applications", "from_tfmot", "workflows")


def pytest_collection_modifyitems(items):
    """Sorts the longest files to the front."""
    first = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path.stem, len(first)))


@pytest.fixture(scope="session")
def digits():
    """Scikit-learn's 8x8 digits: images in [0, 1] with a channel axis, and labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images[..., None] / 16.0).astype(np.float32), data.target


@pytest.fixture
def policy():
    """Sets the global dtype policy for one test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.fixture
def collected_quickly():
    """Lets what Keras collects at every weight that goes be found among the objects of the test alone."""
    with only_new_garbage():
        yield
