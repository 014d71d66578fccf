"""The page for a colleague: golden intervals and verdicts, every figure from where it was measured, a real browser."""

import html
import json
import re
import shutil
import subprocess

import keras
import lite_models
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.errors import PruningError
from tfprune.lite.report.charts import bars, histograms
from tfprune.lite.report.judged import Judged, Judges
from tfprune.lite.report.verdict import verdict_of


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, its pruned copy, the file of that, samples with labels, and the report on it all."""
    dense = lite_models.convolutional()
    pruned = tfprune.prune(dense, tfprune.Percentile(0.5))
    images = np.random.default_rng(0).normal(size=(60, 12, 12, 3)).astype(np.float32)
    labels = dense.predict(images, verbose=0).argmax(-1)
    lite = tfprune.convert(pruned, "int8", representative_data=images)
    page = tmp_path_factory.mktemp("report") / "report.html"
    return dense, pruned, lite, (images, labels), page, tfprune.report(pruned, dense, lite, (images, labels), page)


def judged(won, lost, count=1000):
    right = (count // 2, count // 2 + won - lost)
    return Judged(("before", "after"), count, right, (0, won), (0, lost), np.ones((2, 1)), np.ones(1))


@pytest.mark.parametrize(
    "won, lost, expected",
    [
        (0, 0, (0.0, -0.00196, 0.00196)),
        (10, 10, (0.0, -0.008982, 0.008982)),  # 1.96 * sqrt(21) / 1000
        (0, 30, (-0.03, -0.040751, -0.019249)),  # 1.96 * sqrt(31 - 0.9) / 1000 = 0.010753
    ],
)
def test_the_interval_counts_where_only_one_is_right(won, lost, expected):
    assert judged(won, lost).change("after") == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize(
    "won, lost, bound, answer, said",
    [
        (0, 0, 0.01, "yes", "less than 1 point are lost"),
        (0, 30, 0.01, "no", "-3.00 points (-4.08 to -1.92 with 95 % confidence, 1,000 decisions): more than 1 point"),
        (0, 30, 0.05, "yes", "less than 5 points are lost"),
        (0, 12, 0.01, "not shown", "takes more samples to tell"),
    ],
)
def test_the_verdict_follows_from_the_interval_and_the_bound(won, lost, bound, answer, said):
    verdict = verdict_of(judged(won, lost), "after", None, bound)
    assert verdict.answer == answer and said in str(verdict)


def test_without_labels_or_baseline_nothing_is_shown():
    assert "No labelled data came" in str(verdict_of(None, "after", None, 0.01))
    alone = Judged(("after",), 4, (2,), (0,), (0,), np.ones((1, 1)), np.ones(1))
    assert "no baseline" in str(verdict_of(alone, "after", None, 0.01))


def test_classes_that_pay_are_counted_over_batches():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, activation="softmax")])
    judges = Judges(model, ["before", "after"])
    rows, labels = np.eye(3, dtype=np.float32), np.array([0, 1, 2])
    judges.add([rows, rows[[0, 1, 1]]], labels)  # class 2 is lost
    judges.add([rows[[1, 0]], rows[[0, 0]]], np.array([0, 0]))  # one sample of class 0 is won
    found = judges.result()
    assert (found.right, found.won, found.lost) == ((4, 4), (0, 1), (0, 1))
    assert found.classes() == [
        {"class": 0, "samples": 3, "before": 2 / 3, "after": 1.0},
        {"class": 1, "samples": 1, "before": 1.0, "after": 1.0},
        {"class": 2, "samples": 1, "before": 1.0, "after": 0.0},
    ]


def test_every_figure_is_that_of_the_measurement(made):
    dense, pruned, lite, (images, labels), _, report = made
    rows = {row["figure"]: row for row in report.rows()}
    assert rows["parameters"]["before"] == f"{tfprune.summary(dense).parameters:,}"
    nonzero = tfprune.summary(pruned).parameters - tfprune.summary(pruned).zeros
    assert rows["weights that are not zero"]["after"] == f"{nonzero:,}"
    assert rows["bytes of the file"]["after"] == f"{lite.size:,}"
    right = np.mean(pruned.predict(images, verbose=0).argmax(-1) == labels)
    assert rows["accuracy"] == {
        "figure": "accuracy",
        "before": "100.00%",
        "after": f"{right:.2%}",
        "change": f"{100 * right - 100:+.2f} points",
    }
    assert rows["accuracy in the file"]["after"] == f"{tfprune.verify(pruned, lite, images, labels).lite_accuracy:.2%}"
    assert {"milliseconds here", "MACs of one sample", "bytes compressed by gzip"} <= set(rows)
    assert report.notes()[0].startswith(f"Safe to ship: {report.verdict.answer}.")
    known = json.loads(report.to_json())
    assert known["safe_to_ship"] == report.verdict.answer and known["versions"]["keras"] == keras.__version__
    assert [row["layer"] for row in known["by_layer"]] == [row["layer"] for row in tfprune.summary(pruned).rows()]


def test_channels_that_went_and_layers_that_went_are_in_the_table(tmp_path):
    x = inputs = keras.Input((4,))
    big = keras.Model(inputs, layers.Dense(2, name="b")(layers.Dense(8, name="gone")(layers.Dense(8, name="a")(x))))
    small = keras.Model(inputs, layers.Dense(2, name="b")(layers.Dense(3, name="a")(x)))
    rows = tfprune.report(small, big, out=None).by_layer()
    assert [(row["layer"], row["shape_before"], row["shape"]) for row in rows] == [
        ("a", "4x8", "4x3"),
        ("b", "8x2", "3x2"),
        ("gone", "8x8", "gone"),
    ]


def test_a_generator_is_read_once_and_a_subclass_is_told_apart(tmp_path):
    model = lite_models.subclassed()
    lite = tfprune.convert(model)
    report = tfprune.report(model, lite=lite, data=(np.ones((4, 5), np.float32) for _ in range(2)), out=None)
    assert report.file.samples == 8 and report.layers is None
    assert any("tfprune.inline makes one" in note for note in report.notes())


def test_history_sensitivity_runtimes_and_the_lines_to_repeat_it_are_on_the_page(made, tmp_path):
    dense, pruned, lite, (images, labels), _, _ = made
    copy = keras.models.clone_model(pruned)
    copy.set_weights(pruned.get_weights())
    copy.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    copy.fit(images, labels, epochs=2, verbose=0)
    key = next(iter(tfprune.summary(copy).rows()))["layer"]
    found = tfprune.sensitivity(copy, (images, labels), levels=(0.5,), layers=[key], verbose=0)
    search = tfprune.genetic_search(
        copy, (images, labels), genome="layers", population=4, generations=1, seed=7, verbose=0
    )
    page = tmp_path / "page.html"
    report = tfprune.report(copy, dense, lite, (images, labels), page, results=[found, search])
    assert [each.title for each in report.results] == ["Sensitivity", "Search", "History of training"]
    history = report.results[-1]
    assert [row["loss"] for row in history.rows()] == copy.history.history["loss"]
    assert [axes.get_xlabel() for axes in history.plot().axes] == ["epoch", "epoch"]
    text = page.read_text()
    assert text.count("data:image/svg+xml;base64,") == 3 and "seed of: Search" in text
    assert [row["runtime"] for row in report.runtimes.rows()] == ["litert", "arm", "web", "micro"]
    assert report.runtimes.rows()[0]["milliseconds"] == report.times.timings[-1].median
    assert [note[:40] for note in report.runtimes.notes()] == ["web: LiteRT.js takes and gives float32, "]
    assert (
        "tfprune report model.keras --baseline baseline.keras --lite lite.tflite --data data.npz --max_drop 0.01"
        in text
    )
    assert "http:" not in text and json.loads(report.to_json())["runtimes"]["rows"][0]["runs"] == "yes"
    with pytest.raises(
        PruningError, match="results= holds int; give what sensitivity, a search, compress or benchmark"
    ):
        tfprune.report(copy, out=None, results=[3])


class Counted(keras.Model):
    """A model of its own that counts how often it is asked."""

    def __init__(self):
        super().__init__()
        self.head, self.calls = layers.Dense(3), 0

    def call(self, x):
        self.calls += 1
        return self.head(x)


def test_each_model_is_asked_once_about_each_sample():
    x, y = np.ones((8, 4), np.float32), np.zeros(8, int)
    before, after = Counted(), Counted()
    for model in (before, after):
        model(x)
    lite = tfprune.convert(after)
    before.calls = after.calls = 0
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    report = tfprune.report(after, before, lite, iter(batches), out=None)
    assert report.judged.decisions == report.file.samples == 8
    converted = 1  # the baseline becomes a file, for its time
    assert after.calls == 2 and 2 <= before.calls <= 2 + converted
    after.calls = 0
    assert tfprune.report(after, data=iter(batches), out=None).judged.decisions == 8 and after.calls == 2


def test_hostile_names_are_words_on_the_page(tmp_path):
    name = "<img src=x onerror=alert(1)>&"
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)], name="m")
    model.layers[0].name = name
    tfprune.report(model, out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert name not in page and html.escape(name) in page


def test_pictures_hold_what_they_are_given():
    picture = bars(["<a>", "b"], [[0.5, 1.0], [0.25, 0.0]], ["one", "two"], ".0%")
    assert picture.count("<rect") == 4 and "&lt;a&gt;" in picture and "<a>" not in picture
    assert [float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', picture)] == [150, 75, 300, 0]
    picture = histograms(np.array([0.0, -1.0, 1.0]), np.array([0.0, 0.0, 0.5]))
    assert picture.count("<polygon") == 2 and ">-1<" in picture and ">1<" in picture
    assert histograms(None, np.zeros(3)).count("<polygon") == 1


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"out": "page.txt"}, "must end with .html"),
        ({"out": "nowhere/page.html"}, "there is no folder 'nowhere'"),
        ({"max_drop": 1}, r"max_drop=1: give a share in \[0, 1\)"),
        ({"baseline": lite_models.subclassed()}, "takes inputs of shapes .* Give the model that this one was made of"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(made, arguments, said):
    with pytest.raises(PruningError, match=said):
        tfprune.report(made[1], data="nothing that could be read", **{"out": None, **arguments})


def browser(page, tmp_path, width):
    """What Chromium says of a page in a window of so many pixels: its errors, and the measures of its content."""
    inner = html.escape(page.read_text(encoding="utf-8"))
    measure = (
        "const d = document.querySelector('iframe').contentDocument, box = d.documentElement;"
        "const out = [...d.querySelectorAll('section, .verdict')].map(e => e.innerText.trim().length);"
        "const hidden = [...d.querySelectorAll('.scroll')]"
        ".map(e => e.scrollWidth - e.clientWidth);"
        "const head = d.querySelectorAll('th')[0]; head.click();"
        "const sorted = head.getAttribute('aria-sort');"
        "const over = box.scrollWidth - box.clientWidth;"
        "document.body.dataset.found = JSON.stringify({over, texts: out, sorted, hidden});"
    )
    frame = tmp_path / f"frame{width}.html"
    frame.write_text(
        f'<body><iframe width="{width}" height="900" srcdoc="{inner}" onload="{html.escape(measure)}"></iframe></body>',
        encoding="utf-8",
    )
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=3000 --dump-dom"
    command = ["chromium", *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", frame.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'data-found="([^"]*)"', ran.stdout)
    return [line for line in ran.stderr.splitlines() if "CONSOLE" in line], json.loads(html.unescape(found[1]))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is missing")
def test_a_browser_shows_the_page_without_errors_at_the_widths_of_a_phone_and_a_desk(made, tmp_path):
    for width in (390, 1280):
        errors, found = browser(made[4], tmp_path, width)
        assert errors == [] and found["over"] <= 0 and found["sorted"] == "descending"
        seen = found["hidden"] if width == 1280 else found["hidden"][:1]
        assert max(seen) <= 0, f"columns are out of sight: {found['hidden']}"
        assert len(found["texts"]) == 7 and min(found["texts"]) > 20
    assert made[4].stat().st_size < 2_000_000 and "http" not in made[4].read_text().replace("http://www.w3.org", "")
