"""Samples from where a user has them: a data set's name, arrays in a file, a table with commas, a folder of images."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from tfprune.command import datasets
from tfprune.errors import PruningError, listing, nearest
from tfprune.model import files

if TYPE_CHECKING:
    import keras

    from tfprune.model.data import Batch

LABELS = ("y", "label", "labels", "target", "class")  # headings of the column of labels
SPLITS = {"train": ("train", "training"), "test": ("test", "val", "validation")}  # names of folders


def check_source(source: str) -> None:
    """Raises where `--data` names neither a data set nor a file or folder that is there; reads nothing."""
    if source in datasets.NAMES or Path(source).is_dir():
        return
    if not Path(source).suffix:
        raise PruningError(
            f"--data={source} is no data set and no folder. {nearest(source, datasets.NAMES)} "
            "A file ends with .npz, .npy or .csv."
        )
    files.existing_file(source)


def load(values: flags.FlagValues, split: str, model: keras.Model) -> Batch:
    """The data of `--data`, in the shape that the model takes where only the shape differs.

    Args:
        values: Flags with `data`, `samples` and `divide_by`.
        split: `"train"` or `"test"`, where the source has both.
        model: The model that is to read them.
    """
    from tfprune.model.data import Batch

    source, limit = values.data, values.samples
    if Path(source).is_dir():
        samples = _from_folder(Path(source), split, _shapes(model), limit)
    elif source in datasets.NAMES:
        samples = Batch(*datasets.load(source).split(split))
    elif source.lower().endswith(".csv"):
        samples = _from_table(Path(source), model)
    else:
        samples = files.load_samples(source, split)
    samples = samples.taken(slice(limit))
    if values.divide_by is not None:
        samples = Batch(_divided(samples.inputs, values.divide_by), samples.targets)
    shapes = _shapes(model)
    if (source in datasets.NAMES or source.lower().endswith(".csv")) and len(shapes) == 1:
        samples = Batch(datasets.shaped(samples.inputs, shapes[0]), samples.targets)
    return samples


def _divided(inputs: Any, number: float) -> Any:
    if isinstance(inputs, dict):
        return {name: _divided(array, number) for name, array in inputs.items()}
    return (inputs / number).astype("float32")


def _shapes(model: keras.Model) -> list[tuple[Any, ...]]:
    return [tuple(given.shape) for given in getattr(model, "inputs", None) or []]


def _from_folder(folder: Path, split: str, shapes: list[tuple[Any, ...]], limit: int | None) -> Batch:
    """Images of a folder, mixed; a folder inside for each class, in alphabetical order, says the labels."""
    import keras
    import numpy as np

    from tfprune.model.data import Batch

    if len(shapes) != 1 or len(shapes[0]) != 4 or None in shapes[0][1:] or shapes[0][3] not in (1, 3, 4):
        raise PruningError(
            f"'{folder}' is a folder of images, which need a model of one input (height, width, channels); this one "
            f"takes {listing(shape[1:] for shape in shapes)}. Give a .npz file with arrays x and y."
        )
    parts = [folder / name for name in SPLITS[split] if (folder / name).is_dir()]
    where = parts[0] if parts else folder
    height, width, channels = shapes[0][1:]
    try:
        read = keras.utils.image_dataset_from_directory(
            where,
            labels="inferred" if any(entry.is_dir() for entry in where.iterdir()) else None,
            image_size=(height, width),
            color_mode={1: "grayscale", 3: "rgb", 4: "rgba"}[channels],
            batch_size=1,
            shuffle=True,
            seed=0,
            verbose=False,
        )
    except ValueError as error:  # no pictures that Keras can read
        raise PruningError(f"'{where}' has no images: {error} Put .png, .jpg, .bmp or .gif files there.") from error
    rows = list(read.take(-1 if limit is None else limit))
    if isinstance(rows[0], tuple):
        return Batch(np.concatenate([row[0] for row in rows]), np.concatenate([row[1] for row in rows]))
    return Batch(np.concatenate(rows))


def _from_table(path: Path, model: keras.Model) -> Batch:
    """Columns under headings; that called y, label, target or class holds the labels, words among them counted off."""
    import numpy as np

    from tfprune.model.data import Batch

    with path.open(newline="", encoding="utf-8-sig") as file:
        header, *lines = [line for line in csv.reader(file) if line] or [[]]
    if not lines or any(_is_number(word) for word in header):
        raise PruningError(f"'{path}' needs a first line of headings, then lines of numbers; y heads the labels.")
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise PruningError(f"'{path}' has {len(line)} values in row {number}, and {len(header)} headings.")
    columns = {name.strip(): [line[place].strip() for line in lines] for place, name in enumerate(header)}
    heading = next((name for name in columns if name.lower() in LABELS), None)
    labels = None if heading is None else columns.pop(heading)
    if labels is not None and not all(map(_is_number, labels)):
        order = {word: place for place, word in enumerate(sorted(set(labels)))}
        labels = [str(order[word]) for word in labels]
    targets = None if labels is None else np.array([float(word) for word in labels], np.float32)
    if targets is not None and (targets == targets.round()).all():
        targets = targets.astype(np.int64)
    names = [given.name for given in getattr(model, "inputs", None) or []]
    if len(names) > 1 and set(names) <= set(columns):
        return Batch({name: _numbers(path, {name: columns[name]}) for name in names}, targets)
    return Batch(_numbers(path, columns), targets)


def _numbers(path: Path, columns: dict[str, list[str]]) -> Any:
    import numpy as np

    for name, words in columns.items():
        wrong = next((place for place, word in enumerate(words) if not _is_number(word)), None)
        if wrong is not None:
            raise PruningError(
                f"'{path}' has {words[wrong]!r} in row {wrong + 2} of column '{name}', where a number is needed. "
                f"Headings of labels: {', '.join(LABELS)}."
            )
    return np.array([[float(word) for word in row] for row in zip(*columns.values())], np.float32)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
