"""compress: within the bound or saying so, resumable, with a teacher where Keras has one."""

import dataclasses
import json
import resource
import signal
from io import StringIO

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console
from search_models import X_VAL, Y_VAL, Batches, X, Y, classifier

import tfprune
from tfprune import ConversionError, PruningError, compress
from tfprune.command import datasets
from tfprune.lite import convert
from tfprune.lite.measure import web
from tfprune.lite.measure.micro import run_micro
from tfprune.lite.quantize import is_quantized
from tfprune.search.compress import goals
from tfprune.search.compress.folder import StepFolder

L = keras.layers
RANDOM = np.random.default_rng(1)
QUICK = {"epochs": 1, "sparsities": (0.5,)}


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def shown():
    """What a terminal has been shown."""
    return StringIO()


@pytest.fixture(scope="module")
def whole(model, shown, tmp_path_factory):
    """A compression to half the parameters, and its folder."""
    folder = tmp_path_factory.mktemp("compression") / "kept"
    before = model.get_weights()
    console = Console(file=shown, force_terminal=True, width=120)
    result = compress(model, (X, Y), (X_VAL, Y_VAL), 0.1, {"parameters": 0.5}, folder=folder, console=console, **QUICK)
    for one, other in zip(model.get_weights(), before):
        np.testing.assert_array_equal(one, other)
    return result, folder


def test_the_file_is_within_the_bound_and_as_good_as_reported(whole, model):
    result, _ = whole
    dense = model.evaluate(X_VAL, Y_VAL, verbose=0, return_dict=True)["accuracy"]
    assert result.dense_accuracy == pytest.approx(dense, abs=1e-6)
    assert result.within_bound and dense - result.accuracy <= 0.1 + 1e-6
    assert np.mean(result.lite(X_VAL).argmax(axis=-1) == Y_VAL) == result.accuracy
    assert result.lite.quantization == "int8" and not result.lite.inspect().float_ops
    assert result.meets_target and result.parameters <= 0.5


def test_every_step_is_reported_and_kept(whole):
    result, folder = whole
    names = [step.name for step in result.steps]
    assert names == ["unpruned", "channels to 50%", "weights 50%", "int8 training", names[-1]]
    assert {path.name for path in folder.iterdir()} == {
        "steps.json", "channels to 50%.keras", "weights 50%.keras", "int8 training.keras", "compressed.tflite",
    }  # fmt: skip
    assert (folder / "compressed.tflite").read_bytes() == result.lite.content
    sparse = keras.models.load_model(folder / "weights 50%.keras")
    assert tfprune.summary(sparse).sparsity == pytest.approx(0.5, abs=0.01)
    assert is_quantized(keras.models.load_model(folder / "int8 training.keras"))
    printed = " ".join(str(result).split())
    assert "times smaller than the float file" in printed and "IS NOT MET" not in printed
    assert json.loads(result.to_json())["ratios"] == result.ratios


def test_workers_search_for_the_channels_that_one_process_finds(whole, model):
    alone, _ = whole
    shared = compress(
        model, (X, Y), (X_VAL, Y_VAL), 0.1, {"parameters": 0.5}, epochs=1, sparsities=(), workers=2, verbose=0
    )
    first, second = (next(row for row in result.rows() if "channels" in row["step"]) for result in (alone, shared))
    assert first["parameters"] == second["parameters"] and first["macs"] == second["macs"]


def test_an_interrupted_compression_goes_on_behind_its_last_whole_step(model, tmp_path):
    folder = tmp_path / "kept"
    # One batch for the samples of calibration, ten for each epoch: the interruption comes while weights are pruned.
    arguments = {"target": {"parameters": 0.5}, "folder": folder, **QUICK}
    with pytest.raises(tf.errors.OpError, match="interrupted"):
        compress(model, Batches(left=26), (X_VAL, Y_VAL), 0.1, **arguments)
    steps = json.loads((folder / "steps.json").read_text())["steps"]
    assert list(steps) == ["unpruned", "channels to 50%"]
    kept = (folder / "channels to 50%.keras").read_bytes()
    resumed = compress(model, Batches(), (X_VAL, Y_VAL), 0.1, **arguments)
    assert (folder / "channels to 50%.keras").read_bytes() == kept
    assert vars(resumed.steps[1]) == steps["channels to 50%"] and resumed.within_bound


