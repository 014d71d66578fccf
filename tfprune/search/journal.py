"""The journal of a search: one line an evaluation, from which a killed search goes on.

The first line says which model, seed and settings the evaluations belong to. A search that is begun again with the
same ones walks the same way, and takes from the journal what it finds there in place of measuring it.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError, path_of
from tfprune.model.checksum import KEY, opened, sealed
from tfprune.model.data import Batch
from tfprune.model.tree import as_array, places

FORMAT = "tfprune search journal 2"
EARLIER = ("tfprune search journal 1",)
TABLE = "latency table"  # in the place of genes


class Journal:
    """A file of evaluations.

    Args:
        path: Where; made when missing.
        header: What the evaluations depend on: fingerprints of model and data, seed, settings.

    Raises:
        PruningError: The folder is missing, the file is no journal, or one of another search; the file stays as it is.
    """

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, Any]):
        self.path = path_of("journal", path, "search.jsonl")
        self.known: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []
        self._checksums = False  # those of earlier versions have none, and go on without
        # As it will be read back: tuples become lists, keys become text.
        self._header = json.loads(json.dumps({"format": FORMAT, **header}))
        if self.path.is_dir():
            raise PruningError(
                f"journal='{path}' is a folder; give a file in it, such as '{self.path / 'search.jsonl'}'."
            )
        if not self.path.parent.is_dir():
            raise PruningError(f"journal='{path}': there is no folder '{self.path.parent}'. Make it first.")
        if self.path.exists() and self.path.stat().st_size:
            self._read()
        if not self.known and not self._begun():
            self._checksums = True
            self._write(self._header, "w")

    def add(self, text: str, record: Mapping[str, Any]) -> None:
        """Writes one evaluation, through to the disk, unless it is there already.

        Raises:
            PruningError: The disk is full, or the file cannot be written.
        """
        if text not in self.known:
            self.known[text] = dict(record)
            self._write({"genes": text, **record}, "a")

    def _line(self, entry: Mapping[str, Any]) -> bytes:
        return json.dumps(sealed(entry) if self._checksums else entry).encode()

    def _begun(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > 0

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole, _, rest = content.rpartition(b"\n")
        lines = whole.split(b"\n") if whole else []
        entries: list[dict[str, Any]] = []
        for line in lines:
            self._checksums = self._checksums or (not entries and KEY.encode() in line)
            entries.append(self._parsed(line, len(entries) + 1))
        if entries or not self._line(self._header).startswith(rest):
            self._check(entries[0] if entries else {})
        if rest:
            self._drop(len(content) - len(rest), len(lines) + 1)
        self.known = {entry.pop("genes"): entry for entry in entries[1:]}
        if self.known:
            count = sum("figures" in entry for entry in self.known.values())
            self.notes.append(f"{count} evaluations taken from the journal '{self.path}'.")

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            entry = json.loads(line)
            if number == 1 and isinstance(entry, dict) and entry.get("format") != FORMAT:
                return entry  # of an earlier version or another program, which is told of the header
            entry = opened(entry, needs=self._checksums)
            if set(entry) <= set(self._header) if number == 1 else _is_evaluation(entry) or _is_table(entry):
                return entry
            why = "it holds something else"
        except (ValueError, RecursionError) as error:
            why = str(error)
        raise PruningError(
            f"journal='{self.path}': line {number} is no entry of a search journal, or damaged: {why}. Give another "
            "path, or remove the file."
        )

    def _check(self, header: Mapping[str, Any]) -> None:
        if header.get("format") in EARLIER:
            raise PruningError(
                f"journal='{self.path}' was written by an earlier version of tfprune, which did not note the model's "
                "structure, layers=, recalibrate= and how the model is compiled: whether it belongs to this search "
                "cannot be told. Give another path."
            )
        if header.get("format") != FORMAT:
            raise PruningError(
                f"journal='{self.path}' is no search journal ({FORMAT!r}). Give another path, or remove the file."
            )
        different = difference(header, self._header)
        if different is not None:
            name, words = different
            raise PruningError(
                f"journal='{self.path}' belongs to another search: {words}. Give another path, or the same {name}."
            )

    def _drop(self, size: int, number: int) -> None:
        """Cuts off a last line that was not written to its end."""
        with self.path.open("r+b") as file:
            file.truncate(size)
        self.notes.append(f"Line {number} of the journal '{self.path}' was cut off in writing; it was measured again.")
        warnings.warn(f"tfprune: {self.notes[-1]}", stacklevel=5)

    def _write(self, entry: Mapping[str, Any], mode: str) -> None:
        try:
            with self.path.open(mode, encoding="utf-8") as file:
                file.write(self._line(entry).decode() + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise PruningError(
                f"Cannot write journal='{self.path}': {error.strerror or error}. What it holds so far is kept: make "
                "room and start the same search again, and it goes on from there."
            ) from error


def _is_evaluation(entry: Mapping[str, Any]) -> bool:
    figures, failure = entry.get("figures"), entry.get("failure")
    return (
        set(entry) == {"genes", "figures", "failure"}
        and isinstance(entry["genes"], str)
        and isinstance(figures, dict)
        and all(isinstance(value, (int, float)) for value in figures.values())
        and (failure is None or isinstance(failure, str))
    )


def _is_table(entry: Mapping[str, Any]) -> bool:
    return (
        set(entry) == {"genes", "whole", "times"}
        and entry["genes"] == TABLE
        and isinstance(entry["whole"], float)
        and isinstance(entry["times"], dict)
        and all(isinstance(row, list) and len(row) == 3 for rows in entry["times"].values() for row in rows)
    )


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first entry of a header that is not as it is wanted: its name, and both values in words."""
    for name in wanted:
        pair = [found.get(name), wanted[name]]
        if pair[0] == pair[1]:
            continue
        if all(isinstance(each, dict) for each in pair):  # only what differs
            one, other = pair
            apart = [key for key in {**one, **other} if one.get(key) != other.get(key)]
            pair = [{key: each[key] for key in apart if key in each} for each in pair]
        return name, f"its {name} is {_short(pair[0])}, here it is {_short(pair[1])}"
    return None


