"""The folder of a compression: what each step made, so that an interrupted run goes on behind its last whole step."""

import json
from collections.abc import Mapping
from typing import Any

import keras

from tfprune.errors import PruningError, listing, path_of
from tfprune.lite.file.lite_model import LiteModel
from tfprune.model.checksum import opened, sealed
from tfprune.model.files import load_model, replacing, save_model
from tfprune.search.journal import difference

STATE = "steps.json"
FORMAT = "tfprune compression 3"
EARLIER = ("tfprune compression 1", "tfprune compression 2")


class StepFolder:
    """Keeps the models and figures of steps; with no path, in memory alone.

    Args:
        path: The folder, made when missing; None for none.
        header: What the steps depend on.

    Raises:
        PruningError: The path is a file, its parent is missing, or the folder belongs to another compression.
    """

    def __init__(self, path: Any, header: Mapping[str, Any]):
        self.path = None if path is None else path_of("folder", path, "compressed")
        self._header = json.loads(json.dumps({"format": FORMAT, **header}))
        self._records: dict[str, Any] = {}
        self._models: dict[str, Any] = {}
        if self.path is None:
            return
        if self.path.is_file():
            raise PruningError(f"folder='{path}' is a file; give a folder.")
        if not self.path.parent.is_dir():
            raise PruningError(f"folder='{path}': there is no folder '{self.path.parent}'. Make it first.")
        self.path.mkdir(exist_ok=True)
        if (self.path / STATE).is_file():
            self._read()

    @property
    def found(self) -> list[str]:
        """The steps that an earlier run has made."""
        return list(self._records)

    def known(self, name: str) -> dict[str, Any] | None:
        """The record of a step that was made, None where it was not."""
        return self._records.get(name)

    def keep(self, name: str, record: Mapping[str, Any], model: keras.Model | None = None) -> None:
        """Keeps a step: the model first, then the record that says it is whole."""
        if model is not None:
            self._models[name] = model
        self._records[name] = dict(record)
        if self.path is None:
            return
        if model is not None:
            save_model(model, self.path / f"{name}.keras")
        with replacing(self.path / STATE) as part:
            state = sealed({**self._header, "steps": self._records})
            part.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")

    def model(self, name: str) -> keras.Model:
        """The model that a step made."""
        if name not in self._models and self.path is not None:
            self._models[name] = load_model(self.path / f"{name}.keras")
        return self._models[name]

    def save_lite(self, name: str, lite: LiteModel) -> None:
        """Keeps a converted model."""
        if self.path is not None:
            lite.save(self.path / f"{name}.tflite")

    def _read(self) -> None:
        path = self.path / STATE  # type: ignore[operator]
        try:
            state = opened(json.loads(path.read_text(encoding="utf-8")))
            records = dict(state.pop("steps"))
            if state.get("format") == FORMAT and (unknown := set(state) - set(self._header)):
                raise ValueError(f"it holds {listing(unknown)}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise PruningError(f"'{path}' is no record of a compression, or damaged ({error}); remove it.") from error
        if state.get("format") in EARLIER:
            raise PruningError(
                f"folder='{self.path}' was written by an earlier version of tfprune, which made other steps of other "
                "models: this one cannot go on from them. Give another folder, or remove this one."
            )
        different = difference(state, self._header)
        if different is not None:
            name, words = different
            raise PruningError(
                f"folder='{self.path}' belongs to another compression: its {name} is not the same ({words}). Give "
                "another folder, or remove this one."
            )
        self._records = records
