"""Open sizes in the calls of layers: what is tiled, padded, counted or split by them follows them in the graph."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune
from tfprune.errors import PruningError
from tfprune.model.inline import inline_notes

WIDTH = 6


class Part(layers.Layer):
    """One thing that a call does with open sizes, around a kernel of its own."""

    def __init__(self, does):
        super().__init__(name="part")
        self.does, self.dense = does, layers.Dense(WIDTH)

    def build(self, shape):
        self.tokens = self.add_weight(shape=(1, 2, WIDTH), initializer="normal", name="tokens")
        self.dense.build(shape)

    def call(self, x):
        return self.does(self, self.dense(x))


class TellsItsShape(Part):
    """Since Keras knows none for a Fourier transform along an open axis."""

    def compute_output_shape(self, shape):
        return (*shape[:-1], 2 * WIDTH)


def as_many_tokens_as_samples(self, x):
    # keras.ops.add takes the tokens for a bias where their number is that of the samples.
    return ops.concatenate([ops.tile(self.tokens, (ops.shape(x)[0], 1, 1)), x], axis=1)


def one_row_for_each_word(self, x):
    batch, steps = ops.shape(x)[:2]
    return ops.reshape(ops.reshape(x, (batch * steps, WIDTH)) * 2.0, (batch, steps, WIDTH))


def padded_before_and_behind(self, x):
    steps = ops.shape(x)[1]
    return ops.pad(x, ((0, 0), (steps, 2), (1, 1)), constant_values=3.0)


def counted_down_to_zero(self, x):
    steps = ops.shape(x)[1]
    return x + ops.cast(ops.arange(1 - steps, 1), x.dtype)[None, :, None]


def counted_from_a_number(self, x):
    steps = ops.shape(x)[1]
    return x + ops.cast(ops.arange(2, 2 + steps), x.dtype)[None, :, None]


def fourier(self, x):
    real, imaginary = ops.fft2((x, ops.zeros_like(x) + 0.5))
    return ops.concatenate([real, imaginary], axis=-1)


def near_and_before(self, x):
    steps = ops.shape(x)[1]
    # An array, since sizes are numbers in a trace: 1 on three diagonals, and on all below the second above.
    near = np.tri(steps, steps, 1) - np.tri(steps, steps, -2) if isinstance(steps, int) else _near(steps)
    return ops.einsum("ts,bsd->btd", ops.cast(near, x.dtype), x)


def _near(steps):
    apart = ops.arange(steps)[:, None] - ops.arange(steps)[None]
    return (apart >= -1) & (apart <= 1)


def a_table_for_samples_and_heads(self, x):
    samples, steps = ops.shape(x)[:2]
    apart = ops.arange(steps)[:, None] - ops.arange(steps)[None]
    scores = ops.cast(ops.broadcast_to(apart, (samples, 3, steps, steps)), x.dtype)
    return ops.sum(ops.einsum("bhts,bsd->bhtd", scores, x), axis=1)


def as_many_as_strides_leave(self, x):
    half = ops.average_pool(x, 2, 2, padding="valid")
    places = ops.arange(ops.shape(half)[1])
    known = ops.sum(ops.ones_like(half[:, :, 0], dtype="int32"), axis=1) - 1
    return half * ops.cast(places[None, :] < known[:, None], x.dtype)[..., None] + ops.cast(places, x.dtype)[:, None]


def on_the_diagonal(self, x):
    steps = ops.arange(ops.shape(x)[1])
    return ops.einsum("ts,bsd->btd", ops.cast(ops.expand_dims(steps, 1) == steps, x.dtype), x)


def scores_shifted_by_the_distance(self, x):
    """As the relative attention of Transformer-XL: steps first, samples behind them."""
    samples, steps = ops.shape(x)[:2]
    apart = ops.cast(ops.arange(steps, -steps, -1.0), x.dtype)
    places = ops.expand_dims(ops.einsum("i,d->id", apart, np.linspace(0.1, 1.0, WIDTH).astype("float32")), 1)
    places = ops.ones([2 * steps, samples, WIDTH]) * places
    scores = ops.einsum("jbd,bid->ijbd", places, x)
    scores = ops.reshape(scores, (2 * steps, steps, samples, WIDTH))[1:]
    scores = ops.reshape(scores, (steps, 2 * steps - 1, samples, WIDTH))
    scores = ops.slice(scores, (0, 1, 0, 0), (steps, 2 * steps - 2, samples, WIDTH))
    return ops.transpose(ops.sum(scores, axis=1), (1, 0, 2))


@pytest.mark.parametrize(
    "does",
    [
        as_many_as_strides_leave,
        on_the_diagonal,
        scores_shifted_by_the_distance,
        near_and_before,
        a_table_for_samples_and_heads,
        as_many_tokens_as_samples,
        one_row_for_each_word,
        padded_before_and_behind,
        counted_down_to_zero,
        counted_from_a_number,
        fourier,
    ],
)
def test_what_depends_on_an_open_size_follows_it(does):
    model = keras.Sequential([keras.Input((None, 4)), (TellsItsShape if does is fourier else Part)(does)])
    plain = tfprune.inline(model)
    assert not any(isinstance(layer, Part) for layer in plain.layers)
    for samples, steps in ((1, 4), (2, 9), (4, 2)):
        x = np.random.default_rng(steps).normal(size=(samples, steps, 4)).astype("float32")
        np.testing.assert_allclose(np.asarray(plain(x)), np.asarray(model(x)), atol=3e-5)


class Pyramid(layers.Layer):
    """Adds a coarse map to a fine one, which only fits where sizes are even."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.fine, self.coarse = layers.Conv2D(4, 1), layers.Conv2D(4, 3, strides=2, padding="same")
        self.enlarge = layers.UpSampling2D(2)

    def call(self, x):
        return self.fine(x) + self.enlarge(self.coarse(x))


