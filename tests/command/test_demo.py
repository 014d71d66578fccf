"""The demo as a user runs it, and the example of every subcommand's help, which starts from the demo's files."""

import contextlib
import json
import shlex
from io import StringIO

import keras
import pytest
from rich.console import Console

import tfprune
from tfprune.command import COMMANDS, cli, datasets
from tfprune.command.demo import DATASETS
from tfprune.lite import LiteModel, verify
from tfprune.progress import Stages, TrainingProgress

EXAMPLES = [line for command in COMMANDS.values() for line in command.examples if command.name != "demo"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which `tfprune demo --output demo` has run."""
    folder = tmp_path_factory.mktemp("demonstration")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        printed = StringIO()
        with contextlib.redirect_stdout(printed):
            assert cli.main(shlex.split(COMMANDS["demo"].examples[0])[1:]) == 0
        (folder / "printed.txt").write_text(printed.getvalue())
    return folder


@pytest.fixture(scope="module")
def report(folder):
    return json.loads((folder / "demo" / "report.json").read_text())


def test_the_demos_int8_file_has_integer_ends_and_no_float_operator(folder):
    inspection = LiteModel.load(folder / "demo" / "pruned.tflite").inspect()
    assert set(inspection.input_dtypes.values()) == {"int8"}
    assert set(inspection.output_dtypes.values()) == {"int8"}
    assert inspection.float_ops == {}
    assert inspection.zeros >= round(0.9 * sum(weight.entries for weight in inspection.weights))


def test_the_demos_pruned_model_has_exactly_the_zeros_asked_for(folder):
    pruned = keras.models.load_model(folder / "demo" / "pruned.keras")
    total = tfprune.summary(pruned)
    entries = sum(layer.kernel_entries for layer in total.layers)
    assert total.zeros == round(0.9 * entries)


def test_the_demos_file_answers_like_its_model(folder):
    data = datasets.load("digits")
    pruned = keras.models.load_model(folder / "demo" / "pruned.keras")
    result = verify(pruned, LiteModel.load(folder / "demo" / "pruned.tflite"), data.x_test, data.y_test)
    assert result.agreement >= 0.99
    assert result.zeros_kept == result.zeros
    assert result.lite_accuracy >= 0.96


def test_the_demos_report_shows_before_and_after(report):
    dense, dense_int8, pruned = report["rows"]
    assert pruned["nonzero"] == pytest.approx(0.1 * dense["nonzero"], abs=1)
    # Zeros save nothing in the file as it is; tensors are named after layers, whose counters may take more letters.
    assert pruned["bytes"] == pytest.approx(dense_int8["bytes"], abs=64)
    assert pruned["gzip_bytes"] < dense_int8["gzip_bytes"] / 3
    assert dense_int8["bytes"] < dense["bytes"] / 3


def test_the_demo_says_what_its_zeros_bring_and_where_its_files_are(folder):
    printed = " ".join((folder / "printed.txt").read_text().split())
    assert "no kernel skips single zeros in int8" in printed
    assert printed.endswith("Written: demo (models and report)")


def test_a_demo_without_a_folder_says_that_nothing_was_kept(monkeypatch, capsys):
    monkeypatch.setitem(DATASETS, "digits", DATASETS["digits"]._replace(dense_epochs=1, pruning_epochs=1))
    assert cli.main(["demo"]) == 0
    assert capsys.readouterr().out.endswith("Nothing was kept; --output FOLDER keeps models and report.\n")


@pytest.mark.parametrize("line", EXAMPLES)
def test_the_example_in_the_help_runs(line, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert cli.main(shlex.split(line)[1:]) == 0
    assert capsys.readouterr().out


def test_verify_fails_where_the_answers_differ(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    line = "verify demo/dense.keras demo/pruned.tflite --data digits --min_agreement 1"
    assert cli.main(line.split()) == 1
    assert ", less than 1. Convert with more typical --data" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["inspect"], ["benchmark"], ["verify", "demo/pruned.keras", "--data", "digits"]])
def test_a_truncated_tflite_file_is_one_clear_line(words, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    whole = (folder / "demo" / "pruned.tflite").read_bytes()
    (folder / "short.tflite").write_bytes(whole[: len(whole) // 2])
    assert cli.main([words[0], *words[1:2], "short.tflite", *words[2:]]) == 1
    errors = capsys.readouterr().err
    assert "truncated or damaged" in errors
    assert errors.count("\n") == 1


def test_verify_prints_and_writes_the_same_json(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    line = "verify demo/pruned.keras demo/pruned.tflite --data digits --samples 50 --json --output verified.json"
    assert cli.main(line.split()) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["samples"] == 50
    assert json.loads((folder / "verified.json").read_text()) == json.loads(printed)


def test_benchmark_names_files_of_equal_name_by_their_path(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "other").mkdir(exist_ok=True)
    (folder / "other" / "pruned.tflite").write_bytes((folder / "demo" / "pruned.tflite").read_bytes())
    line = "benchmark demo/pruned.tflite other/pruned.tflite --runs 3 --json"
    assert cli.main(line.split()) == 0
    assert [row["model"] for row in json.loads(capsys.readouterr().out)["rows"]] == line.split()[1:3]


@pytest.mark.parametrize("kind", ["md", "txt", "png"])
def test_a_report_is_written_in_the_form_of_its_ending(kind, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    target = tmp_path / f"report.{kind}"
    assert cli.main(["summary", "demo/pruned.keras", "--output", str(target)]) == 0
    begins = {"md": b"| layer |", "txt": b"Summary", "png": b"\x89PNG"}[kind]
    assert target.read_bytes().startswith(begins)


def test_named_data_take_the_shape_of_the_model():
    images = datasets.load("digits").x_test
    assert datasets.shaped(images, (None, 64)).shape == (len(images), 64)
    assert datasets.shaped(images, (None, 8, 8)).shape == (len(images), 8, 8)
    assert datasets.shaped(images, (None, 28, 28, 1)) is images


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_in_a_terminal_and_elsewhere_a_line_when_a_stage_is_done(terminal):
    shown = StringIO()
    with (
        Stages(Console(file=shown, force_terminal=terminal, width=100)) as stages,
        stages.stage("train", total=4) as stage,
    ):
        callback = TrainingProgress(stage)
        for batch in range(4):
            callback.on_train_batch_end(batch)
        callback.on_epoch_end(0, {"accuracy": 0.5, "sparsity": 0.25, "loss": 1.0})
    text = shown.getvalue()
    assert "accuracy 50.0% zeros 25.0%" in text
    assert ("4/4" in text) is terminal
    assert ("0:00:0" in text) is terminal  # the time left while it runs
    assert text.startswith("train: ") is not terminal
