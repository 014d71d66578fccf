"""Damaged files of every format are refused, or do what whole ones do: no foreign exception, no end of the caller."""

import importlib
import random
from pathlib import Path

import damaged
import numpy as np
import pytest

GOOD = {"same", "other", "refused", "told", "child ended"}  # "other" only where a format has no checksum


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    return damaged.formats(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    "name",
    [
        ".tflite, float32",
        ".tflite, int8",
        ".tflite, dynamic",
        ".tflite, sparse float32",
        ".tflite, sparse int8",
        "shrink plan",
        "search journal",
        ".keras",
        ".npz",
    ],
)
def test_damaged_files_raise_an_error_of_ours_or_none(formats, name):
    content, use, has_checksum = formats[name]
    whole, generator = use(content), random.Random(1)
    assert damaged.outcome(use, content, whole, has_checksum) == "same"
    found = [
        damaged.outcome(use, damaged.mutated(content, kind, generator), whole, has_checksum)
        for kind in damaged.KINDS
        for _ in range(12)
    ]
    assert set(found) <= GOOD - ({"other"} if has_checksum else set())
    assert found.count("refused") > 10


def test_mutations_damage_and_are_the_same_again():
    content = np.arange(256, dtype=np.uint8).tobytes()
    for kind in damaged.KINDS:
        one, other = (damaged.mutated(content, kind, random.Random(3)) for _ in range(2))
        assert one == other != content


def test_the_table_of_the_page_is_what_the_command_writes(monkeypatch):
    root = Path(__file__).parents[1]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    table = "\n".join(importlib.import_module("faults").page_rows(root / "docs" / "benchmarks"))
    page = (root / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert f"<!-- faults -->\n{table}\n<!-- /faults -->" in page
    assert table.count("\n") >= 5
