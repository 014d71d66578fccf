"""The command's own process: Keras is imported when there is work, and not to answer a question about the command."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import tfprune
from tfprune.command import COMMANDS, pruning
from tfprune.command.demo import DATASETS

PACKAGE = Path(tfprune.__file__).parents[1]


def command(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "tfprune", *words],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE), **environment},
    )


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("--version", 0, f"tfprune {tfprune.__version__}"),
        ("--help", 0, "usage: tfprune"),
        ("compress --help", 0, "--max_drop"),
        ("completion bash", 0, "complete -o default"),
        ("prnue model.keras", 2, "Did you mean 'prune'?"),
        ("prune model.keras --sparsty 0.5", 2, "Did you mean '--sparsity'"),
        ("summary nowhere.keras", 2, "There is no file 'nowhere.keras'"),
    ],
)
def test_what_needs_no_keras_is_answered_at_once(line, code, words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = command(*line.split())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (run.returncode, words in run.stdout + run.stderr) == (code, True)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3  # seconds of CPU; 8 with Keras


def test_the_first_use_of_the_package_imports_all_of_it():
    code = (
        "import sys; sys.argv = ['tfprune']; import tfprune; assert 'keras' not in sys.modules; "
        "assert not hasattr(tfprune, '__no_such__') and 'keras' not in sys.modules; "
        "from tfprune.lite import LiteModel; first = LiteModel; "
        "assert callable(tfprune.prune) and tfprune.LiteModel is first and not hasattr(tfprune, 'prnue'); "
        "import keras; assert keras.saving.get_registered_object('tfprune>Percentile') is tfprune.Percentile"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(PACKAGE)})


def test_a_wrapped_model_loads_in_the_commands_process_and_no_colour_is_printed(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="only")])
    model.compile("sgd", "mse")
    tfprune.wrap(model, tfprune.Percentile(0.5)).save(tmp_path / "wrapped.keras")
    run = command("summary", str(tmp_path / "wrapped.keras"), "--json", NO_COLOR="1")
    assert run.returncode == 0, run.stderr
    assert '"layer"' in run.stdout and "\x1b[" not in run.stdout + run.stderr


def test_the_demos_data_sets_are_named_before_the_demo_is_imported():
    assert list(DATASETS) == pruning.DEMO_SETS
    assert COMMANDS["demo"].name == "demo"
