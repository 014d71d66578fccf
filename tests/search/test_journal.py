"""The journal: a search that was killed goes on to the same end; what does not belong to it is refused."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from search_models import X, Y, classifier

from tfprune import PruningError, genetic_search
from tfprune.model.data import batches
from tfprune.search import random_search
from tfprune.search.journal import Journal, data_fingerprint, model_fingerprint

QUICK = {"population": 8, "generations": 3}
KILLED = """
import os, signal, sys
import keras
from search_models import X, Y
from tfprune import genetic_search

calls = 0

def kept(candidate):
    global calls
    calls += 1
    if calls == 18:
        os.kill(os.getpid(), signal.SIGKILL)
    return float(sum(mask.sum() for mask in candidate.masks.values()))

genetic_search(keras.models.load_model(sys.argv[1]), (X, Y), (kept, "accuracy"), journal=sys.argv[2],
               population=8, generations=3)
"""


def kept(candidate):
    return float(sum(mask.sum() for mask in candidate.masks.values()))


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture
def written(model, tmp_path):
    """A journal of a whole search, and its result."""
    path = tmp_path / "search.jsonl"
    return path, genetic_search(model, (X, Y), journal=path, **QUICK)


def test_a_killed_search_goes_on_to_the_same_journal_and_front(model, tmp_path):
    model.save(tmp_path / "model.keras")
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    paths = [str(Path(__file__).parents[1]), *sys.path]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    run = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "model.keras", killed],
        env=environment, capture_output=True, check=False,
    )  # fmt: skip
    assert run.returncode == -signal.SIGKILL, run.stderr.decode()
    lines = killed.read_bytes().splitlines()
    assert len(lines) == 1 + 17
    loaded = keras.models.load_model(tmp_path / "model.keras")
    resumed = genetic_search(loaded, (X, Y), (kept, "accuracy"), journal=killed, **QUICK)
    uninterrupted = genetic_search(model, (X, Y), (kept, "accuracy"), journal=whole, **QUICK)
    assert whole.read_bytes() == killed.read_bytes()
    assert len(whole.read_bytes().splitlines()) > len(lines)
    assert [(c.genes, c.figures) for c in resumed.front] == [(c.genes, c.figures) for c in uninterrupted.front]
    assert "17 evaluations taken from the journal" in " ".join(str(resumed).split())


def test_a_search_with_fine_tuning_goes_on_to_the_same_end(model, tmp_path):
    path = tmp_path / "tuned.jsonl"
    arguments = {"journal": path, "fine_tune": 5, "train": (X, Y), **QUICK}
    whole = genetic_search(model, (X, Y), ("loss", "macs"), **arguments)
    content = path.read_bytes()
    path.write_bytes(b"".join(content.splitlines(keepends=True)[:12]))
    again = genetic_search(model, (X, Y), ("loss", "macs"), **arguments)
    assert path.read_bytes() == content and again.front == whole.front
    for changed in ({"fine_tune": 6}, {"train": (X[::-1], Y[::-1])}, {"fine_tune": None, "train": None}):
        with pytest.raises(PruningError, match="belongs to another search: its fine_tune is"):
            genetic_search(model, (X, Y), ("loss", "macs"), **{**arguments, **changed})


def test_a_finished_search_can_be_prolonged(model, written):
    path, first = written
    longer = genetic_search(model, (X, Y), journal=path, population=8, generations=5)
    assert longer.evaluated[: len(first.evaluated)] == first.evaluated
    assert len(longer.evaluated) > len(first.evaluated)


def test_a_last_line_that_was_cut_off_is_measured_again_and_said_so(model, written):
    path, first = written
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with pytest.warns(UserWarning, match="was cut off in writing; it was measured again"):
        again = genetic_search(model, (X, Y), journal=path, **QUICK)
    assert path.read_bytes() == content and again.front == first.front
    assert "was cut off in writing" in " ".join(again.notes())


def test_a_header_that_was_cut_off_is_written_again(model, written):
    path, _ = written
    content = path.read_bytes()
    path.write_bytes(content[:30])
    with pytest.warns(UserWarning, match="Line 1 of the journal"):
        genetic_search(model, (X, Y), journal=path, **QUICK)
    assert path.read_bytes() == content


def test_the_journal_of_another_search_is_refused_and_left_alone(model, written):
    path, _ = written
    before = path.read_bytes()
    other = classifier()
    other.layers[-1].set_weights([2 * weight for weight in other.layers[-1].get_weights()])
    for changed, message in (
        ({"model": other}, "its model is .*, here it is"),
        ({"seed": 1}, "its seed is 0, here it is 1. Give another path, or the same seed"),
        ({"data": (X[:200], Y[:200])}, "its data is"),
        ({"objectives": ("loss", "macs")}, "its objectives is"),
        ({"population": 12}, "its settings is"),
    ):
        arguments = {"model": model, "data": (X, Y), **QUICK, **changed}
        with pytest.raises(PruningError, match=f"belongs to another search: {message}"):
            genetic_search(**arguments, journal=path)
    with pytest.raises(PruningError, match="its settings is"):
        random_search(model, (X, Y), evaluations=5, journal=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", ["activation", "strides", "dilation", "layers", "recalibrate", "train", "optimizer"])
def test_the_journal_of_a_problem_that_only_looks_the_same_is_refused(tmp_path, change):
    """All have the same weights, validation data and number of genes."""
    keras.utils.set_random_seed(0)

    def network(activation="relu", strides=2, dilation=1, rate=0.01):
        first = keras.layers.Conv2D(4, 3, activation=activation, strides=strides, dilation_rate=dilation, name="first")
        layers = [first, keras.layers.BatchNormalization(name="norm"), keras.layers.GlobalAveragePooling2D(name="mean"),
                  keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2, name="last")]  # fmt: skip
        model = keras.Sequential([keras.Input((6, 6, 1), name="given"), *layers], name="network")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(rate), loss, jit_compile=False)
        return model

    model = network()
    arguments = {"objectives": ("loss", "macs"), "population": 4, "generations": 0, "layers": "first",
                 "recalibrate": X, "fine_tune": 1, "train": (X, Y), "journal": tmp_path / "journal"}  # fmt: skip
    genetic_search(model, (X, Y), **arguments)
    before = (tmp_path / "journal").read_bytes()
    other, changed, name = {
        "activation": (network(activation="tanh"), {}, "model"),
        "strides": (network(strides=1), {}, "model"),
        "dilation": (network(strides=1, dilation=2), {}, "model"),
        "layers": (model, {"layers": "hidden"}, "layers"),
        "recalibrate": (model, {"recalibrate": X[::-1]}, "recalibrate"),
        "train": (model, {"train": (X[::-1], Y)}, "fine_tune"),
        "optimizer": (network(rate=0.02), {}, "compiled"),
    }[change]
    other.set_weights(model.get_weights())
    with pytest.raises(PruningError, match=f"belongs to another search: its {name} is .*, here it is"):
        genetic_search(other, (X, Y), **{**arguments, **changed})
    assert (tmp_path / "journal").read_bytes() == before


def test_a_journal_of_an_earlier_version_is_refused_with_the_reason(model, written):
    path, _ = written
    old = path.read_bytes().replace(b"search journal 2", b"search journal 1", 1)
    path.write_bytes(old)
    with pytest.raises(PruningError, match="an earlier version of tfprune, which did not note .* Give another path"):
        genetic_search(model, (X, Y), journal=path, **QUICK)
    assert path.read_bytes() == old


def test_only_what_differs_in_the_settings_is_named(model, written):
    path, _ = written
    with pytest.raises(PruningError, match=r'its settings is \{"population": 8\}, here it is \{"population": 12\}'):
        genetic_search(model, (X, Y), journal=path, **{**QUICK, "population": 12})


def test_files_that_are_no_journals_are_refused(model, tmp_path):
    (tmp_path / "note.txt").write_text("not a journal\nat all\n")
    (tmp_path / "other.json").write_text('{"a": 1}\n')
    for name, message in (
        ("note.txt", "line 1 is no entry of a search journal"),
        ("other.json", "is no search journal"),
        (".", "is a folder; give a file in it"),
        ("nowhere/search.jsonl", "there is no folder .*nowhere'. Make it first"),
    ):
        with pytest.raises(PruningError, match=message):
            genetic_search(model, (X, Y), journal=tmp_path / name, **QUICK)
    assert (tmp_path / "note.txt").read_text() == "not a journal\nat all\n"


HEADER = {"seed": 3, "model": "0123"}


@pytest.fixture
def lines(tmp_path):
    """The lines of a journal of three evaluations."""
    journal = Journal(tmp_path / "journal", HEADER)
    for number in range(3):
        journal.add(f"{number:03b}", {"figures": {"accuracy": 0.5 + number}, "failure": None})
    return (tmp_path / "journal").read_bytes().splitlines(keepends=True)


def test_a_damaged_line_of_a_journal_is_refused(lines, tmp_path):
    assert len(Journal(tmp_path / "journal", HEADER).known) == 3
    for number, old, new in (
        (2, b"1.5", b"1.6"),
        (2, b'"001"', b'"011"'),
        (1, b"checksum", b"chacksum"),
        (3, b'"figures"', b'"figurez"'),
        (1, b"null", b"nvll"),
        (3, b"2.5", b"\xff.5"),
    ):
        changed = [line.replace(old, new) if place == number else line for place, line in enumerate(lines)]
        assert changed != lines
        (tmp_path / "damaged").write_bytes(b"".join(changed))
        with pytest.raises(PruningError, match=f"line {number + 1} is no entry of a search journal, or damaged"):
            Journal(tmp_path / "damaged", HEADER)


def test_a_damaged_header_is_refused(lines, tmp_path):
    for old, new in ((b"0123", b"0124"), (b"checksum", b"chacksum"), (b'"seed"', b'"seel"')):
        (tmp_path / "damaged").write_bytes(b"".join(lines).replace(old, new, 1))
        with pytest.raises(PruningError, match="line 1 is no entry of a search journal, or damaged"):
            Journal(tmp_path / "damaged", HEADER)


def test_a_journal_without_checksums_is_read_and_goes_on_without(lines, tmp_path):
    entries = [json.loads(line) for line in lines]
    old = "".join(json.dumps({key: entry[key] for key in entry if key != "checksum"}) + "\n" for entry in entries)
    (tmp_path / "old").write_text(old)
    journal = Journal(tmp_path / "old", HEADER)
    assert journal.known == Journal(tmp_path / "journal", HEADER).known
    journal.add("111", {"figures": {}, "failure": "died"})
    assert (tmp_path / "old").read_text() == old + '{"genes": "111", "figures": {}, "failure": "died"}\n'
    (tmp_path / "old").write_text(old.replace('"figures": {"accuracy": 1.5}', '"figures": "none"'))
    with pytest.raises(
        PruningError, match="line 3 is no entry of a search journal, or damaged: it holds something else"
    ):
        Journal(tmp_path / "old", HEADER)


def test_a_full_disk_is_told_and_what_was_written_is_taken_up(model, written, tmp_path):
    whole, _ = written
    path = tmp_path / "full.jsonl"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails, as it does on a full disk
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1200, limit[1]))
        with pytest.raises(PruningError, match="Cannot write journal=.*What it holds so far is kept: make room"):
            genetic_search(model, (X, Y), journal=path, **QUICK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert whole.read_bytes().startswith(path.read_bytes()) and path.stat().st_size > 500
    with pytest.warns(UserWarning, match="was cut off in writing"):
        genetic_search(model, (X, Y), journal=path, **QUICK)
    assert path.read_bytes() == whole.read_bytes()


def test_fingerprints_change_with_weights_and_data(model):
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    assert model_fingerprint(other) == model_fingerprint(model)
    other.layers[0].kernel.assign(-other.layers[0].kernel)
    assert model_fingerprint(other) != model_fingerprint(model)
    one, two = (data_fingerprint(list(batches((x, Y), model, "test"))) for x in (X, np.flip(X, 0)))
    assert one != two
