import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.errors import PruningError
from tfprune.model.copying import clone_with_weights
from tfprune.model.state import carry_state, check_copy, probe
from tfprune.model.tree import places

RNG = np.random.default_rng(0)
DATA = RNG.normal(5, 3, (64, 4)).astype("float32")
WORDS = np.array([["red green"], ["green blue"], ["blue blue"], ["lost"]])


def adapted(layer, data=DATA):
    layer.adapt(data)
    return layer


def in_sequential():
    return keras.Sequential([keras.Input((4,)), adapted(layers.Normalization()), *head()])


def head():
    return [layers.Dense(16, "relu"), layers.Dense(1)]


def called_on(x, parts):
    for part in parts:
        x = part(x)
    return x


def in_functional():
    x = keras.Input((4,))
    return keras.Model(x, called_on(adapted(layers.Normalization())(x), head()))


def shared():
    a, b = keras.Input((4,)), keras.Input((4,))
    norm = adapted(layers.Normalization())
    return keras.Model([a, b], called_on(keras.ops.concatenate([norm(a), norm(b)]), head()))


def nested():
    inner = keras.Sequential([keras.Input((4,)), adapted(layers.Normalization()), layers.Dense(4)], name="inner")
    y = keras.Input((4,))
    outer = keras.Model(y, inner(layers.Dropout(0.1)(y)), name="outer")
    x = keras.Input((4,))
    return keras.Model(x, called_on(outer(x), head()))


def shared_by_two_models():
    norm = adapted(layers.Normalization())
    one = keras.Sequential([keras.Input((4,)), norm, layers.Dense(4)], name="one")
    two = keras.Sequential([keras.Input((4,)), norm], name="two")
    x = keras.Input((4,))
    return keras.Model(x, called_on(one(x) + two(x), head()))


def inverted():
    x = keras.Input((4,))
    fixed = layers.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 2.0, 3.0, 4.0])
    return keras.Model(x, called_on(adapted(layers.Normalization(invert=True))(fixed(x)), head()))


