"""Models and data from files, and results into files in one piece: checked first, written beside, then renamed."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfprune.errors import PruningError, nearest

if TYPE_CHECKING:  # the command looks at paths before it imports Keras
    import keras
    import numpy as np

    from tfprune.model.data import Batch

REPORT_KINDS = (".json", ".md", ".txt", ".png", ".svg", ".pdf")


def existing_file(path: str | os.PathLike[str]) -> Path:
    """The path of a file that is there.

    Raises:
        PruningError: There is none; names files like it in the same folder.
    """
    path = Path(path)
    if path.is_file():
        return path
    if path.is_dir():
        raise PruningError(f"'{path}' is a folder; give a file in it.")
    if not path.parent.is_dir():
        raise PruningError(f"There is no file '{path}', and no folder '{path.parent}' either.")
    beside = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file() and entry.suffix == path.suffix)
    hint = f" {nearest(path.name, beside)}" if beside else ""
    raise PruningError(f"There is no file '{path}'.{hint}")


def output_path(path: str | os.PathLike[str], kinds: tuple[str, ...]) -> Path:
    """The path of a file that can be written, once its ending and its folder are known to be right.

    Raises:
        PruningError: The ending is none of `kinds`, the folder is missing or read-only, or the path is a folder.
    """
    path = Path(path)
    if path.suffix.lower() not in kinds:
        raise PruningError(f"Cannot write '{path}': its name must end with {' or '.join(kinds)}.")
    if path.is_dir():
        raise PruningError(f"Cannot write '{path}': it is a folder.")
    if not path.parent.is_dir():
        raise PruningError(f"Cannot write '{path}': there is no folder '{path.parent}'. Make it first.")
    if not os.access(path.parent, os.W_OK):
        raise PruningError(f"Cannot write '{path}': the folder '{path.parent}' is not writable.")
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to, and renames it when the block is through: whole or not at all."""
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise PruningError(
            f"Cannot write '{path}': {error.strerror or error}. The old file, if any, is whole."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def save_model(model: keras.Model, path: str | os.PathLike[str]) -> Path:
    """Saves a model as a `.keras` file in one piece."""
    target = output_path(path, (".keras",))
    with replacing(target) as part:
        model.save(part)
    return target


def save_report(report: Any, path: str | os.PathLike[str]) -> Path:
    """Saves a report in the form that the ending asks for: JSON, Markdown, text, or a picture."""
    target = output_path(path, REPORT_KINDS)
    with replacing(target) as part:
        kind = target.suffix.lower()
        if kind in (".png", ".svg", ".pdf"):
            report.plot(part)
        else:
            text = {".json": report.to_json, ".md": report.to_markdown, ".txt": report.__str__}[kind]()
            part.write_text(text + "\n", encoding="utf-8")
    return target


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """The Keras model in a `.keras` (or `.h5`) file.

    Raises:
        PruningError: The file is missing, truncated, of another kind, or holds classes that are not known here.
    """
    import keras

    path = existing_file(path)
    head = _first_bytes(path)
    if head[4:8] == b"TFL3":
        raise PruningError(f"'{path}' is a TFLite model, where a Keras model is needed; `tfprune inspect` reads it.")
    if path.suffix.lower() not in (".keras", ".h5", ".hdf5"):
        raise PruningError(f"'{path}' is no Keras model: its name must end with .keras (or .h5).")
    if path.suffix.lower() == ".keras" and not zipfile.is_zipfile(path):
        state = "is empty" if not head else "is truncated or of another kind"
        raise PruningError(f"'{path}' {state}: a .keras file is a zip archive. Save the model again: model.save(path).")
    try:
        return keras.models.load_model(path)
    except Exception as error:  # Keras reads configs and weights of any origin, and raises what they raise
        raise PruningError(
            f"Keras cannot load '{path}': {_first_line(error)} For layers of your own, name the module that registers "
            "them: --import MODULE."
        ) from error


def load_samples(path: str | os.PathLike[str], split: str) -> Batch:
    """Arrays from a `.npz` or `.npy` file.

    In a `.npz` file labels are called `y`; the inputs `x`, or by the names of the model's inputs. A file with
    `x_train`, `y_train`, `x_test`, `y_test` gives the part asked for.

    Args:
        path: The file.
        split: `"train"` or `"test"`.

    Raises:
        PruningError: The file is missing, truncated, of another kind, or holds no inputs.
    """
    import numpy as np

    from tfprune.model.data import Batch

    path = existing_file(path)
    if path.suffix.lower() not in (".npz", ".npy"):
        raise PruningError(f"'{path}' is no data file: give .npz (arrays x and y) or .npy (inputs alone).")
    try:
        # Pickled objects could run anything, so only plain arrays are read.
        loaded = np.load(path, allow_pickle=False)
        arrays = {name: loaded[name] for name in loaded.files} if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except Exception as error:  # zip, header and pickle errors all mean the same here
        raise PruningError(
            f"'{path}' cannot be read as plain arrays (truncated, of another kind, or pickled objects): "
            f"{_first_line(error)} Write it with numpy.savez(path, x=inputs, y=labels)."
        ) from error
    if not isinstance(arrays, dict):
        return Batch(arrays)
    return Batch(*_inputs_and_labels(path, arrays, split))


def _inputs_and_labels(path: Path, arrays: dict[str, np.ndarray], split: str) -> tuple[Any, Any]:
    if f"x_{split}" in arrays:
        return arrays[f"x_{split}"], arrays.get(f"y_{split}")
    labels = arrays.pop("y", None)
    if not arrays:
        raise PruningError(f"'{path}' holds no inputs: call them x, or by the names of the model's inputs.")
    inputs: Any = arrays["x"] if "x" in arrays else next(iter(arrays.values())) if len(arrays) == 1 else arrays
    counts = {name: len(array) for name, array in (inputs if isinstance(inputs, Mapping) else {"x": inputs}).items()}
    if labels is not None:
        counts["y"] = len(labels)
    if len(set(counts.values())) > 1:
        raise PruningError(
            f"'{path}' holds different numbers of samples: "
            + ", ".join(f"{name} {count:,}" for name, count in counts.items())
            + "."
        )
    return inputs, labels


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _first_line(error: BaseException) -> str:
    # Keras tells the cause of an error inside nested models last, behind these words.
    cause = str(error).split("Exception encountered:")[-1]
    lines = [line.strip() for line in cause.splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:300] + "."
