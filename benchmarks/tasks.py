"""Five tasks that are no classification, each made small by one call of `compress` within a bound on its own metric.

    python benchmarks/tasks.py --output docs/benchmarks/tasks
    python benchmarks/tasks.py --task regression --seeds 0 1 2

`segmentation` finds garments and their kind in noise; `regression` tells by how many degrees a garment is turned; `two
outputs` names a garment on a larger canvas and puts a box around it, each with its own bound; `text` is a transformer
that tells the next letter of the documentation of the Python language; `recommender` ranks items for users from their
numbers alone, so nearly all that it is lies in embeddings. The images are Fashion-MNIST's, the likings are drawn. A
network is trained, `compress` makes a file of it by training and validation data, and both are judged on test data that
nothing has seen before, by figures that are worked out here.
"""

import argparse
import itertools
import json
import pydoc_data.topics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from datasets import fashion_mnist
from scipy import ndimage
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.report import Column

layers = keras.layers
BATCH = 64
IMAGES = (3000, 500, 1000)  # to train on, to decide by, to judge on
SMALLER = 6.0  # times, over the dense float file
Arrays = Any


@dataclass
class Task:
    """One task with its network, untrained.

    Attributes:
        model: Compiled.
        train, val, test: Inputs and targets.
        bound: `max_drop` of `compress`.
        figures: Name of a metric -> its value for (targets, outputs) in NumPy, worked out apart from `compress`.
        arguments: What else `compress` is told.
        epochs: Of the training.
    """

    model: keras.Model
    train: tuple[Arrays, Arrays]
    val: tuple[Arrays, Arrays]
    test: tuple[Arrays, Arrays]
    bound: float | str | dict[str, float | str]
    figures: Mapping[str, Callable[[Arrays, Arrays], float]]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 12


def parted(x: Arrays, y: Arrays, counts: Sequence[int] = IMAGES) -> list[tuple[Arrays, Arrays]]:
    """Inputs and targets in three parts of so many samples each."""
    ends = np.cumsum([0, *counts])
    whole = list(itertools.pairwise(ends.tolist()))
    return [keras.tree.map_structure(lambda each, a=a, b=b: each[a:b], (x, y)) for a, b in whole]


