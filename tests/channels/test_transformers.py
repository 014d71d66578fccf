"""Transformers written by hand: residual width, heads, widths inside heads, gated units, weights as operands."""

import keras
import numpy as np
import pytest
from channel_checks import RandomChannels, check_shrinks, masked_copy, randomise
from keras import layers, ops

import tfprune
from tfprune.channels import Reason, certify, channel_groups, plan_shrink, shrink

WIDTH, STEPS = 16, 6


def weight(x, *shape, name):
    """A weight as an operand, as `inline` writes it: all rows of a table, read by their numbers."""
    first = ops.cast(x[(0,) * len(x.shape)], "int32")
    rows = int(np.prod(shape[:-1], dtype=int))
    zero = ops.zeros_like(ops.reshape(first, (1,)))
    table = layers.Embedding(rows, shape[-1], name=name)(zero + np.arange(rows, dtype="int32"))
    return table if len(shape) == 2 else ops.reshape(table, shape)


def positions(x):
    """0, 1, 2, ... as long as the sequence is."""
    line = ops.zeros_like(ops.moveaxis(x, 1, 0)[:, 0], dtype="int32")
    return ops.cumsum(line + 1) - 1


def embedded(x, name="positions"):
    tokens = layers.Embedding(30, WIDTH, name="tokens")(x)
    return tokens + ops.take(weight(x, 10, WIDTH, name=name), positions(x), axis=0)


def mlp(x, name, activation="gelu"):
    return layers.Dense(WIDTH, name=f"{name}_out")(layers.Dense(24, activation=activation, name=f"{name}_in")(x))


def encoder(before, outputs="stream"):
    x = inputs = keras.Input((None,), dtype="int32")
    x = embedded(x)
    norms = [layers.LayerNormalization(name=f"norm{n}") for n in range(3)]
    attention = layers.MultiHeadAttention(4, 4, name="attention")
    if before:
        y = norms[0](x)
        x = x + attention(y, y)
        x = norms[2](x + mlp(norms[1](x), "mlp"))
    else:
        x = norms[0](x)
        x = norms[1](x + attention(x, x))
        x = norms[2](x + mlp(x, "mlp"))
    if outputs != "stream":
        x = layers.Dense(5, name="classes")(layers.GlobalAveragePooling1D()(x))
    return randomise(keras.Model(inputs, x))


def root_mean_square(x, scale):
    return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6) * scale


@keras.saving.register_keras_serializable("tfprune_tests")
def sigmoid_linear(x):
    return x * ops.sigmoid(x)


