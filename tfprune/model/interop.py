"""Models of tensorflow-model-optimization and Keras 2 brought over to Keras 3."""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import keras

from tfprune.errors import PruningError, require
from tfprune.model.files import existing_file
from tfprune.model.keras_2 import read, unwrapped
from tfprune.model.native import reason_of

KINDS = (".h5", ".hdf5", ".keras")
REFUSED = "REFUSED "  # what stands before the reason in the output of `main`


def from_tfmot(model: Any) -> keras.Model:
    """A Keras 3 model equal to a Keras 2 one, pruning wrappers of tensorflow-model-optimization taken off.

    Args:
        model: The path of a file of Keras 2 (`.h5`, `.keras`) or of the folder of a SavedModel; or a `tf_keras` model,
            which is left as it is. Functional or Sequential, plain or wrapped by `prune_low_magnitude`, whose
            `prune_scope` is not needed. Masked weights come over as exact zeros, so `get_masks` and further pruning
            see them. A path is read in a process of its own, which keeps Keras 2 out of this one.

    Returns:
        A Keras 3 model that is not compiled, with the same layer names and weights.

    Raises:
        PruningError: It is no Keras 2 model, is subclassed, holds wrappers of quantization or clustering, or has a
            layer that Keras 3 does not know.
        MissingPackageError: A path is given, and tf_keras is not installed.

    Example:
        model = tfprune.from_tfmot("pruned_by_tfmot.h5")
    """
    if isinstance(model, (str, os.PathLike)):
        return _from_file(Path(model))
    bases = {base.__module__.split(".")[0] for base in type(model).__mro__}
    if isinstance(model, keras.Model):
        raise PruningError(f"'{model.name}' is a Keras 3 model already; use it as it is.")
    if "tf_keras" not in bases:
        raise PruningError(f"from_tfmot takes a tf_keras model or the path of one, not {type(model).__name__}.")
    plain = unwrapped(model)
    with tempfile.TemporaryDirectory() as folder:
        # The HDF5 format is the one that Keras 2 writes and Keras 3 reads.
        path = str(Path(folder) / "model.h5")
        plain.save(path, include_optimizer=False)
        try:
            return keras.models.load_model(path, compile=False)
        except Exception as error:
            raise PruningError(
                f"Keras 3 cannot read '{model.name}': {error} Write such a layer for Keras 3 and register it with "
                "keras.saving.register_keras_serializable."
            ) from error


def _from_file(path: Path) -> keras.Model:
    """Lets another process, in which Keras 2 may do as it likes, write the model as a file of Keras 3."""
    _check_file(path)
    require("tf_keras", extra="tfmot", purpose=f"Reading '{path}'")
    code = "from tfprune.model.interop import main; main()"
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.keras"
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), str(target)], capture_output=True, text=True, check=False
        )
        refused = [line for line in done.stdout.splitlines() if line.startswith(REFUSED)]
        if refused:
            raise PruningError(json.loads(refused[-1].removeprefix(REFUSED)))
        if not target.exists():
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise PruningError(f"The process that reads '{path}' with Keras 2 has failed: {last}")
        return keras.models.load_model(target, compile=False)


def main() -> None:
    """Reads the file of Keras 2 of the first argument and writes the model to the second; prints why it cannot."""
    source, target = sys.argv[1:]
    try:
        from_tfmot(read(source)).save(target)
    except PruningError as error:
        print(f"{REFUSED}{json.dumps(str(error))}")


def _check_file(path: Path) -> None:
    """Raises for what can be told without Keras 2 to be none of its models."""
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise PruningError(f"'{path}' is a folder without a saved_model.pb; give that of a SavedModel, or a file.")
        return
    existing_file(path)
    if path.suffix.lower() not in KINDS:
        raise PruningError(
            f"'{path}' is no file of Keras 2: its name must end with {', '.join(KINDS)}, or it is the folder of a "
            "SavedModel."
        )
    version = _keras_version(path)
    if version.startswith("3"):
        raise PruningError(
            f"'{path}' was written by Keras {version}, so nothing is to be brought over: keras.models.load_model(path)."
        )


def _keras_version(path: Path) -> str:
    """The version of Keras that wrote a file; empty where it does not say."""
    try:
        if path.suffix.lower() == ".keras":
            with zipfile.ZipFile(path) as archive:
                return str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
        import h5py

        with h5py.File(path) as file:
            version = file.attrs.get("keras_version", "")
            return version.decode() if isinstance(version, bytes) else str(version)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise PruningError(f"'{path}' is truncated or of another kind: {reason_of(error)}") from error