def garments(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As many images of Fashion-MNIST as a task takes, `(n, 28, 28)` in [0, 1], and their classes."""
    data = fashion_mnist()
    chosen = np.random.default_rng(seed).permutation(len(data.x_train))[: sum(IMAGES)]
    return data.x_train[chosen][..., 0], data.y_train[chosen]


def convolved(x: Any, width: int, strides: int = 1) -> Any:
    """A convolution, its batch norm and a ReLU."""
    x = layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))


def segmentation(seed: int) -> Task:
    """A U-Net that finds garments in noise and tells which of four kinds each pixel is of."""
    images, classes = garments(seed)
    kinds = np.array([1, 2, 1, 1, 1, 3, 1, 3, 4, 3])  # of the classes: above the waist, trousers, shoes, bags
    y = np.where(images > 0.1, kinds[classes][:, None, None], 0).astype("int32")
    noise = np.random.default_rng(seed).normal(0, 0.25, images.shape)
    train, val, test = parted((images + noise)[..., None].astype("float32"), y)
    inputs = keras.Input((28, 28, 1))
    outer = convolved(convolved(inputs, 8), 8)
    middle = convolved(convolved(layers.MaxPooling2D()(outer), 24), 24)
    x = convolved(convolved(layers.MaxPooling2D()(middle), 48), 48)
    for before, width in ((middle, 24), (outer, 8)):
        x = convolved(layers.Concatenate()([layers.UpSampling2D()(x), before]), width)
    model = keras.Model(inputs, layers.Conv2D(5, 1, name="kinds")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    figures = {"iou": mean_overlap}
    return Task(model, train, val, test, 0.02, figures, {"metric": "iou", "epochs": 6, "sparsities": ()}, epochs=8)


def mean_overlap(targets: np.ndarray, outputs: np.ndarray) -> float:
    """The mean over the kinds of the pixels that both say are of it, over those that either does."""
    told = outputs.argmax(axis=-1)
    parts = [((targets == kind) & (told == kind), (targets == kind) | (told == kind)) for kind in range(5)]
    return float(np.mean([both.sum() / either.sum() for both, either in parts]))


def regression(seed: int) -> Task:
    """A CNN that tells by how many degrees, up to 45 either way, a garment is turned."""
    images, _ = garments(seed)
    angles = np.random.default_rng(seed).uniform(-45, 45, len(images)).astype("float32")
    turned = [ndimage.rotate(image, angle, reshape=False, order=1) for image, angle in zip(images, angles)]
    train, val, test = parted(np.stack(turned)[..., None].astype("float32"), angles[:, None])
    inputs = x = keras.Input((28, 28, 1))
    for width, strides in ((16, 1), (32, 2), (64, 2), (64, 2)):
        x = convolved(x, width, strides)
    x = layers.Dense(64, activation="relu")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(1, name="degrees")(x))
    model.compile(keras.optimizers.Adam(2e-3), "mse", metrics=["mae"])
    return Task(model, train, val, test, "10%", {"mae": apart}, {"epochs": 8})


def apart(targets: np.ndarray, outputs: np.ndarray) -> float:
    """The mean absolute error."""
    return float(np.abs(np.reshape(targets, np.shape(outputs)) - outputs).mean())


def two_outputs(seed: int) -> Task:
    """A CNN that names the one garment on a canvas and puts a box around it."""
    images, classes = garments(seed)
    random = np.random.default_rng(seed)
    canvas, boxes = random.uniform(0, 0.15, (len(images), 40, 40)), np.zeros((len(images), 4), "float32")
    for image, onto, box in zip(images, canvas, boxes):
        size = int(random.integers(18, 29))
        small = ndimage.zoom(image, size / 28, order=1)
        top, left = random.integers(0, 40 - size + 1, 2)
        onto[top : top + size, left : left + size] += small
        rows, columns = (np.flatnonzero((small > 0.1).any(axis=axis)) for axis in (1, 0))
        box[:] = top + rows[0], left + columns[0], top + rows[-1] + 1, left + columns[-1] + 1
    y = {"box": boxes / 40, "kind": classes.astype("int32")}
    train, val, test = parted(canvas[..., None].astype("float32"), y)
    inputs = x = keras.Input((40, 40, 1))
    for width, strides in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 2)):
        x = convolved(x, width, strides)
    x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    ends = {"box": layers.Dense(4, name="box")(x), "kind": layers.Dense(10, name="kind")(x)}
    model = keras.Model(inputs, ends)
    loss = {"box": "mse", "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    metrics, parts = {"box": ["mae"], "kind": ["accuracy"]}, {"box": 20.0, "kind": 1.0}
    model.compile(keras.optimizers.Adam(2e-3), loss, loss_weights=parts, metrics=metrics)

    def right(targets: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> float:
        return float((outputs["kind"].argmax(axis=-1) == targets["kind"]).mean())

    figures = {"box mae": lambda targets, outputs: apart(targets["box"], outputs["box"]), "kind accuracy": right}
    return Task(model, train, val, test, {"box": "10%", "kind": 0.02}, figures, {"epochs": 8, "sparsities": ()})


def text(seed: int) -> Task:
    """A transformer of two blocks that tells each next letter of a text, of 48 before it at most."""
    length, width, heads = 48, 64, 4
    whole = "\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    letters = sorted(set(whole), key=lambda letter: (-whole.count(letter), letter))[:63]
    numbers = np.array([1 + letters.index(each) if each in letters else 0 for each in whole], "int32")
    count = (len(numbers) - 1) // length
    x, y = (numbers[shift : shift + count * length].reshape(count, length) for shift in (0, 1))
    train, val, test = parted(x[-5000:], y[-5000:], (4000, 500, 500))  # the later pages are for judging
    tokens = keras.Input((length,), dtype="int32", name="letters")
    places = keras.ops.cumsum(keras.ops.ones_like(tokens), axis=1) - 1
    z = layers.Embedding(64, width)(tokens) + layers.Embedding(length, width)(places)
    for _ in range(2):
        normed = layers.LayerNormalization(epsilon=1e-6)(z)
        z = z + layers.MultiHeadAttention(heads, width // heads)(normed, normed, use_causal_mask=True)
        hidden = layers.Dense(4 * width, activation="gelu")(layers.LayerNormalization(epsilon=1e-6)(z))
        z = z + layers.Dense(width)(hidden)
    model = keras.Model(tokens, layers.Dense(64, name="next")(layers.LayerNormalization(epsilon=1e-6)(z)))
    model.compile(keras.optimizers.Adam(2e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    arguments = {"metric": bits_error, "epochs": 4, "sparsities": ()}
    return Task(model, train, val, test, "5%", {"bits_error": bits_error}, arguments, epochs=8)


def bits_error(targets: np.ndarray, outputs: np.ndarray) -> float:
    """The bits that each next letter takes, by its probability."""
    logits = outputs - outputs.max(axis=-1, keepdims=True)
    shares = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return float(-np.take_along_axis(shares, targets[..., None].astype(int), -1).mean() / np.log(2))


CHOICES = 20  # items that are ranked for a user, one of which was liked


def recommender(seed: int) -> Task:
    """Two embeddings of 32 values for 3,000 users and 1,500 items, and two layers behind them."""
    users, items, random = 3000, 1500, np.random.default_rng(seed)
    tastes, kinds = random.normal(size=(users, 6)), random.normal(size=(items, 6))
    popular = random.normal(size=items)
    scores = tastes @ kinds.T / np.sqrt(6) + 0.7 * popular - 1.2
    liked = random.random(scores.shape) < 1 / (1 + np.exp(-3 * scores))
    pairs = random.permutation(users * items)[:120_000]
    train = {"user": pairs // items, "item": pairs % items}, liked.reshape(-1)[pairs].astype("float32")
    held = np.ones(users * items, bool)
    held[pairs] = False
    val, test = (
        ranked(liked, held.reshape(liked.shape), random, chosen) for chosen in (range(1000), range(1000, 2000))
    )
    user, item = keras.Input((), dtype="int32", name="user"), keras.Input((), dtype="int32", name="item")
    x = layers.Concatenate()([layers.Embedding(users, 32)(user), layers.Embedding(items, 32)(item)])
    for width in (128, 64):
        x = layers.Dense(width, activation="relu")(x)
    model = keras.Model({"user": user, "item": item}, layers.Dense(1, activation="sigmoid", name="liked")(x))
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    return Task(
        model, train, val, test, 0.02, {"hit_rate": hit_rate}, {"metric": hit_rate, "batch_size": 512}, epochs=4
    )


def ranked(liked: np.ndarray, held: np.ndarray, random: np.random.Generator, users: range) -> tuple[Any, np.ndarray]:
    """For each user one liked item and others that were not, in rows of `CHOICES`; none of them was trained on."""
    user, item = [], []
    for each in users:
        good, bad = np.flatnonzero(liked[each] & held[each]), np.flatnonzero(~liked[each] & held[each])
        user += [each] * CHOICES
        item += [random.choice(good), *random.choice(bad, CHOICES - 1, replace=False)]
    y = np.tile(np.arange(CHOICES) == 0, len(users)).astype("float32")
    return {"user": np.array(user), "item": np.array(item)}, y


def hit_rate(targets: np.ndarray, outputs: np.ndarray) -> float:
    """The share of users whose liked item is among the three ranked first."""
    rows = outputs.reshape(-1, CHOICES)
    return float(((rows[:, 1:] >= rows[:, :1]).sum(axis=1) < 3).mean())


TASKS: dict[str, Callable[[int], Task]] = {
    "segmentation": segmentation,
    "regression": regression,
    "two outputs": two_outputs,
    "text": text,
    "recommender": recommender,
}


class Tasks(Measured):
    """A row for each metric of each task and seed."""

    title: ClassVar[str] = "Tasks that are no classification"
    columns: ClassVar[Sequence[Column]] = (
        Column("task", "task"),
        Column("seed", "seed"),
        Column("metric", "metric"),
        Column("dense", "dense", ".4g"),
        Column("file", "int8 file", ".4g"),
        Column("standard_error", "±", ".2g"),
        Column("allowed", "bound", ".4g"),
        Column("kept", "bound kept"),
        Column("dense_test", "dense, test", ".4g"),
        Column("file_test", "int8 file, test", ".4g"),
        Column("dense_bytes", "dense bytes", ",d"),
        Column("bytes", "bytes", ",d"),
        Column("smaller", "times smaller", ".1f"),
        Column("gzip", "compressed", ".1f"),
        Column("differs", "file and Keras differ", ".2%"),
        Column("minutes", "minutes", ".1f"),
    )


def learn(model: keras.Model, x: Arrays, y: Arrays, epochs: int, size: int = BATCH) -> None:
    """Trains a compiled model in place, at a fifth of its rate in the end; `compress` goes on with the whole rate."""
    rate = float(model.optimizer.learning_rate)
    falling = keras.callbacks.LearningRateScheduler(lambda epoch: rate * (0.2 if epoch >= 0.7 * epochs else 1))
    model.fit(x, y, batch_size=size, epochs=epochs, verbose=0, callbacks=[falling])
    model.optimizer.learning_rate = rate


def measured(name: str, seed: int) -> list[dict[str, Any]]:
    """Trains a network for a task, compresses it, and judges both."""
    keras.utils.set_random_seed(seed)
    task = TASKS[name](seed)
    (x, y), (x_test, y_test) = task.train, task.test
    learn(task.model, x, y, task.epochs, task.arguments.get("batch_size", BATCH))
    began = time.monotonic()
    arguments = {"batch_size": BATCH, **task.arguments}
    result = tfprune.compress(task.model, task.train, task.val, task.bound, seed=seed, verbose=0, **arguments)
    minutes = (time.monotonic() - began) / 60
    print(result, flush=True)
    checked = tfprune.verify(result.model, result.lite, x_test, y_test, metric=task.arguments.get("metric"))
    print(checked, flush=True)
    dense, given = task.model.predict(x_test, batch_size=256, verbose=0), answers(result.lite, x_test)
    ratios, rows = result.ratios, []
    for metric, figure in zip(result.metrics, task.figures):
        judged = result.metrics[metric]
        worse = (judged["value"] - judged["dense"]) * (1 if judged["mode"] == "min" else -1)
        row = {"task": name, "seed": seed, "metric": metric, **judged, "file": judged["value"]}
        row["kept"] = "yes" if worse <= judged["allowed"] + 1e-9 else "NO, and said"
        row |= {"dense_test": task.figures[figure](y_test, dense), "file_test": task.figures[figure](y_test, given)}
        row |= {"dense_bytes": round(result.lite.size / ratios["bytes"]), "bytes": result.lite.size}
        row |= {"smaller": 1 / ratios["bytes"], "gzip": 1 / ratios["gzip_bytes"], "minutes": minutes}
        rows.append(row | {"differs": difference(result.model, result.lite, x_test)})
    return rows


def answers(lite: Any, x: Any) -> Any:
    """What a file answers, by output name where there are several."""
    given = lite(x)
    return dict(zip(given.names, given)) if isinstance(given, list) else given


def difference(model: keras.Model, lite: Any, x: Any) -> float:
    """How far a file is from its Keras model: the root mean square of differences over that of the values, at most."""
    wanted, given = (
        keras.tree.flatten(model.predict(x, batch_size=256, verbose=0)),
        keras.tree.flatten(answers(lite, x)),
    )
    return max(float(np.sqrt(np.mean((a - b) ** 2) / np.mean(a**2))) for a, b in zip(wanted, given))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--kept", type=Path, help="a file of what is measured already, to go on from")
    add_output(parser)
    options = parser.parse_args()
    kept = options.kept.read_text().splitlines() if options.kept and options.kept.exists() else []
    rows: list[dict[str, Any]] = [json.loads(line) for line in kept]
    for name in options.task:
        for seed in options.seeds:
            if not any((row["task"], row["seed"]) == (name, seed) for row in rows):
                rows += measured(name, seed)
                if options.kept:
                    options.kept.write_text("".join(json.dumps(row) + "\n" for row in rows))
    order = list(TASKS)
    rows.sort(key=lambda row: (order.index(row["task"]), row["seed"]))
    short = [f"{row['task']} of seed {row['seed']}" for row in rows if row["smaller"] < SMALLER]
    said = f"NOT {SMALLER:g} times smaller: {', '.join(dict.fromkeys(short))}." if short else ""
    about = [
        "Dense, int8 file: the metric on the validation data, of the trained network and of the file that "
        "`compress(model, train, val, max_drop, metric=...)` made of it; ±: the standard error of what was lost; "
        "bound: how much worse it may be. Test: both on data that no decision has seen, worked out in NumPy. Times "
        "smaller: over the float32 file of the dense network, as it is and compressed by gzip; zeros count in the "
        "latter alone. Differ: the file from its Keras model on the test data, root mean squares over those of the "
        "values. Minutes: of the call, beside other work.",
        said or f"Every file is at least {SMALLER:g} times smaller.",
        f"Images: {IMAGES[0]:,} of Fashion-MNIST's to train on, {IMAGES[1]:,} to decide by, {IMAGES[2]:,} to judge on. "
        "Text: the pages of `pydoc_data`; bits for each letter. Recommender: drawn likings of 3,000 users for 1,500 "
        f"items; the share of users whose liked item is among the first 3 of {CHOICES}.",
        versions(),
    ]
    write([Tasks(rows, about)], options.output)


if __name__ == "__main__":
    main()