def test_what_was_lost_is_told_with_its_standard_error(whole, model):
    result, _ = whole
    dense, given = model.predict(X_VAL, verbose=0), result.lite(X_VAL)
    lost = (dense.argmax(axis=-1) == Y_VAL).astype(float) - (given.argmax(axis=-1) == Y_VAL)
    parts = lost.reshape(20, -1).mean(axis=1)
    (error,) = result.standard_errors
    assert error == pytest.approx(parts.std(ddof=1) / np.sqrt(20), rel=1e-6)
    assert result.metrics["accuracy"]["standard_error"] == error
    told = f"{100 * result.drop:.2f} ± {100 * error:.2f} points worse on 400 samples; at most 10 points were to be lost"
    assert told in " ".join(result.notes())
    said = "On other samples more than that may be lost: the bound of accuracy lies within two standard errors"
    for short, doubtful in ((0.4, True), (0.6, False)):  # of what is left to the bound
        known = dataclasses.replace(result, standard_errors=((0.1 - result.drop) * (1 - short),))
        assert (said in " ".join(known.notes())) == doubtful
    assert "worse on" not in " ".join(dataclasses.replace(result, standard_errors=(None,)).notes())


def test_the_folder_of_another_compression_is_refused(whole, model, tmp_path):
    _, folder = whole
    with pytest.raises(PruningError, match="belongs to another compression: its settings is not the same"):
        compress(model, (X, Y), (X_VAL, Y_VAL), 0.05, {"parameters": 0.5}, folder=folder, **QUICK)
    with pytest.raises(PruningError, match="belongs to another compression: its data is not the same"):
        compress(model, (X, Y), (X, Y), 0.1, {"parameters": 0.5}, folder=folder, **QUICK)
    with pytest.raises(PruningError, match=r"its train is not the same \(its train is .*, here it is"):
        compress(model, (X[::-1], Y), (X_VAL, Y_VAL), 0.1, {"parameters": 0.5}, folder=folder, **QUICK)
    old = tmp_path / "old"
    old.mkdir()
    for number in (1, 2):
        (old / "steps.json").write_text(f'{{"format": "tfprune compression {number}", "steps": {{}}}}')
        with pytest.raises(PruningError, match="an earlier version of tfprune, which made other steps of other models"):
            compress(model, (X, Y), (X_VAL, Y_VAL), 0.1, folder=old, **QUICK)
    (tmp_path / "file").write_text("")
    with pytest.raises(PruningError, match="is a file; give a folder"):
        compress(model, (X, Y), (X_VAL, Y_VAL), folder=tmp_path / "file")
    with pytest.raises(PruningError, match="there is no folder '.*nowhere'. Make it first"):
        compress(model, (X, Y), (X_VAL, Y_VAL), folder=tmp_path / "nowhere" / "here")
    whole_record = (folder / "steps.json").read_text()
    for text in (
        "[",
        whole_record.replace('"accuracy": 0', '"accuracy": 1', 1),
        whole_record.replace("checks", "chacks"),
    ):
        (tmp_path / "steps.json").write_text(text)
        with pytest.raises(PruningError, match="is no record of a compression, or damaged"):
            compress(model, (X, Y), (X_VAL, Y_VAL), 0.1, {"parameters": 0.5}, folder=tmp_path, **QUICK)


