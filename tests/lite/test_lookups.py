"""Tables in int16x8: the tokens stay integers, and the rows are exact to the table's own step."""

import keras
import numpy as np
import pytest
from keras import layers

from tfprune.errors import ConversionError
from tfprune.lite import convert, verify

TOKENS, VOCABULARY = 6, 40
GENERATOR = np.random.default_rng(0)
TEXT = GENERATOR.integers(0, VOCABULARY, (40, TOKENS)).astype("int32")
NUMBERS = GENERATOR.normal(size=(40, 3)).astype("float32")


def tokens_of(name="tokens", dtype="int32"):
    return keras.Input((TOKENS,), dtype=dtype, name=name)


def table(name="table", **options):
    return layers.Embedding(VOCABULARY, 8, name=name, **options)


def two_tables():
    tokens = tokens_of()
    x = layers.Concatenate()([table("words")(tokens), table("hints")(tokens)])
    return keras.Model(tokens, layers.Dense(2)(layers.Flatten()(x))), {"tokens": TEXT}


def one_table_twice():
    left, right, shared = tokens_of("left"), tokens_of("right"), table()
    x = layers.Subtract()([shared(left), shared(right)])
    return keras.Model([left, right], layers.Dense(2)(layers.Flatten()(x))), {"left": TEXT, "right": TEXT[::-1]}


def beside_numbers():
    numbers, tokens = keras.Input((3,), name="numbers"), tokens_of(dtype="float32")
    x = layers.Concatenate()([numbers, layers.Flatten()(table()(tokens))])
    return keras.Model([tokens, numbers], layers.Dense(2)(x)), {"tokens": TEXT, "numbers": NUMBERS}


def recurrent():
    tokens = tokens_of()
    return keras.Model(tokens, layers.Dense(2)(layers.LSTM(4)(table()(tokens)))), {"tokens": TEXT}


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.mark.parametrize(
    "make, io",
    [(two_tables, "int8"), (one_table_twice, "float32"), (beside_numbers, "int8"), (beside_numbers, "float32")]
    + [(recurrent, "int8")],
)
def test_what_is_behind_the_tables_computes_in_int16(make, io):
    model, data = make()
    lite = convert(model, "int16x8", data, io=io)
    report = lite.inspect()
    assert report.float_ops == {}
    assert list(report.input_dtypes) == list(data)
    assert {name: kind for name, kind in report.input_dtypes.items() if name != "numbers"} == {
        name: "int32" for name in data if name != "numbers"
    }
    wanted = model(data if len(data) > 1 else TEXT, training=False).numpy()
    assert np.abs(lite(data) - wanted).max() <= 0.02 * np.abs(wanted).max()
    assert all("call" not in vars(layer) for layer in model.layers)


def test_rows_are_those_of_the_table_to_half_its_step():
    tokens = tokens_of()
    model = keras.Model(tokens, layers.Flatten()(table()(tokens)))
    rows = model.get_layer("table").get_weights()[0]
    answers = convert(model, "int16x8", {"tokens": TEXT}, io="float32")(TEXT).reshape(*TEXT.shape, -1)
    step = np.abs(rows).max() / 127
    assert np.abs(answers - rows[TEXT]).max() <= step / 2 + np.abs(rows).max() / 32767


def test_the_zeros_of_a_table_stay():
    model, data = two_tables()
    rows, *others = model.get_layer("words").get_weights()
    rows[::2] = 0
    model.get_layer("words").set_weights([rows, *others])
    compared = verify(model, convert(model, "int16x8", data), data)
    words = next(weight for weight in compared.weights if weight.zeros)
    assert words.kept == words.zeros == VOCABULARY // 2 * 8


def test_tokens_that_also_make_a_mask_are_refused():
    tokens = tokens_of()
    model = keras.Model(tokens, layers.GlobalAveragePooling1D()(table(mask_zero=True)(tokens)), name="masked")
    with pytest.raises(ConversionError, match=r"'masked' looks up token numbers in 'table' and computes with them"):
        convert(model, "int16x8", {"tokens": TEXT})


def test_tokens_that_are_computed_are_refused():
    tokens = tokens_of()
    model = keras.Model(tokens, layers.Flatten()(table()(tokens + 1)), name="computed")
    with pytest.raises(ConversionError, match=r"'computed' computes the token numbers that it looks up in 'table'"):
        convert(model, "int16x8", {"tokens": TEXT % (VOCABULARY - 1)})
