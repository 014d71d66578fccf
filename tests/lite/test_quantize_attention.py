"""Attention with the rounding of int8: what becomes integers, what stays in float and why, and zeros that are held."""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.lite.quantize.operators import MASKED, MatrixProduct
from tfprune.lite.quantize.report import quantization_report

LENGTH, WIDTH = 8, 12
RANDOM = np.random.default_rng(0)
SEQUENCES = RANDOM.normal(size=(40, LENGTH, WIDTH)).astype(np.float32)


def test_scores_are_products_of_matrices():
    first, second = RANDOM.normal(size=(2, 3, 4, 5)), RANDOM.normal(size=(2, 3, 5, 4))
    wanted = np.einsum("bhtd,bhds->bhts", first, second)
    np.testing.assert_allclose(MatrixProduct(dtype="float64")([first, second]), wanted)


def test_causal_scores_are_masked_above_the_diagonal():
    scores = np.asarray(
        MatrixProduct(causal=True)([np.ones((1, 1, 3, 2), "float32"), np.ones((1, 1, 2, 3), "float32")])
    )
    np.testing.assert_array_equal(scores[0, 0], [[2, MASKED, MASKED], [2, 2, MASKED], [2, 2, 2]])


def test_scores_are_saved_with_what_they_are():
    layer = MatrixProduct(causal=True, name="scores")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (again.name, again.causal) == ("scores", True)


def block(x, **options):
    """A block of a transformer."""
    normed = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(3, 4, name="attention")(normed, normed, **options)
    hidden = layers.Dense(2 * WIDTH, activation="gelu")(layers.LayerNormalization()(x))
    return x + layers.Dense(WIDTH)(hidden)


@pytest.fixture(scope="module")
def transformer():
    keras.utils.set_random_seed(0)
    x = keras.Input((LENGTH, WIDTH))
    return keras.Model(x, layers.Dense(5)(layers.GlobalAveragePooling1D()(block(x, use_causal_mask=True))))


def test_of_a_transformer_norms_alone_stay_in_float(transformer):
    quantized = tfprune.quantize_aware(transformer, SEQUENCES)
    left = quantization_report(quantized).left_in_float
    assert left
    assert all("norm" in name for name in left)
    names = {operator.name for operator in tfprune.convert(quantized, "int8").operators if operator.is_float}
    assert names.isdisjoint({"FULLY_CONNECTED", "BATCH_MATMUL", "SOFTMAX", "SELECT_V2", "TRANSPOSE", "RESHAPE"})


def test_the_file_answers_as_the_model_that_was_trained(transformer):
    quantized = tfprune.quantize_aware(transformer, SEQUENCES)
    quantized.compile("adam", "mse")
    quantized.fit(SEQUENCES, RANDOM.normal(size=(40, 5)), epochs=1, verbose=0)
    lite = tfprune.convert(quantized, "int8")
    wanted = quantized.predict(SEQUENCES, verbose=0)
    steps = (
        np.abs(lite(SEQUENCES) - wanted) / lite.outputs[0].scale
    )  # norms in float round otherwise, before four layers
    assert steps.max() < 6
    assert steps.mean() < 1.5


def test_zeros_of_projections_are_held(transformer):
    pruned = tfprune.prune(transformer, tfprune.Percentile(0.5, layers=["attention"]))
    zeros = {key: ~mask for key, mask in tfprune.get_masks(pruned).items()}
    assert len(zeros) == 4
    quantized = tfprune.quantize_aware(tfprune.strip_masks(pruned), SEQUENCES)
    quantized.compile("adam", "mse")
    quantized.fit(SEQUENCES, RANDOM.normal(size=(40, 5)), epochs=2, verbose=0)
    held = [mask for key, mask in tfprune.get_masks(quantized).items() if "attention" in key]
    assert sorted(int((~mask).sum()) for mask in held) == sorted(int(each.sum()) for each in zeros.values())
    constants = [zero.zeros for zero in tfprune.convert(quantized, "int8").inspect().constants if zero.zeros]
    assert sum(constants) >= sum(int(each.sum()) for each in zeros.values())


def masked_from_outside(x):
    return layers.MultiHeadAttention(2, 3, name="attention")(x, x, attention_mask=np.ones((1, LENGTH, LENGTH), bool))


def of_padded_steps(x):
    padded = layers.Masking()(x)
    return layers.MultiHeadAttention(2, 3, name="attention")(padded, padded)


def with_scores(x):
    answers, scores = layers.MultiHeadAttention(2, 3, name="attention")(x, x, return_attention_scores=True)
    return layers.Concatenate()([layers.Flatten()(answers), layers.Flatten()(scores)])


def called_twice(x):
    attention = layers.MultiHeadAttention(2, 3, name="attention")
    return attention(x, x) + attention(x + 1.0, x)


def over_two_axes(x):
    image = layers.Reshape((2, LENGTH // 2, WIDTH))(x)
    return layers.MultiHeadAttention(2, 3, name="attention")(image, image)


@keras.saving.register_keras_serializable("tests")
class Softened(layers.MultiHeadAttention):
    """Attention whose scores are halved."""

    def _masked_softmax(self, attention_scores, attention_mask=None):
        return super()._masked_softmax(attention_scores / 2, attention_mask)


def of_a_class_of_its_own(x):
    return Softened(2, 3, name="attention")(x, x)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (of_a_class_of_its_own, "Softened may attend in a way of its own"),
        (masked_from_outside, "a mask other than a causal one"),
        (of_padded_steps, "a mask other than a causal one"),
        (with_scores, "gives its scores"),
        (called_twice, "called more than once"),
        (over_two_axes, "other than sequences of known length"),
    ],
)
def test_other_attention_stays_in_float_and_says_why(network, reason):
    x = keras.Input((LENGTH, WIDTH))
    model = keras.Model(x, layers.Flatten()(network(x)))
    quantized = tfprune.quantize_aware(model, SEQUENCES)
    left = quantization_report(quantized).left_in_float
    assert any("attention" in name and reason in told for name, told in left.items()), left
    wanted, answers = model.predict(SEQUENCES, verbose=0), quantized.predict(SEQUENCES, verbose=0)
    assert np.abs(answers - wanted).mean() < 0.05 * (wanted.max() - wanted.min())


def test_attention_from_a_constant_array_stays_in_float():
    x = keras.Input(batch_shape=(1, LENGTH, WIDTH))
    learned = np.ones((1, 4, WIDTH), np.float32)
    model = keras.Model(x, layers.MultiHeadAttention(2, 3, name="attention")(learned, x))
    left = quantization_report(tfprune.quantize_aware(model)).left_in_float
    assert list(left.values()) == ["attention with a constant array"]