def test_a_layer_that_takes_even_sizes_alone_opens_with_those():
    model = keras.Sequential([keras.Input((None, None, 3)), Pyramid(name="pyramid")])
    plain = tfprune.inline(model)
    assert [type(layer).__name__ for layer in plain.layers].count("Conv2D") == 2
    x = np.random.default_rng(0).normal(size=(2, 10, 6, 3)).astype("float32")
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_size_with_less_than_an_input_is_counted():
    inputs = keras.Input((None,), dtype="int32")
    model = keras.Model(inputs, Behind(name="behind")(inputs))
    plain = tfprune.inline(model)
    assert not any(isinstance(layer, Behind) for layer in plain.layers)
    words = np.arange(10).reshape(2, 5)
    np.testing.assert_array_equal(plain(words), model(words))


class Behind(layers.Layer):
    """A row of a table for each word behind the first."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words = layers.Embedding(10, 4)

    def build(self, shape):
        self.table = self.add_weight(shape=(1, 12, 4), initializer="normal", name="table")

    def call(self, ids):
        behind = self.words(ids[:, 1:])
        return behind + ops.take(self.table, ops.arange(ops.shape(behind)[1]), axis=1)


class Placed(layers.Layer):
    """Adds every row of a table of positions, so that no other length fits."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words, self.places = layers.Embedding(30, 4), layers.Embedding(6, 4)

    def call(self, ids):
        return self.words(ids) + self.places(np.arange(6)[None])


def test_a_model_that_takes_one_length_alone_is_opened_for_it():
    inputs = keras.Input((None,), dtype="int32")
    model = keras.Model(inputs, layers.Dense(2)(Placed(name="placed")(inputs)))
    with pytest.warns(UserWarning, match="The model takes sequences of 6 alone, and the opened one says so"):
        plain = tfprune.inline(model)
    assert plain.input_shape == (None, 6)
    words = np.arange(12).reshape(2, 6)
    np.testing.assert_allclose(plain(words), model(words), rtol=1e-6, atol=1e-6)
    assert tfprune.shrink(tfprune.prune(model, tfprune.Structured(0.3))).count_params() < model.count_params()