@keras.saving.register_keras_serializable(package="tfprune_tests")
class Regression(keras.Model):
    """A subclassed model with an adapted layer in it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = layers.Normalization()
        self.steps = head()

    def build(self, shape):
        self.norm.build(shape)
        for step in self.steps:
            step.build(shape)
            shape = step.compute_output_shape(shape)
        self.built = True

    def call(self, x):
        return called_on(self.norm(x), self.steps)

    def get_config(self):
        return {"name": self.name}


def subclassed():
    model = Regression()
    model.build((None, 4))
    adapted(model.norm)
    return model


def discretized():
    x = keras.Input((4,))
    bins = adapted(layers.Discretization(num_bins=5, output_mode="int"))
    return keras.Model(x, called_on(keras.ops.cast(bins(x), "float32"), head()))


def with_lookup(mode="multi_hot"):
    x = keras.Input((3,), dtype="int64")
    lookup = adapted(layers.IntegerLookup(output_mode=mode), np.array([[7, 8, 9], [8, 8, 1], [0, 1, 1]]))
    return keras.Model(x, called_on(lookup(x), head()))


def with_words():
    x = keras.Input((1,), dtype="string")
    words = adapted(layers.TextVectorization(output_mode="tf_idf"), WORDS)
    return keras.Model(x, called_on(words(x), head()))


def with_tokens():
    x = keras.Input((1,), dtype="string")
    words = adapted(layers.TextVectorization(output_sequence_length=2), WORDS)
    return keras.Model(x, called_on(layers.Flatten()(layers.Embedding(8, 3)(words(x))), head()))


def with_strings():
    x = keras.Input((1,), dtype="string")
    lookup = adapted(layers.StringLookup(output_mode="multi_hot"), WORDS)
    return keras.Model(x, called_on(lookup(x), head()))


def crossed():
    a, b = keras.Input((1,), dtype="int32"), keras.Input((1,), dtype="int32")
    cross = layers.HashedCrossing(num_bins=7, output_mode="one_hot")((a, b))
    return keras.Model([a, b], called_on(cross, head()))


INTEGERS = np.array([[7, 8, 9], [1, 5, 0], [0, 0, 8]])
NORMALIZED = {
    make.__name__: (make, DATA)
    for make in (in_sequential, in_functional, nested, shared_by_two_models, inverted, discretized)
} | {"shared": (shared, [DATA, DATA[::-1]])}
EVERY = NORMALIZED | {
    "subclassed": (subclassed, DATA),
    "with_lookup": (with_lookup, INTEGERS),
    "tf_idf_lookup": (lambda: with_lookup("tf_idf"), INTEGERS),
    "with_words": (with_words, WORDS),
    "with_tokens": (with_tokens, WORDS),
    "with_strings": (with_strings, WORDS),
    "crossed": (crossed, [INTEGERS[:, :1], INTEGERS[:, 1:2]]),
}


def answers(model, data):
    tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, data)
    return np.asarray(model(tensors, training=False))


COPIES = {
    "clone": clone_with_weights,
    "prune": lambda model: tfprune.prune(model, tfprune.Percentile(0.0)),
    "wrap": lambda model: tfprune.wrap(model, tfprune.Percentile(0.0)),
    "strip": tfprune.strip_masks,
    "strip wrapped": lambda model: tfprune.strip_masks(tfprune.wrap(model, tfprune.Percentile(0.0))),
    "shrink": tfprune.shrink,
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize(("make", "data"), EVERY.values(), ids=EVERY)
@pytest.mark.filterwarnings("ignore:.*has no dead channel")
def test_a_copy_of_a_model_with_adapted_layers_answers_alike(make, data, copy):
    model = make()
    if make is subclassed and copy in (COPIES["wrap"], COPIES["strip wrapped"]):
        with pytest.raises(PruningError, match="subclassed"):
            copy(model)
        return
    before = answers(model, data)
    assert (answers(copy(model), data) == before).all()
    assert (answers(model, data) == before).all()


@pytest.mark.parametrize(("make", "data"), NORMALIZED.values(), ids=NORMALIZED)
def test_a_shrunk_model_with_adapted_layers_equals_the_masked_one(make, data):
    masked = tfprune.prune(make(), tfprune.Structured(0.5))
    small = tfprune.shrink(tfprune.strip_masks(masked))
    assert small.count_params() < masked.count_params()
    np.testing.assert_allclose(answers(small, data), answers(masked, data), rtol=1e-4, atol=1e-5)


def test_what_is_adapted_is_carried_into_quantize_aware_or_refused():
    model = in_functional()
    quantized = tfprune.quantize_aware(model, DATA)
    scale = np.abs(answers(model, DATA)).max()
    assert np.abs(answers(quantized, DATA) - answers(model, DATA)).mean() < 0.05 * scale  # 2.5 times it without


def test_a_copy_shares_no_table_with_its_original():
    model = with_strings()
    copy = clone_with_weights(model)
    before = answers(copy, WORDS)
    adapted(model.layers[1], np.array([["b"], ["a"], ["b"], ["c"], ["d"]]))
    assert (answers(copy, WORDS) == before).all()


def test_seeds_go_on_in_a_copy_where_they_stand():
    model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5, seed=1), layers.Dense(3)])
    model(DATA, training=True)
    copy = clone_with_weights(model)
    assert (np.asarray(model(DATA, training=True)) == np.asarray(copy(DATA, training=True))).all()


class Scaled(layers.Layer):
    """Multiplies by a value that is set after it was made, and that its config does not know."""

    factor: object = 1.0

    def call(self, x):
        return x * self.value()

    def value(self):
        return self.factor


class Box:
    """A value that no copy can look into."""

    def __init__(self, value):
        self.inside = value


class Boxed(Scaled):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = Box(1.0)

    def value(self):
        return self.factor.inside


class Saved(Boxed):
    def save_own_variables(self, store):
        store["factor"] = np.asarray(self.factor.inside)

    def load_own_variables(self, store):
        self.factor = Box(float(store["factor"]))


class Forgetful(Saved):
    def load_own_variables(self, store):
        pass


def with_layer(layer):
    return keras.Sequential([keras.Input((4,)), layers.Dense(4), layer, layers.Dense(3)], name="net")


def boxed(layer):
    """Around a layer with a value that its config does not hold, and a function that no copy can take over."""
    model = with_layer(layer)
    layer.factor, layer.asks = Box(3.0), lambda: model.layers[0]
    return model


@pytest.mark.parametrize("value", [3.0, np.arange(4.0, dtype="float32"), keras.ops.convert_to_tensor([1.0, 2, 3, 4])])
def test_plain_values_in_attributes_are_carried(value):
    layer = Scaled()
    layer.factor = value
    model = with_layer(layer)
    copy = clone_with_weights(model)
    assert (answers(copy, DATA) == answers(model, DATA)).all()
    if isinstance(value, np.ndarray):
        assert not np.shares_memory(copy.layers[1].factor, value)


def test_what_a_class_saves_by_methods_of_its_own_is_carried():
    model = with_layer(Saved())
    model.layers[1].factor = Box(3.0)
    assert (answers(clone_with_weights(model), DATA) == answers(model, DATA)).all()


@pytest.mark.parametrize(
    "copy", [clone_with_weights, tfprune.strip_masks, lambda model: tfprune.wrap(model, tfprune.Percentile(0.5))]
)
def test_a_copy_that_would_compute_something_else_is_not_handed_over(copy):
    model = boxed(Boxed(name="scale"))
    with pytest.raises(
        PruningError,
        match=r"copy of 'net' would compute something else: the first to differ is 'scale' \(Boxed\), by 0.67 times "
        r"the scale .* Give its class save_own_variables\(\) and load_own_variables\(\)",
    ):
        copy(model)


@pytest.mark.parametrize("kind", [Boxed, Forgetful])
@pytest.mark.parametrize("copy", [clone_with_weights, tfprune.strip_masks])
def test_what_neither_config_nor_weights_say_is_taken_over_as_it_is(kind, copy):
    model = with_layer(kind(name="scale"))
    model.layers[1].factor = Box(3.0)
    copied = copy(model)
    assert (answers(copied, DATA) == answers(model, DATA)).all()
    assert copied.layers[1].factor is not model.layers[1].factor


def test_a_class_that_does_not_read_what_it_wrote_is_named():
    model = boxed(Forgetful(name="scale"))
    with pytest.raises(PruningError, match=r"copy of 'scale' \(Forgetful\) did not take what save_own_variables\(\)"):
        clone_with_weights(model)


def test_functions_of_the_users_are_the_same_in_a_copy():
    factor = [2.0]
    model = keras.Sequential(
        [keras.Input((4,)), layers.Lambda(lambda x: x * factor[0]), layers.Dense(3, activation=lambda x: x - factor[0])]
    )
    assert (answers(clone_with_weights(model), DATA) == answers(model, DATA)).all()


def test_a_probe_leaves_no_trace_and_random_layers_are_not_taken_for_different():
    class Noisy(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.generator = keras.random.SeedGenerator(1)

        def call(self, x):
            return x + keras.random.normal((4,), seed=self.generator) + np.random.normal()

    model = with_layer(Noisy())
    state = np.asarray(model.layers[1].generator.state)
    assert clone_with_weights(model)
    assert (np.asarray(model.layers[1].generator.state) == state).all()


def test_a_probe_is_one_small_sample_of_the_models_own_inputs():
    image, tokens = keras.Input((None, None, 3)), keras.Input((None,), dtype="int32")
    model = keras.Model({"image": image, "tokens": tokens}, [image, tokens])
    sample = probe(model)
    assert tuple(sample["image"].shape) == (1, 32, 32, 3) and tuple(sample["tokens"].shape) == (1, 8)
    assert keras.backend.standardize_dtype(sample["tokens"].dtype) == "int32"
    assert tuple(probe(subclassed()).shape) == (1, 4)


def test_where_no_probe_can_be_made_the_reason_is_given():
    model = with_strings()
    assert "its input 'keras_tensor" in check_copy(model, model) and "is of type string" in check_copy(model, model)
    assert check_copy(with_layer(layers.ReLU()), None) is None  # Keras' own layers without tables are not run


def test_copies_of_another_make_are_named():
    with pytest.raises(PruningError, match=r"copy of 'net' .* is made of \['Dense', 'ReLU', 'Dense'\] instead of"):
        carry_state(with_layer(layers.Softmax()), with_layer(layers.ReLU()))
    wide = keras.Sequential([keras.Input((4,)), layers.Dense(7)], name="wide")
    with pytest.raises(PruningError, match=r"has the variables \['kernel \(4, 3\)', .*\] instead of \['kernel \(4, 7"):
        carry_state(wide, keras.Sequential([keras.Input((4,)), layers.Dense(3)]))


def test_search_copies_hold_what_is_adapted():
    model = in_sequential()
    model.compile("sgd", "mse")
    result = tfprune.genetic_search(
        model, (DATA, DATA[:, :1]), objectives=("loss", "macs"), population=4, generations=1, seed=0
    )
    whole = {name: np.ones_like(mask) for name, mask in tfprune.get_masks(result.apply()).items()}
    assert whole and np.asarray(result.apply().layers[0].mean == model.layers[0].mean).all()


def test_places_are_the_same_in_every_copy():
    model = nested()
    assert [place.path for place in places(clone_with_weights(model))] == [place.path for place in places(model)]