def model_fingerprint(model: keras.Model) -> str:
    """A digest of a model's layers, how they are connected, and its weights."""
    digest = hashlib.sha256(_plain(_config(model)))
    for variable in model.weights:
        digest.update(f"{tuple(variable.shape)} {variable.dtype}".encode())
        digest.update(np.ascontiguousarray(as_array(variable)).tobytes())
    return digest.hexdigest()[:32]


def compiled_fingerprint(model: keras.Model) -> str:
    """A digest of what a model is compiled with: loss, metrics, optimizer and its learning rate."""
    return hashlib.sha256(_plain(model.get_compile_config())).hexdigest()[:32]


def data_fingerprint(data: Sequence[Batch]) -> str:
    """A digest of inputs, targets and sample weights."""
    digest = hashlib.sha256()
    for batch in data:
        for part in keras.tree.flatten(tuple(batch)):
            array = None if part is None else np.ascontiguousarray(np.asarray(part))
            digest.update(b"-" if array is None else f"{array.shape} {array.dtype}".encode() + array.tobytes())
    return digest.hexdigest()[:32]


def _config(model: keras.Model) -> Any:
    """The configurations of a model and its layers; classes of the user's own may have none for the whole."""
    layers = [[place.path, type(place.layer).__name__, place.layer.get_config()] for place in places(model)]
    try:
        return [model.get_config(), layers]
    except NotImplementedError:
        return layers


def _plain(config: Any) -> bytes:
    """A configuration as text that is the same in the next process."""
    return json.dumps(config, sort_keys=True, default=lambda other: type(other).__name__).encode()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