def rotated(x):
    angles = ops.cast(
        ops.expand_dims(np.arange(STEPS)[:, None] * np.array([1.0, 0.3])[: x.shape[-1] // 2], 1), "float32"
    )
    left, right = ops.split(x, 2, axis=-1)
    return ops.concatenate(
        [left * ops.cos(angles) - right * ops.sin(angles), right * ops.cos(angles) + left * ops.sin(angles)], axis=-1
    )


def decoder(outputs="stream", heads=4, groups=2, size=2):
    """Root-mean-square norms written out, rotary grouped-query attention, a gated unit."""
    x = inputs = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(30, WIDTH, name="tokens")(x)
    y = root_mean_square(x, weight(inputs, WIDTH, name="scale1"))
    q = rotated(ops.reshape(layers.Dense(heads * size, name="q")(y), (-1, STEPS, heads, size)))
    k = rotated(layers.EinsumDense("btd,dgh->btgh", (STEPS, groups, size), name="k")(y))
    v = layers.EinsumDense("btd,dgh->btgh", (STEPS, groups, size), name="v")(y)
    k, v = (ops.repeat(z, heads // groups, axis=2) for z in (k, v))
    scores = ops.softmax(ops.einsum("btnh,bsnh->bnts", q, k) / 2.0)
    y = ops.einsum("bnts,bsnh->btnh", scores, v)
    x = x + layers.EinsumDense("btnh,nhd->btd", (STEPS, WIDTH), name="o")(y)
    y = root_mean_square(x, weight(inputs, WIDTH, name="scale2"))
    gated = layers.Dense(24, activation=sigmoid_linear, name="gate")(y) * layers.Dense(24, name="up")(y)
    x = root_mean_square(x + layers.Dense(WIDTH, name="down")(gated), weight(inputs, WIDTH, name="scale3"))
    if outputs != "stream":
        x = layers.Dense(30, name="logits")(x)
    return randomise(keras.Model(inputs, x))


TOKENS = np.random.default_rng(0).integers(0, 30, (8, STEPS))


@pytest.mark.parametrize("outputs", ["stream", "classes"])
@pytest.mark.parametrize("before", [True, False], ids=["norm before", "norm after"])
def test_the_residual_width_goes_through_layer_norms_exactly(before, outputs):
    model = encoder(before, outputs)
    _, small = check_shrinks(model, data=TOKENS)
    assert small.get_layer("tokens").embeddings.shape == (30, 11)
    assert small.get_layer("positions").embeddings.shape == (10, 11)
    assert small.get_layer("attention").num_heads == 3
    assert small.get_layer("norm1").gamma.shape == (WIDTH,)  # takes its statistics over zeros in their places
    assert small.count_params() < 0.65 * model.count_params()
    assert small.output_shape == model.output_shape


def test_a_stream_that_is_the_output_has_zeros_where_it_lost_channels():
    model = encoder(before=True)
    plan, small = check_shrinks(model, data=TOKENS)
    gone = ~plan["tokens"]
    output = np.asarray(small(TOKENS))
    assert gone.sum() == 5 and not output[..., gone].any() and output[..., ~gone].any(axis=(0, 1)).all()
    assert small.output_names == model.output_names
    assert "5 channels of the outputs go: the smaller model gives zeros in their places." in plan.notes()


@pytest.mark.parametrize("outputs", ["stream", "logits"])
def test_norms_written_out_heads_and_gated_units_shrink_exactly(outputs):
    model = decoder(outputs)
    _, small = check_shrinks(model, data=TOKENS)
    assert small.get_layer("tokens").embeddings.shape == (30, 11)
    assert small.get_layer("scale2").embeddings.shape == (1, 11)
    assert small.get_layer("gate").units == small.get_layer("up").units == 17
    assert small.get_layer("k").kernel.shape[1] == 1 and small.get_layer("q").units == 2 * 2  # whole groups of heads


FREQUENCIES = np.array([1.0, 0.3, 0.1, 0.03], "float32")


def test_groups_of_heads_go_that_are_normed_each_and_repeated_behind_an_axis_of_their_own():
    x = inputs = keras.Input((None, WIDTH))

    def split(z, heads, name, norm):
        z = layers.Reshape((-1, heads, 4))(layers.Dense(heads * 4, name=name)(z))
        if norm:
            z = root_mean_square(z, ops.reshape(weight(inputs, 1, 4, name=f"{name}_norm"), (4,)))
        return ops.transpose(z, (0, 2, 1, 3))

    q = split(x, 6, "q", norm=True)
    k, v = (layers.Reshape((6, -1, 4))(ops.repeat(split(x, 3, n, n == "k")[:, :, None], 2, axis=2)) for n in "kv")
    angles = ops.cos(ops.cast(ops.cumsum(ops.ones_like(x[:1, :, :1]), axis=1), "float32") * FREQUENCIES)
    scores = ops.softmax(ops.matmul(q * angles[:, None], ops.transpose(k * angles[:, None], (0, 1, 3, 2))))
    y = layers.Reshape((-1, 24))(ops.transpose(ops.matmul(scores, v), (0, 2, 1, 3)))
    model = randomise(keras.Model(inputs, layers.Dense(5)(y)))
    _, small = check_shrinks(model, data=np.random.default_rng(0).normal(size=(4, STEPS, WIDTH)).astype("float32"))
    assert [small.get_layer(name).units for name in "qkv"] == [16, 8, 8]  # one of three groups
    assert small.get_layer("k_norm").embeddings.shape == (1, 4)


def test_heads_go_where_halves_of_their_width_change_places_and_the_first_steps_are_not_rotated():
    x = inputs = keras.Input((STEPS, WIDTH))
    q, k, v = (ops.reshape(layers.Dense(16, name=name)(x), (-1, STEPS, 4, 4)) for name in "qkv")
    places = ops.zeros_like(x[:1, 2:, None, :1]) + (np.arange(4)[:, None, None] * [1.0, 0.3, 1.0, 0.3]).astype(
        "float32"
    )

    def turned(z):
        rest = z[:, 2:]
        halves = ops.concatenate([-rest[..., 2:], rest[..., :2]], axis=-1)
        return ops.concatenate([z[:, :2], rest * ops.cos(places) + halves * ops.sin(places)], axis=1)

    scores = ops.softmax(ops.einsum("btnh,bsnh->bnts", turned(q), turned(k)))
    y = ops.reshape(ops.einsum("bnts,bsnh->btnh", scores, v), (-1, STEPS, 16))
    model = randomise(keras.Model(inputs, layers.Dense(5)(y)))
    _, small = check_shrinks(model)
    assert [small.get_layer(name).units for name in "qkv"] == [12, 12, 12]  # one of four heads


@pytest.mark.parametrize(
    "norm",
    [
        lambda: layers.LayerNormalization(axis=[-2, -1]),
        lambda: layers.LayerNormalization(center=False),
        lambda: layers.GroupNormalization(1),
        lambda: layers.RMSNormalization() if hasattr(layers, "RMSNormalization") else layers.UnitNormalization(),
        lambda: lambda x: x * ops.mean(x, axis=-1, keepdims=True),
        lambda: lambda x: x / (1.0 + ops.std(x, axis=-1, keepdims=True)),
        lambda: lambda x: x * ops.var(x, axis=(1, 2), keepdims=True),
    ],
    ids=["two axes", "no beta", "one group", "rms", "mean", "std", "var"],
)
def test_statistics_over_zeros_are_exact(norm):
    x = keras.Input((STEPS, 5))
    y = norm()(layers.Dense(10, activation="relu", name="first")(x))
    plan, _ = check_shrinks(randomise(keras.Model(x, layers.Dense(3)(y))))
    assert plan["first"].sum() == 7


def test_zeros_that_are_divided_stay_zeros():
    inputs = keras.Input((STEPS, 5))
    x = layers.Dense(8, name="wide")(inputs)
    x = x / ops.maximum(ops.sqrt(ops.mean(x**2, axis=-1, keepdims=True)), 1e-3)
    x = root_mean_square(x, weight(inputs, 8, name="scale"))  # takes statistics over them
    model = randomise(keras.Model(inputs, layers.Dense(3)(x)))
    assert channel_groups(model)["wide"].frozen is None
    check_shrinks(model)


def test_two_groups_that_become_one_are_no_norm_over_zeros():
    x = keras.Input((STEPS, 5))
    y = layers.GroupNormalization(2, name="norm")(layers.Dense(8, name="first")(x))
    _, small = check_shrinks(randomise(keras.Model(x, layers.Dense(3)(y))))
    assert small.get_layer("norm").groups == 1 and small.get_layer("norm").gamma.shape == (4,)


def test_weights_multiply_add_and_scale_as_operands():
    x = inputs = keras.Input((STEPS, WIDTH))
    x = ops.matmul(x, weight(inputs, WIDTH, 12, name="kernel")) + weight(inputs, 12, name="bias")
    x = ops.relu(x) * weight(inputs, 12, name="layer_scale")
    x = ops.matmul(x, weight(inputs, 12, 10, name="second"))
    experts = ops.einsum("bti,eio->beto", ops.relu(x), weight(inputs, 3, 10, 8, name="experts"))
    model = randomise(keras.Model(inputs, layers.Dense(4)(ops.relu(experts))))
    _, small = check_shrinks(model)
    assert small.get_layer("second").embeddings.shape == (8, 7)
    assert small.get_layer("experts").embeddings.shape == (3 * 7, 6)
    again, _ = check_shrinks(small)  # the smaller model is read like the first
    assert again.removes


def test_a_layer_norm_in_a_sequential_model_makes_it_functional():
    norm = [layers.Dense(12, activation="relu"), layers.LayerNormalization(), layers.Dense(3)]
    model = randomise(keras.Sequential([keras.Input((5,)), *norm]))
    _, small = check_shrinks(model)
    assert not isinstance(small, keras.Sequential) and small.layers[1].units == 8


def test_momenta_follow_the_places_of_a_layer_norm():
    model = encoder(before=True, outputs="classes")
    plan = plan_shrink(model, RandomChannels())
    masked = masked_copy(model, plan)
    masked.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    masked.train_on_batch(TOKENS, np.ones((8, 5)))
    masks = plan.groups.masks(dict(plan))
    for old, new in zip(model.weights, masked.weights):
        key = plan.groups.key_of[id(old)]
        new.assign(np.asarray(new) * masks.get(key, 1.0))
    small = shrink(masked, plan_shrink(masked), optimizer=True)
    order = np.argsort(~plan["tokens"], kind="stable")
    slots = [next(s for s in m.optimizer.variables if "norm1_gamma" in s.path) for m in (masked, small)]
    np.testing.assert_array_equal(np.asarray(slots[1]), np.asarray(slots[0])[order])


def test_padded_steps_keep_channels_before_a_layer_norm():
    x = keras.Input((STEPS,), dtype="int32")
    y = layers.LayerNormalization(name="norm")(layers.Embedding(30, 8, mask_zero=True, name="table")(x))
    model = randomise(keras.Model(x, layers.Dense(2)(layers.LSTM(4)(y))))
    assert channel_groups(model)["table"].frozen == (Reason.NORMALIZED, "norm")
    check_shrinks(model, data=TOKENS)


def test_answers_stay_answers():
    """An output that is made by one layer keeps its channels, also behind a norm."""
    x = keras.Input((5,))
    y = layers.LayerNormalization()(layers.Dense(4, name="answers")(layers.Dense(8, name="hidden")(x)))
    groups = channel_groups(randomise(keras.Model(x, y)))
    assert groups["answers"].frozen.reason is Reason.MODEL_OUTPUT and groups["hidden"].frozen is None


def test_structured_halves_a_small_transformer():
    model = encoder(before=True, outputs="classes")
    small = shrink(model, plan_shrink(model, tfprune.Structured(0.3)))
    assert small.count_params() < 0.8 * model.count_params()


def rotary(x, places):
    """Rotated in pairs by the place in the sequence, with a table that heads share."""
    angles = ops.cast(places, "float32")[:, None] * np.array([1.0, 1.0, 0.1, 0.1], "float32")
    turned = ops.reshape(ops.stack([-x[..., 1::2], x[..., ::2]], axis=4), (-1, STEPS, 4, 4))
    return x * ops.cos(angles)[None, :, None] + turned * ops.sin(angles)[None, :, None]


def test_whole_heads_behind_rotary_embeddings_go_in_one_attention_operation():
    inputs = keras.Input((STEPS, 5))
    parts = [ops.reshape(layers.Dense(16, name=name)(inputs), (-1, STEPS, 4, 4)) for name in ("query", "key", "value")]
    places = positions(inputs[..., 0])
    scores = ops.dot_product_attention(rotary(parts[0], places), rotary(parts[1], places), parts[2])
    model = randomise(keras.Model(inputs, layers.Dense(3, name="out")(ops.reshape(scores, (-1, STEPS, 16)))))
    groups = channel_groups(model)
    assert next((group.size, group.unit, group.frozen) for group in groups.values()) == (4, "head", None)
    check_shrinks(model)


FREQUENCIES = np.array([1.0, 0.3, 0.1, 0.03], "float32")
ANGLES = {
    "einsum": lambda places: ops.einsum("t,w->tw", places, FREQUENCIES),
    "einsum of three": lambda places: ops.einsum("t,w,tu->tw", places, FREQUENCIES, ops.ones_like(places)[:, None]),
    "matmul": lambda places: ops.matmul(places[:, None], FREQUENCIES[None]),
    "matmul from the left": lambda places: ops.transpose(ops.matmul(FREQUENCIES[:, None], places[None, :])),
    "product": lambda places: places[:, None] * FREQUENCIES,
    "quotient": lambda places: places[:, None] / (1.0 / FREQUENCIES),
}


@pytest.mark.parametrize("angles", ANGLES)
def test_pairs_of_widths_go_with_their_frequencies_of_a_rotary_embedding(angles):
    inputs = keras.Input((None, 5))
    places = ops.cast(positions(inputs[..., 0]), "float32")
    table = ops.concatenate([ANGLES[angles](places)] * 2, axis=-1)[:, None]

    def turned(x):
        left, right = ops.split(x, 2, axis=-1)
        return x * ops.cos(table) + ops.concatenate([-right, left], axis=-1) * ops.sin(table)

    q, k, v = (layers.EinsumDense("btd,dnh->btnh", (None, 2, 8), name=name)(inputs) for name in "qkv")
    scores = ops.softmax(ops.einsum("btnh,bsnh->bnts", turned(q), turned(k)))
    y = ops.einsum("bnts,bsnh->btnh", scores, v)
    model = randomise(keras.Model(inputs, layers.EinsumDense("btnh,nho->bto", (None, 3), name="out")(y)))
    groups = channel_groups(model)
    assert {name: (group.size, group.unit) for name, group in groups.free.items()} == {
        "q/n": (2, "head"),
        "q/h": (4, "width"),
        "v/h": (8, "width"),
    }
    _, small = check_shrinks(model, data=np.random.default_rng(0).normal(size=(4, STEPS, 5)).astype("float32"))
    assert small.get_layer("q").kernel.shape == small.get_layer("k").kernel.shape == (5, 1, 6)


def test_heads_keep_their_rotary_widths_unless_the_width_is_what_is_to_go():
    inputs = keras.Input((STEPS, 5))
    places = ops.cast(positions(inputs[..., 0]), "float32")
    parts = [ops.reshape(layers.Dense(16, name=name)(inputs), (-1, STEPS, 4, 4)) for name in ("query", "key", "value")]
    scores = ops.einsum("btnh,bsnh->bnts", rotary(parts[0], places), rotary(parts[1], places))
    y = ops.reshape(ops.einsum("bnts,bsnh->btnh", ops.softmax(scores), parts[2]), (-1, STEPS, 16))
    model = randomise(keras.Model(inputs, layers.Dense(3, name="out")(y)))
    for unit, size in ((None, 4), ("head", 4), ("width", 2)):
        group = channel_groups(model, unit=unit)["query"]
        assert (group.size, group.unit) == (size, unit or "head")
        pruned = tfprune.prune(model, tfprune.Structured(0.5, allocation="uniform", unit=unit), verbose=0)
        small = shrink(pruned)
        assert small.get_layer("query").units == 8
        assert certify(pruned, small).largest <= 1e-5


def test_a_constant_loses_the_rows_that_what_it_is_multiplied_with_loses():
    inputs = keras.Input((STEPS, 5))
    wide = layers.Dense(8, name="wide")(inputs)
    kernel = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    x = ops.einsum("btc,cd->btd", wide, kernel) + ops.matmul(wide, 2 * kernel)
    x = x * ops.einsum("btc,c->bt", wide, kernel[:, 0])[..., None]
    model = randomise(keras.Model(inputs, layers.Dense(2, name="out")(x)))
    assert {name: group.size for name, group in channel_groups(model).free.items()} == {"wide": 8}
    _, small = check_shrinks(model)
    assert small.get_layer("wide").units == 6


def test_a_constant_that_no_weight_makes_or_that_meets_what_stays_is_left_alone():
    inputs = keras.Input((STEPS, 5))
    x = ops.einsum("btc,cd->btd", inputs, np.ones((5, 5), "float32")) + inputs
    model = randomise(keras.Model(inputs, layers.Dense(2, name="out")(x)))
    assert not channel_groups(model).free


def test_a_stream_through_experts_goes_with_their_outputs():
    x = inputs = keras.Input((STEPS, 5))
    stream = layers.Dense(8, name="stream")(x)
    inner = ops.relu(ops.einsum("btd,edf->betf", stream, weight(x, 3, 8, 6, name="up")))
    given = ops.einsum("betf,efd->betd", inner, weight(x, 3, 6, 8, name="down"))
    shares = ops.softmax(layers.Dense(3, name="gate")(stream), axis=-1)
    stream = stream + ops.sum(given * ops.transpose(shares, (0, 2, 1))[..., None], axis=1)
    stream = layers.RMSNormalization(name="norm")(stream)  # which zeros go through
    model = randomise(keras.Model(inputs, layers.Dense(2, name="out")(stream)))
    assert channel_groups(model)["stream"].frozen is None
    check_shrinks(model)


def test_heads_that_share_numbers_along_an_axis_go():
    inputs = keras.Input((STEPS, 5))
    query, value = (ops.reshape(layers.Dense(12, name=name)(inputs), (-1, STEPS, 4, 3)) for name in ("query", "value"))
    table = ops.reshape(layers.Dense(12, name="far")(weight(inputs, 7, 5, name="apart")), (7, 4, 3))
    scores = ops.einsum("bthd,rhd->bhtr", query, table)
    numbers = np.abs(np.arange(STEPS)[:, None] - np.arange(STEPS)).astype("int32")
    numbers = ops.zeros_like(inputs[:, :1, :1], dtype="int32")[:, None] + numbers
    scores = ops.softmax(ops.take_along_axis(scores, ops.repeat(numbers, 4, axis=1), axis=3))
    mixed = ops.einsum("bhts,bshd->bthd", scores, value)
    model = randomise(keras.Model(inputs, layers.Dense(2, name="out")(ops.reshape(mixed, (-1, STEPS, 12)))))
    _, small = check_shrinks(model)
    assert small.get_layer("query").units < 12


def test_a_stream_that_a_shared_layer_gives_twice_gets_its_zeros_back_each_time():
    x = keras.Input((5,))
    stream, same, outputs = layers.Dense(12, name="tokens")(x), layers.Identity(name="same"), []
    for index in range(2):
        y = layers.LayerNormalization()(stream)
        y = layers.Dense(12, name=f"out{index}")(layers.Dense(8, activation="relu")(y))
        stream = layers.Add()([stream, y])
        outputs.append(same(stream))
    model = randomise(keras.Model(x, [*outputs, outputs[0]]))
    plan, small = check_shrinks(model)
    assert not plan["tokens"].all()
    assert [tuple(tensor.shape) for tensor in small.outputs] == [(None, 12)] * 3


def test_scores_of_fewer_queries_than_keys_have_the_shape_of_the_keys():
    class Pooled(keras.Model):
        """A class token that looks at a sequence, with the scores of all others."""

        def __init__(self):
            super().__init__()
            self.steps, self.answer = layers.Dense(8), layers.Dense(3)
            self.attention = layers.MultiHeadAttention(1, 8)

        def call(self, x):
            x = self.steps(x)
            token, scores = self.attention(x[:, :1], x, return_attention_scores=True)
            return self.answer(token[:, 0]), ops.squeeze(scores)[..., 1:]

    model, x = Pooled(), np.random.default_rng(0).normal(size=(3, 6, 5)).astype("float32")
    model(x)
    masked = tfprune.prune(model, tfprune.Structured(0.3))
    small = tfprune.shrink(masked)
    assert small.count_params() < 0.8 * model.count_params()
    assert [tuple(output.shape) for output in small.outputs] == [(None, 3), (None, 5)]
    for expected, given in zip(masked(x), small(x), strict=True):
        np.testing.assert_allclose(given, expected, atol=1e-5)
