"""Samples of `--data`: folders of images, tables with commas; what is wrong with them is said."""

import json

import keras
import numpy as np
import pytest

from tfprune.command import cli


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model of small images, one of three columns, and data for both."""
    folder = tmp_path_factory.mktemp("place")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    images = keras.Sequential([keras.Input((6, 6, 3)), layers.Flatten(), layers.Dense(2, name="answer")])
    images.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    images.save(folder / "images.keras")
    columns = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="answer")])
    columns.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    columns.save(folder / "columns.keras")
    random = np.random.default_rng(0)
    for name, top in (("cat", 100), ("dog", 255)):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, top, (9, 9, 3))
            keras.utils.save_img(folder / "pictures" / name / f"{number}.png", pixels, scale=False)
    (folder / "bare").mkdir()
    for number in range(5):
        keras.utils.save_img(folder / "bare" / f"{number}.png", random.integers(0, 255, (6, 6, 3)), scale=False)
    (folder / "no_pictures").mkdir()
    rows = [f"{a:.3f},{b:.3f},{'yes' if a > b else 'no'},{a * b:.3f}" for a, b in random.random((40, 2))]
    (folder / "table.csv").write_text("\n".join(["a,b,label,c", *rows]) + "\n")
    (folder / "headless.csv").write_text("1,2,3\n4,5,6\n")
    (folder / "words.csv").write_text("a,b,c,y\n1,red,3,0\n")
    (folder / "ragged.csv").write_text("a,b,c,y\n1,2,3,0\n1,2\n")
    return folder


@pytest.fixture(autouse=True)
def inside(place, monkeypatch):
    monkeypatch.chdir(place)


def test_a_folder_of_images_with_a_folder_for_each_class(capsys):
    line = "sensitivity images.keras --data pictures --divide_by 255 --levels 0.5 --json"
    assert cli.main(line.split()) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["notes"][0].endswith("8 samples.")


def test_samples_of_a_folder_are_mixed_and_fewer_where_asked(capsys):
    line = "sensitivity images.keras --data pictures --samples 5 --divide-by 255 --levels 0.5 --json"
    assert cli.main(line.split()) == 0
    assert json.loads(capsys.readouterr().out)["notes"][0].endswith("5 samples.")


def test_images_without_classes_are_typical_inputs(capsys, place):
    line = "convert images.keras --quantization int8 --data bare --divide_by 255 -o images.tflite"
    assert cli.main(line.split()) == 0
    size = (place / "images.tflite").stat().st_size
    assert f"Written: images.tflite ({size:,} bytes)" in capsys.readouterr().out


def test_a_table_with_headings_is_inputs_and_labels(capsys):
    assert cli.main(["sensitivity", "columns.keras", "--data", "table.csv", "--levels", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"][0].endswith("40 samples.")


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("convert columns.keras --data bare --output x.tflite", 1, "folder of images, which need a model of one input"),
        ("convert images.keras --data no_pictures --output x.tflite", 1, "'no_pictures' has no images"),
        ("convert images.keras --data pictres --output x.tflite", 2, "--data=pictres is no data set and no folder"),
        ("convert images.keras --data tabel.csv --output x.tflite", 2, "Did you mean 'table.csv'"),
        ("convert columns.keras --data headless.csv --output x.tflite", 1, "needs a first line of headings"),
        ("convert columns.keras --data words.csv --output x.tflite", 1, "'red' in row 2 of column 'b'"),
        ("convert columns.keras --data ragged.csv --output x.tflite", 1, "2 values in row 3, and 4 headings"),
        ("convert images.keras --data bare/0.png --output x.tflite", 1, "'bare/0.png' is no data file"),
        ("completion tcsh", 2, "Write tfprune completion bash|zsh|fish"),
    ],
)
def test_what_is_wrong_with_data_is_one_line(line, code, message, capsys):
    assert cli.main(line.split()) == code
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1