def test_a_bound_that_nothing_keeps_is_said_to_be_broken(model):
    # Inputs on which the unpruned model can hardly decide: the rounding of int8 turns some of them over.
    close = RANDOM.normal(size=(20000, 6, 6, 1)).astype("float32")
    answers = model.predict(close, verbose=0)
    order = np.argsort(np.abs(answers[:, 0] - answers[:, 1]))[:300]
    val = close[order], answers[order].argmax(axis=-1)
    with pytest.warns(UserWarning, match="more than the 0 allowed: no step stayed within the bound"):
        result = compress(model, (X, Y), val, 0.0, {"parameters": 0.9}, epochs=1, sparsities=())
    assert not result.within_bound
    assert "THE BOUND IS BROKEN" in " ".join(str(result).split())
    assert "beyond the bound, taken back" in [step.outcome for step in result.steps]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_drop": 1.5}, r"max_drop=1.5 is no share of accuracy in \[0, 1\)"),
        ({"target": "tiny"}, "target='tiny' is unknown; write 'smallest'"),
        ({"target": {"macs": 0.5, "bytes": 0.5}}, "or one share such as"),
        ({"target": {"mac": 0.5}}, "target names 'mac'. Did you mean 'macs'"),
        ({"target": {"macs": 5}}, r"target: 5 is no share of the unpruned model's macs in \(0, 1\)"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"workers": 0}, "workers=0"),
        ({"sparsities": (1.0,)}, "sparsities: 1.0 is no share of zeros"),
        ({"val": X}, r"train has targets and val has none, so no metric can be measured; write val=\(x, y\)"),
        (
            {"val": X, "metric": "accuracy"},
            "the metric 'accuracy' needs targets, and the data have none",
        ),
        ({"metric": "accuracy", "mode": "min"}, "mode='min' contradicts the metric 'accuracy'"),
        ({"max_drop": {"box": 0.1}}, "max_drop names the output 'box', which nothing judges"),
        ({"max_drop": "much"}, "max_drop='much' is no bound"),
        ({"train": iter([(X, Y)])}, "compress has to know the length of an epoch"),
    ],
)
def test_wrong_use_is_told(model, arguments, message):
    with pytest.raises(PruningError, match=message):
        compress(**{"model": model, "train": (X, Y), "val": (X_VAL, Y_VAL), **arguments})


def test_a_model_that_is_not_compiled_is_told(model):
    bare = keras.Sequential.from_config(model.get_config())
    with pytest.raises(PruningError, match="'small' is not compiled, and compress trains"):
        compress(bare, (X, Y), (X_VAL, Y_VAL))


def test_the_bars_tell_the_time_left(whole, shown):
    lines = shown.getvalue().replace("\r", "\n").splitlines()
    training = [line for line in lines if "all training, at most" in line]
    assert any("-:--:--" in line for line in training)  # before anything has been trained
    assert any("0:00:0" in line for line in training)
    assert any("search channels to 50%" in line and "80/80" in line for line in lines)


def test_what_stands_behind_the_bars_is_what_the_table_says(whole, shown):
    lines = shown.getvalue().replace("\r", "\n").splitlines()
    for row in whole[0].rows():
        figure = f"accuracy {row['accuracy']:.2%} zeros {row['zeros']:.1%}"
        assert any(row["step"] in line and figure in line for line in lines), row["step"]


@pytest.fixture(scope="module")
def digits():
    """A small CNN trained on 8x8 digits, its training and its validation data."""
    data = datasets.load("digits")
    keras.utils.set_random_seed(0)
    layers = [L.Conv2D(16, 3, activation="relu"), L.Conv2D(32, 3, activation="relu"), L.Flatten()]
    network = keras.Sequential([keras.Input((8, 8, 1)), *layers, L.Dense(32, activation="relu"), L.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"], jit_compile=False)
    network.fit(data.x_train, data.y_train, epochs=6, verbose=0)
    return network, (data.x_train, data.y_train), (data.x_test, data.y_test)


node = pytest.mark.skipif(not web.is_present(), reason="Node or the npm package @litertjs/core is missing")


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("bytes", 0.2),
        ("gzip_bytes", 0.15),
        ("latency", 0.8),
        pytest.param("web_latency", 0.8, marks=node),
        ("arena", 0.8),
    ],
)
def test_a_target_in_bytes_or_milliseconds_is_reached_as_measured(digits, name, share):
    if name == "arena":
        pytest.importorskip("tflite_micro")
    network, train, val = digits
    result = compress(network, train, val, 0.05, {name: share}, epochs=2, sparsities=())
    reached = result.ratios["float_latency" if name == "latency" else name]
    assert result.meets_target == (reached <= share)
    assert ("IS NOT MET" in " ".join(str(result).split())) is not result.meets_target
    assert result.within_bound and result.accuracy > 0.9 and result.parameters < 1.0
    if name == "gzip_bytes":
        assert result.meets_target and result.lite.gzip_size <= share * tfprune.convert(network).size
    if name == "arena":
        dense = tfprune.convert(network, "int8", representative_data=train[0][:300])
        small, whole = run_micro(result.lite).arena, run_micro(dense).arena
        assert result.meets_target and result.reached["arena"] == reached == small / whole
        assert f"RAM of the int8 file on a microcontroller: {reached:.2f}" in " ".join(str(result).split())
    if name == "bytes":  # the sizes of files are the same on every machine
        assert result.meets_target and len(result.lite.content) <= share * len(tfprune.convert(network).content)
        compared = tfprune.verify(network, result.lite, *val, robustness=True)
        assert set(result.robustness) == {"noise", "blur", "brightness"}  # noise depends on the size of batches
        assert all(result.robustness[kind] == compared.robustness[kind] for kind in ("blur", "brightness"))
        assert "Right on disturbed images: noise" in " ".join(str(result).split())


