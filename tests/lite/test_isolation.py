"""LiteRT in a process of its own: the same answers, and an error where the file ends that process."""

import os
import signal
from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import ConversionError
from tfprune.lite import LiteModel
from tfprune.lite.file import isolation

IMAGES = np.random.default_rng(0).random((5, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
    return keras.Sequential(layers)


@pytest.fixture(scope="module")
def lite(model):
    return tfprune.convert(model, batch_size=None)


@pytest.fixture
def alone(lite):
    return LiteModel(lite.content, isolate=True)


def process():
    return isolation._Process.running()


def test_answers_and_reports_are_those_of_this_process(model, lite, alone, tmp_path):
    for count in (5, 2):
        np.testing.assert_array_equal(alone(IMAGES[:count]), lite(IMAGES[:count]))
    assert tfprune.verify(model, alone, IMAGES).to_dict() == tfprune.verify(model, lite, IMAGES).to_dict()
    assert tfprune.verify(model, lite.content, IMAGES, isolate=True).samples == 5
    path = lite.save(tmp_path / "model.tflite")
    np.testing.assert_array_equal(LiteModel.load(path, isolate=True)(IMAGES), lite(IMAGES))
    (timing,) = tfprune.benchmark({"alone": str(path)}, runs=3, isolate=True).timings
    assert len(timing.milliseconds) == 3 and min(timing.milliseconds) > 0


def test_a_process_that_ends_is_an_error_and_the_model_gets_a_new_one(lite, alone):
    runner = alone.prepared([IMAGES.shape])
    alone(IMAGES)
    os.kill(process()._child.pid, signal.SIGSEGV)
    with pytest.raises(ConversionError, match=r"LiteRT stopped with code -11 \(SIGSEGV\), and ended its process"):
        runner.invoke()
    with pytest.raises(ConversionError, match="the process of this interpreter has ended; make a new one"):
        runner.invoke()
    with pytest.raises(ConversionError, match="has ended; make a new one"):
        alone(IMAGES)
    np.testing.assert_array_equal(alone(IMAGES), lite(IMAGES))


def test_a_call_that_takes_too_long_is_ended(alone, monkeypatch):
    alone(IMAGES)
    monkeypatch.setattr(isolation, "SECONDS", 0.2)
    os.kill(process()._child.pid, signal.SIGSTOP)
    with pytest.raises(ConversionError, match="it took longer than 0.2 seconds, and ended its process"):
        alone(IMAGES)


def test_the_process_has_a_limit_of_memory(alone):
    alone(IMAGES)
    lines = Path(f"/proc/{process()._child.pid}/limits").read_text().splitlines()
    limit = next(line for line in lines if line.startswith("Max address space"))
    assert 0 < int(limit.split()[3]) < isolation.machine_memory()


def test_interpreters_that_nobody_has_any_more_are_forgotten(lite):
    first = LiteModel(lite.content, isolate=True).interpreter()
    number = first._number
    del first
    assert number in process()._forgotten
    again = LiteModel(lite.content, isolate=True).interpreter()
    assert number not in process()._forgotten and again._number > number


def test_what_litert_refuses_is_told_as_in_this_process(lite):
    runners = [LiteModel(lite.content, isolate=isolate).interpreter() for isolate in (False, True)]
    errors = []
    for runner in runners:
        with pytest.raises(RuntimeError) as raised:
            runner.invoke()
        errors.append(str(raised.value))
    assert errors[0] == errors[1]
