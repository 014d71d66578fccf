"""Names that a terminal, a page, a plot or TensorFlow would obey or refuse: shown as they are, and worked with."""

import io
import warnings

import keras
import numpy as np
import pytest
from rich.console import Console

import tfprune
from tfprune.errors import ConversionError, PruningError
from tfprune.lite.file import flatbuffer
from tfprune.progress import shown, stage
from tfprune.report import Column, Report, in_markdown

MARKUP, ESCAPE, TAG, FORMULA = "[/red]x", "esc\x1b[31mred", "<img src=x onerror=alert(1)>", r"$\frac$"
REVERSED = "abc\u202edef"  # turns what follows around in a terminal
NAMES = [MARKUP, ESCAPE, TAG, FORMULA, REVERSED, "_under", "1|2", "line\nbreak", "naïve Ω"]


class Named(Report):
    """A table whose title, headings, cells, totals and notes are hostile."""

    plotted = "value"

    def __init__(self, name):
        self.title = name
        self.columns = (Column("name", name), Column("value", f"{name} ms", ".1f"))

    def rows(self):
        return [{"name": f"{self.title}/one", "value": 1.0}, {"name": f"{self.title}/two", "value": 2.0}]

    def notes(self):
        return [f"About {self.title}."]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_shows_any_name_and_sends_no_control_character(name):
    shown_name = name.encode("unicode_escape").decode() if name in (ESCAPE, REVERSED, "line\nbreak") else name
    for width in (300, 30):
        console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        console.print(Named(name))
        for text in (console.file.getvalue(), Named(name).to_text(width), Named(name)._repr_html_()):
            assert all(each.isprintable() or each == "\n" for each in text)
        assert width < 300 or shown_name in Named(name).to_text(width)


def test_markdown_holds_no_tag_link_formula_or_further_column():
    assert Named(TAG).to_markdown().splitlines()[2] == r"| &lt;img src=x onerror=alert(1)>/one | 1.0 |"
    assert in_markdown("[a](http://b)") == r"\[a\](http://b)"
    assert in_markdown("1|2 `c` *d* _e_ f_g $x$ \x1b") == r"1\|2 \`c\` \*d\* \_e\_ f_g \$x\$ \\x1b"
    assert "<" not in Named(TAG)._repr_html_().replace("<th>", "").partition("&lt;")[0].rpartition(">")[2]


@pytest.mark.parametrize("name", [FORMULA, "$$", "_under", r"a\$b"])
def test_a_plot_draws_the_name_as_it_is(name, tmp_path):
    figure = Named(name).plot(tmp_path / "plot.png")
    texts = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert [text.replace(r"\$", "$").strip() for text in texts] == [f"{name}/one", f"{name}/two"]


def test_progress_shows_markup_as_it_is():
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with shown(1, console), stage(f"{MARKUP} {ESCAPE}") as begun:
        begun.advance(1, MARKUP)
    assert f"{MARKUP} esc\\x1b[31mred" in console.file.getvalue()


@pytest.mark.parametrize("kind", [PruningError, ConversionError])
def test_an_error_sends_no_control_character(kind):
    assert str(kind(f"Layer '{ESCAPE}'\nis odd.")) == "Layer 'esc\\x1b[31mred'\nis odd."


def test_a_tensor_of_any_name_is_inspected():
    lite = tfprune.convert(keras.Sequential([keras.Input((4,), name="a"), keras.layers.Dense(3, name="b")]))
    file = flatbuffer.read_model(lite.content)
    for tensor in file.subgraphs[0].tensors:
        tensor.name = f"{MARKUP}{ESCAPE}".encode()
    inspection = tfprune.LiteModel(flatbuffer.write_model(file)).inspect()
    assert f"{MARKUP}esc\\x1b[31mred" in inspection.to_text(200)


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    return generator.normal(size=(32, 8)).astype(np.float32), generator.integers(0, 3, 32)


def named(name):
    """A model with a layer whose variables bear the name too, as those of a copy do."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8,)), keras.layers.Dense(16, "relu", name=name), keras.layers.Dense(3, name=f"{name}2")]
    model = keras.Sequential(layers, name="model")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return tfprune.prune(model, tfprune.Percentile(0.5))


@pytest.mark.parametrize("name", [TAG, "_under", "naïve Ω"])
def test_names_that_tensorflow_refuses_convert_log_and_evaluate(name, data, tmp_path):
    model = named(name)
    weights = [weight.numpy() for weight in model.weights]
    lite = tfprune.convert(model, "int8", data[0])
    note = next(note for note in lite.notes if "TensorFlow refuses" in note)
    alias = note.partition(f"{name!r} is '")[2].partition("'")[0]
    assert alias in str(lite.inspect()) and alias.isascii()
    assert [end.name for end in lite.outputs] == [f"{name}2"]
    found = tfprune.verify(model, lite, *data)
    assert found.zeros_kept == found.zeros > 0
    assert set(tfprune.sensitivity(model, data, levels=(0.5,), verbose=0).values) == {
        f"{name}/kernel",
        f"{name}2/kernel",
    }
    found = tfprune.genetic_search(model, data, population=4, generations=1, seed=0, verbose=0)
    assert all(candidate.failure is None for candidate in found.evaluated)
    model.run_eagerly = True  # Keras itself compiles no step of such a model
    model.fit(*data, verbose=0, callbacks=[tfprune.PercentilePruning(0.7), tfprune.SparsityLogger(tmp_path)])
    assert list(tmp_path.iterdir())
    assert [layer.name for layer in model.layers] == [name, f"{name}2"]
    assert [weight.shape for weight in weights] == [weight.shape for weight in model.weights]


def test_aliases_are_names_that_no_layer_has():
    layers = [keras.layers.ReLU(name=name) for name in ("a b", "a_b", "a?b", "-c", "ok")]
    aliases = tfprune.model.aliases.aliases_of(keras.Sequential([keras.Input((2,)), *layers]))
    assert aliases == {"-c": "layer-c", "a b": "a_b_1", "a?b": "a_b_2"}


def test_a_model_of_ordinary_names_is_converted_without_a_copy_or_a_note():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    assert tfprune.model.aliases.with_aliases(model) == (model, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not any("refuses" in note for note in tfprune.convert(model).notes)
