"""Progress: one display for stages inside of one another, lines in a log, and nothing where told so."""

import subprocess
import sys
from io import StringIO

import keras
import numpy as np
import pytest
from rich.console import Console

import tfprune
from tfprune import PruningError, progress

X, Y = np.zeros((8, 4), "float32"), np.zeros(8, "int32")


def console(terminal=False):
    return Console(file=StringIO(), force_terminal=terminal, width=100)


def test_stages_inside_of_one_another_stand_in_one_display():
    shown = console(terminal=True)
    with progress.shown(console=shown), progress.stage("outer", total=2) as outer:
        with progress.stage("inner", total=None) as inner:
            inner.advance(7)
        outer.advance()
    last = shown.file.getvalue().replace("\r", "\n").splitlines()
    assert any("inner" in line and "7/7" in line for line in last)
    assert any("outer" in line and "2/2" in line for line in last)


def test_a_log_gets_a_line_from_time_to_time_with_the_time_left(monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    shown = console()
    with progress.shown(verbose=2, console=shown), progress.stage("read", total=4) as bar:
        bar.advance(2, "half")
    assert shown.file.getvalue().splitlines()[0] == "read: 2 of 4, 0:00:00 left half"


def test_the_first_of_many_steps_which_compiles_tells_no_time_left(monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = console()
    with progress.shown(verbose=2, console=shown), progress.stage("train", total=344) as bar:
        for passed in (20.0, 0.5, 0.5):
            now[0] += passed
            bar.advance()
    assert shown.file.getvalue().splitlines()[:3] == [
        "train: 1 of 344",
        "train: 2 of 344, 0:02:51 left",
        "train: 3 of 344, 0:02:50 left",
    ]


def test_a_short_stage_leaves_no_line_unless_it_is_to_stay():
    for transient in (True, False):
        shown = console()
        with progress.shown(console=shown, transient=transient), progress.stage("short"):
            pass
        assert (shown.file.getvalue() == "") is transient


def test_whoever_is_told_to_be_quiet_keeps_quiet_what_is_inside():
    shown = console(terminal=True)
    with progress.shown(verbose=0, console=shown), progress.shown(verbose=1), progress.stage("loud") as bar:
        bar.advance()
    assert shown.file.getvalue() == ""


CONVERSION = """
import contextlib, keras, numpy as np, tfprune
from tfprune import progress

progress.LINE_EVERY = 0.0
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
with {display}:
    tfprune.convert(model, "int8", np.random.default_rng(0).normal(size=(5, 4)).astype("float32"))
"""


@pytest.mark.parametrize(
    ("display", "samples"),
    [("contextlib.nullcontext()", 5), ("progress.shown(0)", 0), ("progress.shown(1), progress.stage('all')", 0)],
    ids=["alone", "quiet", "inside"],
)
def test_calibration_is_told_sample_by_sample_though_native_code_is_held_back(display, samples):
    lines = [sys.executable, "-c", CONVERSION.format(display=display)]
    run = subprocess.run(lines, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    told = [line.split(",")[0] for line in run.stderr.splitlines() if line.startswith("convert to int8: ")]
    assert told[:5] == [f"convert to int8: {done} of 5" for done in range(1, 1 + samples)]


@pytest.mark.parametrize("verbose", [0, 1])
def test_what_takes_time_is_quiet_when_told(verbose, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="first"), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True), metrics=["accuracy"], jit_compile=False)
    method = tfprune.Percentile(0.5, criterion="wanda")
    tfprune.prune(model, method, X, reconstruct="least_squares", verbose=verbose)
    tfprune.sensitivity(model, (X, Y), levels=(0.5,), verbose=verbose)
    search = {"objectives": ("loss", "macs"), "generations": 1, "population": 4, "layers": ["first"]}
    tfprune.genetic_search(model, (X, Y), verbose=verbose, **search)
    lite = tfprune.convert(model)
    with progress.shown(verbose=verbose):
        tfprune.verify(model, lite, X, layers=True)
        tfprune.factorize(keras.Sequential([keras.Input((32,)), keras.layers.Dense(32)]), 0.5)
    told = capsys.readouterr().err
    expected = ("gather input_scale", "repair layers", "measure sensitivity", "search channels", "compare layers: 8 of")
    for words in (*expected, "compare answers: 8 of 8, 0:00:00 left", "Splitting layers"):
        assert (words in told) is bool(verbose)


def test_another_verbosity_is_told():
    with pytest.raises(
        PruningError, match=r"verbose='auto' is unknown; write 0 \(nothing\), 1 \(bars\) or 2 \(lines\)"
    ):
        progress.shown("auto")
