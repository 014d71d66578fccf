"""The command line: what it prints, writes and refuses. Whole subcommands run in this process, on tiny models."""

import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import pytest

from tfprune.command import COMMANDS, cli
from tfprune.lite.file.lite_model import LiteModel
from tfprune.model import files


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a model, a converted model, data, and files that are broken."""
    folder = tmp_path_factory.mktemp("workplace")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(16, "relu", name="dense"),
            keras.layers.Dense(10, name="logits"),
        ],
        name="m",
    )
    model.save(folder / "bare.keras")
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.save(folder / "model.keras")
    random = np.random.default_rng(0)
    x, y = random.random((64, 8, 8, 1), np.float32), random.integers(0, 10, 64)
    np.savez(folder / "data.npz", x=x, y=y)
    np.save(folder / "inputs.npy", x)
    whole = (folder / "model.keras").read_bytes()
    (folder / "short.keras").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.keras").write_bytes(b"")
    (folder / "text.npz").write_bytes(b"not an archive")
    np.savez(folder / "pickled.npz", x=np.array([{}], dtype=object))
    np.savez(folder / "uneven.npz", x=x, y=y[:3])
    np.savez(folder / "labels_only.npz", y=y)
    return folder


@pytest.fixture
def inside(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    return workplace


def refused(capsys, line):
    """The exit code of a line, and the one line that it wrote to standard error."""
    code = cli.main(line.split())
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert errors.startswith("tfprune: ")
    return code, errors


def test_help_names_every_subcommand(capsys):
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)


def test_no_words_print_the_help_and_are_wrong_usage(capsys):
    assert cli.main([]) == 2
    assert "usage: tfprune" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_subcommand_shows_its_flags_and_an_example(name, capsys):
    assert cli.main([name, "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"example:\n  tfprune {name} " in printed
    for flag in cli.flag_values(COMMANDS[name]):
        assert f"--{flag} " in printed


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tfprune 0.")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("prnue model.keras", "no subcommand 'prnue'. Did you mean 'prune'?"),
        ("--jsno", "no flag '--jsno'"),
        ("summary model.keras --jsn", "has no flag --jsn. Did you mean '--json'?"),
        ("summary", "files given: none. Write tfprune summary MODEL.keras"),
        ("summary a.keras b.keras", "files given: a.keras b.keras"),
        ("summary modle.keras", "There is no file 'modle.keras'. Did you mean 'model.keras'"),
        ("summary nowhere/model.keras", "no folder 'nowhere' either"),
        ("summary .", "'.' is a folder"),
        ("prune model.keras --sparsity 0.5", "--output is missing. Write tfprune prune"),
        ("prune model.keras --output new.keras", "Write --sparsity 0.8, --threshold 0.05, or --channels 0.5"),
        ("prune model.keras --sparsity 1.5 --output new.keras", "1.5 is no sparsity in [0, 1)"),
        ("prune model.keras --sparsity half --output new.keras", "--sparsity=half"),
        (
            "prune model.keras --sparsity 0.5 --threshold 1 --output new.keras",
            "--sparsity and --threshold are different methods; give one",
        ),
        ("prune model.keras --sparsity 0.5 --criterion magnitud --output new.keras", "Did you mean 'magnitude'"),
        ("prune model.keras --sparsity 0.5 --output new.h5", "must end with .keras"),
        ("prune model.keras --sparsity 0.5 --output nowhere/new.keras", "no folder 'nowhere'. Make it first"),
        ("prune model.keras --sparsity 0.5 --epochs 1 --output new.keras", "Write --data train.npz"),
        ("prune model.keras --sparsity 0.5 --epochs 1 --data inputs.npy --output new.keras", "holds no labels"),
        ("prune model.keras --sparsity 0.5 --epochs 1 --data digts --output new.keras", "Did you mean 'digits'"),
        ("prune model.keras --sparsity 0.5 --import no_such_module --output new.keras", "--import=no_such_module"),
        (
            "prune model.keras --sparsity 0.5 --reconstruct --output new.keras",
            "Write it with --data and without --epochs",
        ),
        ("shrink model.keras --channels 1.5 --output new.keras", "1.5"),
        ("shrink model.keras --channels 0.5", "--output is missing"),
        ("search model.keras", "--data is missing. Write tfprune search"),
        ("search model.keras --data inputs.npy", "holds no labels; searching needs an array y"),
        ("search model.keras --data data.npz --budget macs", "--budget=macs is no share of a cost; write"),
        ("search model.keras --data data.npz --report front.bmp", "must end with .json or .md"),
        ("compress model.keras --data data.npz", "--output is missing. Write tfprune compress"),
        ("compress model.keras --data data.npz --target tiny --output a.tflite", "--target=tiny is no share of a cost"),
        ("compress model.keras --data data.npz --max_drop few --output a.tflite", "--max_drop=few is no number. Write"),
        ("convert model.keras --quantization int8 --output new.tflite", "Write --data train.npz"),
        ("convert model.keras --quantization int7 --output new.tflite", "--quantization=int7"),
        ("convert model.keras --output new.tfl", "must end with .tflite"),
        ("verify model.keras", "--data is missing"),
        ("verify model.keras --data data.npz", "Write tfprune verify MODEL.keras MODEL.tflite"),
        ("inspect missing.tflite", "There is no file 'missing.tflite'"),
        ("benchmark model.tflite --runs 0", "--runs=0"),
        ("sensitivity model.keras", "--data is missing"),
        ("sensitivity model.keras --data inputs.npy", "holds no labels; the metric needs an array y"),
        ("sensitivity model.keras --data data.npz --levels half", "--levels: 'half' is no number. Write --levels 0.5"),
        ("search model.keras --data data.npz --candidate -1", "--candidate=-1"),
        ("demo --dataset digit", "--dataset=digit"),
        ("demo --sparsity 2", "2.0 is no sparsity"),
        ("demo --output nowhere/demo", "no folder 'nowhere'"),
        ("demo --output model.keras", "is a file; give a folder"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_to_write(line, message, inside, capsys):
    code, errors = refused(capsys, line)
    assert code == 2
    assert message in errors


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("summary short.keras", "'short.keras' is truncated or of another kind: a .keras file is a zip archive"),
        ("summary empty.keras", "'empty.keras' is empty"),
        ("summary data.npz", "'data.npz' is no Keras model"),
        ("inspect model.keras", "looks like a .keras file"),
        ("prune bare.keras --sparsity 0.5 --epochs 1 --data data.npz --output new.keras", "Compile it before saving"),
        ("prune model.keras --sparsity 0.5 --layers dens --output new.keras", "dense"),
        ("prune model.keras --sparsity 0.5 --epochs 1 --data uneven.npz --output new.keras", "x 64, y 3"),
        ("convert model.keras --data text.npz --output new.tflite", "cannot be read as plain arrays"),
        ("convert model.keras --data pickled.npz --output new.tflite", "cannot be read as plain arrays"),
        ("convert model.keras --data labels_only.npz --output new.tflite", "holds no inputs"),
    ],
)
def test_failed_work_is_one_line_and_leaves_no_file(line, message, inside, capsys):
    before = sorted(path.name for path in inside.iterdir())
    code, errors = refused(capsys, line)
    assert code == 1
    assert message in errors
    assert sorted(path.name for path in inside.iterdir()) == before


@pytest.mark.parametrize("flags", ["--reconstruct", "--criterion taylor --allocation global"])
def test_prune_reads_data_for_a_repair_and_for_a_criterion(flags, inside, tmp_path):
    line = f"prune model.keras --sparsity 0.5 {flags} --data data.npz --output {tmp_path / 'new.keras'}"
    assert cli.main(line.split()) == 0
    kernels = [layer.kernel.numpy() for layer in keras.models.load_model(tmp_path / "new.keras").layers[1:]]
    assert sum(np.count_nonzero(kernel == 0) for kernel in kernels) == round(
        0.5 * sum(kernel.size for kernel in kernels)
    )


def test_sensitivity_measures_each_weight_alone(inside, capsys):
    line = "sensitivity model.keras --data data.npz --levels 0.5,0.9 --json"
    assert cli.main(line.split()) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["weight"] for row in rows] == ["dense/kernel", "logits/kernel"]
    assert all(0.0 <= row["0.5"] <= 1.0 for row in rows)


def test_a_tflite_file_named_keras_is_told_apart(inside, tmp_path, capsys):
    cli.main(["convert", "model.keras", "--output", str(tmp_path / "m.tflite")])
    (tmp_path / "m.tflite").rename(tmp_path / "m.keras")
    capsys.readouterr()
    assert cli.main(["summary", str(tmp_path / "m.keras")]) == 1
    assert "is a TFLite model, where a Keras model is needed" in capsys.readouterr().err


def test_summary_prints_a_table_or_json_and_writes_a_report(inside, tmp_path, capsys):
    assert cli.main(["summary", "model.keras"]) == 0
    assert "1,024" in capsys.readouterr().out
    assert cli.main(["summary", "model.keras", "--json", "--output", str(tmp_path / "summary.md")]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["parameters"] == 1210
    assert (tmp_path / "summary.md").read_text().startswith("| layer |")


def test_prune_at_once_writes_a_plain_model_of_exact_zeros(inside, tmp_path, capsys):
    target = tmp_path / "pruned.keras"
    assert cli.main(["prune", "model.keras", "--sparsity", "0.75", "--output", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["zeros"] == 888
    kernels = [weight for weight in keras.models.load_model(target).get_weights() if weight.ndim == 2]
    assert sum(int((kernel == 0).sum()) for kernel in kernels) == 888
    with zipfile.ZipFile(target) as archive:
        assert b"tfprune" not in archive.read("config.json")


def test_prune_while_training(inside, tmp_path, capsys):
    line = "prune model.keras --pattern 2:4 --epochs 2 --data data.npz --json --layers dense --output"
    assert cli.main([*line.split(), str(tmp_path / "p.keras")]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["sparsity"] == 0.5


def test_prune_by_threshold(inside, tmp_path, capsys):
    line = "prune model.keras --threshold 1 --unit std --json --output"
    assert cli.main([*line.split(), str(tmp_path / "p.keras")]) == 0
    assert 0.5 < json.loads(capsys.readouterr().out)["totals"]["sparsity"] < 0.7


def test_channels_pruned_while_training_are_gone_after_shrink(inside, tmp_path, capsys):
    masked, small = tmp_path / "masked.keras", tmp_path / "small.keras"
    line = f"prune model.keras --channels 0.5 --epochs 2 --data data.npz --json --output {masked}"
    assert cli.main(line.split()) == 0
    assert cli.main(["shrink", str(masked), "--output", str(small)]) == 0
    capsys.readouterr()
    assert keras.models.load_model(small).get_layer("dense").units == 8


def test_shrink_at_once(inside, tmp_path, capsys):
    small = tmp_path / "small.keras"
    assert cli.main(["shrink", "model.keras", "--channels", "0.25", "--output", str(small)]) == 0
    assert "Shrink plan" in capsys.readouterr().out
    assert keras.models.load_model(small).get_layer("dense").units == 12


def test_shrink_without_anything_to_remove_warns_in_one_line(inside, tmp_path, capsys):
    assert cli.main(["shrink", "model.keras", "--output", str(tmp_path / "small.keras")]) == 0
    errors = capsys.readouterr().err
    assert errors.startswith("tfprune: warning: 'm' has no dead channel")
    assert errors.count("\n") == 1


def test_convert_then_inspect(inside, tmp_path, capsys):
    target = tmp_path / "model.tflite"
    line = f"convert model.keras --quantization int8 --data data.npz --samples 20 --output {target}"
    assert cli.main(line.split()) == 0
    capsys.readouterr()
    assert cli.main(["inspect", str(target), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed["input_dtypes"].values()) == {"int8"}
    assert printed["float_ops"] == {}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--min_f1 1", "the F1 of the .tflite is 0."),
        ("--min_accuracy 1", "the accuracy of the .tflite is 0."),
        ("--integers", "compute in floating point. Convert with more typical --data, with --float_layers"),
    ],
)
def test_verify_fails_where_a_stated_bound_is_broken(inside, capsys, flags, message):
    assert cli.main(["convert", "model.keras", "--output", "plain.tflite"]) == 0
    capsys.readouterr()
    assert cli.main(["verify", "model.keras", "plain.tflite", "--data", "data.npz", "--by_layer"]) == 0
    assert "Error behind each layer" in capsys.readouterr().out
    code, errors = refused(capsys, f"verify model.keras plain.tflite --data data.npz {flags}")
    assert code == 1
    assert message in errors


def test_inspect_fails_where_a_pattern_is_broken(inside, capsys):
    assert cli.main(["prune", "model.keras", "--pattern", "2:4", "--layers", "dense", "--output", "sparse.keras"]) == 0
    line = "convert sparse.keras --quantization int8 --float_layers logits --data data.npz --output sparse.tflite"
    assert cli.main(line.split()) == 0
    assert cli.main(["inspect", "sparse.tflite", "--pattern", "2:4", "--layers", "dense"]) == 0
    capsys.readouterr()
    code, errors = refused(capsys, "inspect sparse.tflite --pattern 2:4")
    assert code == 1
    # The converter of TensorFlow 2.19 names no kernels.
    name = "arith.constant" if version("tensorflow").startswith("2.19.") else "m_1/logits"
    assert f"not 2:4: '{name}" in errors
    assert refused(capsys, "inspect sparse.tflite --pattern dense")[0] == 2


def test_a_file_that_was_there_is_replaced_whole(inside, tmp_path):
    target = tmp_path / "model.tflite"
    target.write_bytes(b"old")
    assert cli.main(["convert", "model.keras", "--output", str(target)]) == 0
    assert LiteModel.load(target).quantization == "float32"
    assert [path.name for path in tmp_path.iterdir()] == ["model.tflite"]


def test_a_failed_write_leaves_the_old_file_whole(tmp_path):
    target = tmp_path / "report.txt"
    target.write_text("old")
    with pytest.raises(files.PruningError, match="The old file, if any, is whole"), files.replacing(target) as part:
        part.write_text("half")
        raise OSError(28, "No space left on device")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.txt"]


def test_a_model_with_layers_of_the_users_own_needs_their_module(inside, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_layers.py").write_text(
        "import keras\n\n@keras.saving.register_keras_serializable('mine')\nclass Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n        return x * 2\n"
    )
    save = (
        "import keras, my_layers\n"
        "keras.Sequential([keras.Input((4,)), my_layers.Twice(), keras.layers.Dense(2)]).save('own.keras')"
    )
    subprocess.run([sys.executable, "-c", save], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    code, errors = refused(capsys, "summary own.keras")
    assert code == 1
    assert "Twice" in errors
    assert cli.main(["summary", "own.keras", "--import", "my_layers"]) == 0


def test_named_inputs_come_from_arrays_of_their_names(tmp_path):
    np.savez(tmp_path / "two.npz", left=np.zeros((3, 2)), right=np.ones((3, 2)), y=np.arange(3))
    samples = files.load_samples(tmp_path / "two.npz", "test")
    assert set(samples.inputs) == {"left", "right"}
    assert samples.targets.tolist() == [0, 1, 2]


def test_a_file_with_both_parts_gives_the_one_asked_for(tmp_path):
    np.savez(tmp_path / "both.npz", x_train=np.zeros(4), y_train=np.zeros(4), x_test=np.ones(2), y_test=np.ones(2))
    assert len(files.load_samples(tmp_path / "both.npz", "train").inputs) == 4
    assert len(files.load_samples(tmp_path / "both.npz", "test").inputs) == 2


def test_the_process_prints_nothing_but_its_own_line(workplace):
    package = Path(cli.__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    run = subprocess.run(
        [sys.executable, "-m", "tfprune", "summary", str(workplace / "modle.keras")],
        check=False,
        capture_output=True,
        text=True,
        cwd=package,  # so that the package is found where it is not installed
        env=environment,
    )
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("tfprune: There is no file '")
    assert run.stderr.count("\n") == 1


def test_a_program_that_imports_the_package_keeps_its_standard_error():
    code = (
        "import os, sys; before = os.fstat(2); import tfprune; assert sys.stderr.fileno() == 2; os.write(2, b'heard')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, cwd=Path(cli.__file__).parents[2]
    )
    assert run.returncode == 0
    assert run.stderr.endswith(b"heard")


def test_search_writes_the_front_and_the_best_candidate(inside, capsys):
    line = "search model.keras --data data.npz --population 4 --generations 1 --budget macs=0.6 --output best.keras"
    assert cli.main([*line.split(), "--report", "front.png", "--journal", "search.jsonl"]) == 0
    assert "MACs" in capsys.readouterr().out
    dense, best = (files.load_model(inside / name) for name in ("model.keras", "best.keras"))
    assert best.count_params() < 0.7 * dense.count_params()
    assert (inside / "front.png").stat().st_size > 0 and (inside / "search.jsonl").read_text().count("\n") > 3


def test_search_writes_the_candidate_that_was_chosen_from_the_front(inside, capsys):
    line = "search model.keras --data data.npz --population 4 --generations 1 --journal chosen.jsonl --json"
    assert cli.main(line.split()) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    last = rows[-1]["candidate"]
    assert cli.main([*line.split(), "--candidate", str(last), "--out", "chosen.keras"]) == 0
    printed = capsys.readouterr()
    assert "Written: chosen.keras (" in printed.err
    assert json.loads(printed.out)["rows"] == rows
    assert files.load_model(inside / "chosen.keras").count_params() == pytest.approx(
        1210 * rows[-1]["macs_share"], rel=0.1
    )
    code = cli.main([*line.split(), "--candidate", "9999", "-o", "other.keras"])
    assert code == 1
    assert "--candidate=9999 is not in the front: " in capsys.readouterr().err
    assert not (inside / "other.keras").exists()


@pytest.mark.parametrize("flag", ["--output", "--out", "-o"])
def test_what_was_written_is_said_however_the_flag_is_called(flag, inside, tmp_path, capsys):
    target = tmp_path / "s.json"
    assert cli.main(["summary", "model.keras", flag, str(target)]) == 0
    assert capsys.readouterr().out.endswith(f"Written: {target} ({target.stat().st_size:,} bytes)\n")
    assert cli.main(["summary", "model.keras", f"{flag}={target}", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads(target.read_text())
    assert printed.err.startswith(f"Written: {target}")


def test_flags_may_be_written_with_dashes(inside, tmp_path, capsys):
    line = f"prune model.keras --sparsity 0.5 --batch-size 8 --out {tmp_path / 'p.keras'}"
    assert cli.main(line.split()) == 0


def test_exit_codes_are_one_table_in_help_and_guide(capsys):
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    guide = (Path(cli.__file__).parents[2] / "docs" / "guide" / "command.md").read_text(encoding="utf-8")
    for code, meaning in cli.EXIT_CODES.items():
        assert f"  {code} " in printed and meaning in printed
        assert f"| {code} | {meaning} |" in guide


def test_compress_writes_the_file_and_keeps_the_steps(inside, capsys):
    line = (
        "compress model.keras --data data.npz --target parameters=0.7 --max_drop 0.9 --epochs 1 --output small.tflite"
    )
    assert cli.main([*line.split(), "--folder", "steps", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["within_bound"]
    assert LiteModel.load(inside / "small.tflite").quantization == "int8"
    assert (inside / "steps" / "steps.json").is_file()


def test_compress_judges_by_a_metric_that_is_asked_for(inside, capsys):
    line = "compress model.keras --data data.npz --metric loss --mode min --target parameters=0.9 --max_drop 900%"
    assert cli.main([*line.split(), "--epochs", "1", "--output", "small.tflite", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["within_bound"] and told["metrics"]["loss"]["mode"] == "min"


@pytest.mark.parametrize(
    "line, message",
    [("--data inputs.npy --metric accuracy", "targets"), ("--data data.npz --metric accurcy", "'accuracy'")],
)
def test_compress_says_which_metric_it_cannot_judge_by(line, message, inside, capsys):
    code, errors = refused(capsys, f"compress model.keras {line} --output refused.tflite")
    assert code == 1 and message in errors
    assert not (inside / "refused.tflite").exists()


def test_compress_without_labels_judges_by_the_answers(inside, capsys):
    line = "compress model.keras --data inputs.npy --max_drop 100% --epochs 1 --output small.tflite --json"
    assert cli.main(line.split()) == 0
    assert "difference" in capsys.readouterr().out