class Interleaved(layers.Layer):
    """Two parts of every picture for each token that it takes the place of, so that their numbers belong together."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = layers.Dense(4)

    def call(self, pictures, tokens):
        batch, count = ops.shape(pictures)[:2]
        return tokens + ops.reshape(self.seen(pictures), (batch, count * 2, 2))


def interleaving():
    pictures, tokens, words = keras.Input((None, 5)), keras.Input((None, 2)), keras.Input((None, 3))
    pooled = layers.GlobalAveragePooling1D()(Interleaved(name="interleaved")(pictures, tokens))
    read = layers.GlobalAveragePooling1D()(layers.Dense(4, activation="relu")(words))
    return keras.Model([pictures, tokens, words], layers.Dense(2)(layers.Concatenate()([pooled, read])))


def pictures_tokens_and_words(pictures, words):
    draw = np.random.default_rng(0).normal
    return [draw(size=(3, size, width)) for size, width in ((pictures, 5), (2 * pictures, 2), (words, 3))]


def test_a_model_whose_sizes_belong_together_opens_for_those_of_an_example():
    model, example = interleaving(), pictures_tokens_and_words(3, 5)
    hint = r"cannot be opened.* belong together, give an example: tfprune.inline\(model, data=inputs\)"
    with pytest.raises(PruningError, match=hint):
        tfprune.inline(model)
    said = r"opened model takes '.*' of shape \(None, 3, 5\) alone, that of the example"
    with pytest.warns(UserWarning, match=said):
        plain = tfprune.inline(model, data=example)
    assert [x.shape for x in plain.inputs] == [(None, 3, 5), (None, 6, 2), (None, None, 3)]  # words stay open
    for words in (5, 9):
        given = pictures_tokens_and_words(3, words)
        np.testing.assert_allclose(plain(given), model(given), rtol=1e-5, atol=1e-6)
    small = tfprune.shrink(tfprune.prune(plain, tfprune.Structured(0.5)))
    assert small.count_params() < model.count_params()


def test_an_example_of_other_axes_is_refused():
    with pytest.raises(PruningError, match=r"Opening a model: data for input '.*' has shape \(3, 3, 5, 1\), but"):
        tfprune.inline(interleaving(), data=[x[..., None] for x in pictures_tokens_and_words(3, 5)])


class InPieces(layers.Layer):
    """Goes through a sequence in pieces of four with a state, as linear attention does; the last one is filled up."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.key, self.value, self.out = layers.Dense(6), layers.Dense(5), layers.Dense(3)

    def build(self, shape):
        self.key.build(shape)
        self.value.build(shape)
        self.out.build((*shape[:-1], 5))

    def call(self, x):
        batch, steps = ops.shape(x)[:2]
        more = (4 - steps % 4) % 4
        if more > 0:
            x = ops.pad(x, [[0, 0], [0, more], [0, 0]])
        key, value = self.key(x), self.value(x)
        state, answers = ops.zeros((batch, 6, 5)), []
        for start in range(0, steps, 4):
            piece = slice(start, start + 4)
            state = state + ops.einsum("btk,btv->bkv", key[:, piece], value[:, piece])
            answers.append(ops.einsum("btk,bkv->btv", key[:, piece], state))
        return self.out(ops.concatenate(answers, axis=1)[:, :steps])

    def compute_output_shape(self, shape):
        return (*shape[:-1], 3)


def test_a_loop_over_pieces_of_a_sequence_opens_for_the_sizes_of_an_example():
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, layers.Dense(2, name="head")(InPieces(name="pieces")(inputs)))
    example = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")
    with pytest.warns(UserWarning, match=r"'pieces' may open for fixed sizes, .*inline\(model, data=inputs\)"):
        closed = tfprune.inline(model)
    assert any(isinstance(layer, InPieces) for layer in closed.layers)
    with pytest.warns(UserWarning, match=r"takes '.*' of shape \(None, 6, 4\) alone, that of the example"):
        plain = tfprune.inline(model, data=example)
    assert not any(isinstance(layer, InPieces) for layer in plain.layers)
    np.testing.assert_allclose(plain(example), model(example), rtol=1e-5, atol=1e-6)
    pruned = tfprune.prune(plain, tfprune.Structured(0.5, allocation="uniform"))
    small = tfprune.shrink(pruned)
    # Three of six keys and two of five values go; the state begins with zeros, as many as are left.
    assert [small.get_layer(f"pieces.{name}").units for name in ("key", "value", "out")] == [3, 3, 1]
    np.testing.assert_allclose(small(example), pruned(example), rtol=1e-5, atol=1e-6)


