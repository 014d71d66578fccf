"""Every block under `Example:` in a docstring runs as written, with a small model and data under the names it uses."""

import functools
import importlib
import inspect
import re
import textwrap

import keras
import numpy as np
import pytest
from test_docstrings import MODULES, public_members

import tfprune

L = keras.layers


def found():
    for module in map(importlib.import_module, MODULES):
        for name, thing in public_members(module):
            page = inspect.getdoc(thing) or ""
            for block in re.findall(r"^Examples?:\n((?:(?: +.*)?\n?)*)", page, flags=re.M):
                code = re.sub(r"^```.*$", "", textwrap.dedent(block), flags=re.M)
                yield pytest.param(code, id=f"{module.__name__}.{name}")


@pytest.fixture(scope="module")
def names():
    """What examples take for granted; `model` has one channel that is dead already."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    x, y = random.random((64, 28, 28, 1), np.float32), random.integers(0, 10, 64)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            L.Conv2D(4, 3, strides=4, activation="relu", name="conv1"),
            L.Flatten(),
            L.Dense(10, activation="softmax", name="logits"),
        ]
    )
    model.layers[0].kernel.assign(model.layers[0].kernel * np.array([1.0, 1.0, 1.0, 0.0]))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    data = {f"{one}_{part}": value for one, value in (("x", x), ("y", y)) for part in ("train", "val", "test")}
    lite = tfprune.convert(model)
    return {
        "keras": keras,
        "np": np,
        "tfprune": tfprune,
        "model": model,
        "lite": lite,
        "dense_lite": lite,
        "images": x,
        "x": x,
        "y": y,
        "train": (x, y),
        "val": (x, y),
        "data": (x, y),
        "keep": np.array([1, 1, 1, 0], bool),
        **data,
    }


@pytest.mark.parametrize("code", list(found()))
def test_an_example_runs_as_written(code, names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "pruned_by_tfmot.h5" in code:
        old = pytest.importorskip("tf_keras")
        old.Sequential([old.layers.Input((4,)), old.layers.Dense(2)]).save("pruned_by_tfmot.h5")
    # As written, but for how long it searches.
    short = functools.partial(tfprune.genetic_search, population=4, generations=1)
    monkeypatch.setattr(tfprune, "genetic_search", short)
    model = keras.models.clone_model(names["model"])
    model.set_weights(names["model"].get_weights())
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    exec(compile(code, "an example", "exec"), {**vars(tfprune), **names, "model": model})


def test_examples_are_found():
    assert len(list(found())) > 15