def test_recurrent_layers_get_weights_of_int8_where_integers_would_unroll_them():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(600, 40, 3)).astype("float32")
    y = (x[:, -5:].sum((1, 2)) > 0).astype("int32")
    network = keras.Sequential([keras.Input((40, 3)), keras.layers.LSTM(24), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
    network.fit(x[:500], y[:500], epochs=3, verbose=0)
    whole, integers = convert(network), convert(network, "int8", representative_data=x[:100])
    assert integers.size > 1.5 * whole.size
    train, val = (x[:500], y[:500]), (x[500:], y[500:])
    result = compress(network, train, val, 0.3, {"bytes": 0.5}, epochs=1, sparsities=())
    told = " ".join(str(result).split())
    assert result.kind == "dynamic" and result.lite.size < whole.size / 2 and result.meets_target
    assert "In int8 the loops of recurrent layers are unrolled" in told and "dynamic file: " in told
    answers = result.lite(val[0]).argmax(-1)
    assert result.accuracy == pytest.approx((answers == val[1]).mean())
    assert [timing.name for timing in result.timing.timings][1::2] == ["unpruned dynamic", "compressed dynamic"]


def test_a_step_that_has_no_int8_file_is_told_and_the_one_before_it_taken(model, monkeypatch):
    def refusing(given, *args, original=goals.convert, **kwargs):
        if is_quantized(given):
            raise ConversionError("no scale fits")
        return original(given, *args, **kwargs)

    monkeypatch.setattr(goals, "convert", refusing)
    result = compress(model, (X, Y), (X_VAL, Y_VAL), 0.9, {"parameters": 0.9}, epochs=1, sparsities=())
    assert not is_quantized(result.model) and len(result.lite(X_VAL)) == len(X_VAL)
    assert "There is no int8 file of 'int8 training': no scale fits" in " ".join(str(result).split())

    def refusing_all(given, *args, **kwargs):
        raise ConversionError("no scale fits")

    monkeypatch.setattr(goals, "convert", refusing_all)
    with pytest.raises(ConversionError, match="no scale fits"):
        compress(model, (X, Y), (X_VAL, Y_VAL), 0.9, {"parameters": 0.9}, epochs=1, sparsities=())


def test_a_target_that_nothing_meets_is_said_to_be_missed(model):
    result = compress(model, (X, Y), (X_VAL, Y_VAL), 0.9, {"bytes": 0.01}, epochs=1, sparsities=())
    assert not result.meets_target and result.ratios["bytes"] > 0.01 and result.parameters < 0.5
    assert "THE TARGET {'bytes': 0.01} IS NOT MET" in " ".join(str(result).split())


def test_a_full_disk_is_told_and_what_was_kept_is_whole(model, tmp_path):
    kept = StepFolder(tmp_path / "kept", {"seed": 0})
    kept.keep("unpruned", {"accuracy": 0.9})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails, as it does on a full disk
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limit[1]))
        with pytest.raises(PruningError, match="Cannot write '.*channels.keras': .*The old file, if any, is whole"):
            kept.keep("channels", {"accuracy": 0.8}, model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["steps.json"]
    assert StepFolder(tmp_path / "kept", {"seed": 0}).found == ["unpruned"]


def test_the_picture_has_every_step_the_bound_and_the_file(whole):
    result, _ = whole
    figure = result.plot()
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("MACs left of the unpruned model", "accuracy")
    numbers = [number for text in axes.texts for number in text.get_text().split(", ")]
    assert sorted(numbers) == [str(number) for number in range(1, len(result.steps) + 1)]
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["the int8 file"].get_xydata()[0]) == [result.macs, result.accuracy]
    assert lines["bound, 10 points lost"].get_ydata()[0] == pytest.approx(result.dense_accuracy - 0.1)
    assert "2 channels to 50%" in [text.get_text() for text in figure.legends[0].get_texts()]