class StepByStep(layers.Layer):
    """A recurrence over the steps of a sequence in a loop of Keras, which writes each answer in its place."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.out = layers.Dense(6), layers.Dense(3)

    def build(self, shape):
        self.dense.build(shape)
        self.out.build((*shape[:-1], 6))

    def call(self, x):
        batch, steps = ops.shape(x)[:2]
        y = self.dense(x)

        def step(t, held):
            state, answers = held
            state = state * 0.5 + y[:, t]
            return [state, ops.slice_update(answers, [0, t, 0], state[:, None])]

        _, answers = ops.fori_loop(0, steps, step, [ops.zeros((batch, 6)), ops.zeros((batch, steps, 6))])
        return self.out(answers)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 3)


def test_a_recurrence_in_a_loop_opens_for_the_sizes_of_an_example_and_loses_channels():
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, layers.Dense(2, name="head")(StepByStep(name="steps")(inputs)))
    example = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    with pytest.warns(UserWarning, match=r"takes '.*' of shape \(None, 5, 4\) alone, that of the example"):
        plain = tfprune.inline(model, data=example)
    np.testing.assert_allclose(plain(example), model(example), rtol=1e-5, atol=1e-6)
    pruned = tfprune.prune(plain, tfprune.Structured(0.5, allocation="uniform"))
    small = tfprune.shrink(pruned)
    assert small.get_layer("steps.dense").units == 3
    np.testing.assert_allclose(small(example), pruned(example), rtol=1e-5, atol=1e-6)


def test_an_example_leaves_sizes_open_where_it_opens_nothing_more():
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, Part(counted_from_a_number)(inputs))
    assert tfprune.inline(model, data=np.ones((2, 5, 4), "float32")).input_shape == (None, None, 4)


class Steps(keras.Model):
    """A model of sequences of any length, or of one where its steps are flattened."""

    def __init__(self, flat=False):
        super().__init__(name="steps")
        self.first, self.last = layers.Dense(8, activation="relu"), layers.Dense(2)
        self.flatten = layers.Flatten() if flat else layers.GlobalAveragePooling1D()

    def call(self, x):
        return self.last(self.flatten(self.first(x)))


def test_an_opened_model_says_for_which_sizes_of_the_first_call_it_stands():
    model = Steps()
    model(np.zeros((2, 6, 4), np.float32))
    opened = tfprune.inline(model)
    assert inline_notes(model) == [
        "The opened model takes 'x' of shape (None, 6, 4) alone, as 'steps' was first called, which runs with "
        "others too. To leave a size open, give an example in which it differs: tfprune.inline(model, data=inputs)."
    ]
    assert opened.input_shape == (None, 6, 4)
    taken = r"'steps' is incompatible.*expected shape=\(None, 6, 4\), found shape=\(2, 9, 4\)"
    for small in (opened, tfprune.shrink(tfprune.prune(model, tfprune.Structured(0.3)))):
        with pytest.raises(ValueError, match=taken):
            small(np.zeros((2, 9, 4), np.float32))


@pytest.mark.filterwarnings("error::UserWarning")
def test_sizes_in_which_an_example_differs_from_the_first_call_stay_open():
    model = Steps()
    model(np.zeros((2, 6, 4), np.float32))
    x = np.random.default_rng(0).normal(size=(3, 9, 4)).astype("float32")
    opened = tfprune.inline(model, data=x)
    assert opened.input_shape == (None, None, 4)
    for part in (x, x[:, :6], x[:, :2]):
        np.testing.assert_allclose(opened(part), model(part), atol=1e-6)
    small = tfprune.shrink(tfprune.prune(tfprune.inline(model, data=x), tfprune.Structured(0.5)))
    assert small.input_shape == (None, None, 4) and small.count_params() < model.count_params()


@pytest.mark.filterwarnings("error::UserWarning")
def test_nothing_is_said_of_sizes_that_a_model_takes_alone():
    model = Steps(flat=True)
    model(np.zeros((2, 6, 4), np.float32))
    assert tfprune.inline(model).input_shape == (None, 6, 4) and inline_notes(model) == []


class Messages(layers.Layer):
    """Sums over the edges of a graph whose number of nodes is open."""

    def __init__(self):
        super().__init__(name="messages")
        self.dense = layers.Dense(WIDTH)

    def call(self, inputs):
        nodes, sources, targets = inputs
        sent = ops.take(self.dense(nodes), sources, axis=0)
        return ops.segment_sum(sent, targets, num_segments=ops.shape(nodes)[0])


def test_as_many_segments_as_nodes_follow_their_number(tmp_path):
    ends = [keras.Input((4,), name="nodes"), *(keras.Input((), dtype="int32", name=name) for name in ("from", "to"))]
    model = keras.Model(ends, layers.Dense(2)(Messages()(ends)))
    opened = tfprune.inline(model)
    assert inline_notes(model) == []
    opened.save(tmp_path / "opened.keras")
    again = keras.models.load_model(tmp_path / "opened.keras")
    for nodes, edges in ((5, 9), (7, 3), (2, 6)):  # some nodes are sent nothing, and some messages reach no node
        generator = np.random.default_rng(nodes)
        data = [generator.normal(size=(nodes, 4)).astype("float32"), generator.integers(0, nodes, edges, "int32")]
        data.append(np.where(np.arange(edges) % 3, generator.integers(0, nodes, edges, "int32"), -1).astype("int32"))
        for made in (opened, again):
            np.testing.assert_allclose(made(data), model(data), atol=1e-5)


class Halves(layers.Layer):
    def __init__(self):
        super().__init__(name="halves")
        self.dense = layers.Dense(WIDTH)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], WIDTH)

    def call(self, x):
        y = self.dense(x)
        return ops.roll(y, y.shape[1] // 2, axis=1)


def test_what_does_not_follow_a_size_is_named_with_the_line():
    x = keras.Input((None, 4))
    model = keras.Model(x, layers.Dense(2)(Halves()(x)))
    [said, _] = inline_notes(model)
    assert said.startswith("'halves' stays closed: Roll.shift depends on open sizes")
    assert "(test_inline_sizes.py:" in said and "ops.roll(y, y.shape[1] // 2, axis=1)" in said
