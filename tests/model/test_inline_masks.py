"""Masks of padded steps, which the classes of a model note on tensors, in its opened graph."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune
from tfprune.errors import PruningError
from tfprune.model.inline import open_model

TOKENS = np.array([[3, 5, 2, 0, 0], [4, 4, 1, 2, 0], [1, 0, 0, 0, 0]])


class Words(layers.Layer):
    """Tokens and their places, of which it says that a 0 is padding."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.tokens, self.places = layers.Embedding(9, 8), layers.Embedding(16, 8)

    def call(self, x):
        return self.tokens(x) + self.places(ops.arange(ops.shape(x)[1]))

    def compute_mask(self, x, mask=None):
        return ops.not_equal(x, 0)


class Mixer(layers.Layer):
    """Something that looks at other steps, and tells its own mask on."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention, self.dense = layers.MultiHeadAttention(2, 4), layers.Dense(8)
        self.supports_masking = True


class ByItself(Mixer):
    def call(self, x):
        return self.dense(x + self.attention(query=x, value=x, key=x))


class ByItsArgument(Mixer):
    def call(self, x, mask=None):
        return self.dense(x + self.attention(x, x, attention_mask=ops.cast(mask[:, None, :], "int32")))


class Causal(Mixer):
    def call(self, x, mask=None):
        return self.dense(x + self.attention(query=x, value=x, query_mask=mask, use_causal_mask=True))


class Twice(Mixer):
    def call(self, x):
        return self.dense(self.attention(x, x) + self.attention(x, x))  # whose first call takes the masks off


class Pooled(Mixer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.pool = layers.GlobalAveragePooling1D()

    def call(self, x, mask=None):
        return self.dense(x) + self.pool(inputs=self.dense(x), mask=mask)[:, None, :]


class Recurrent(Mixer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.rnn = layers.LSTM(8, return_sequences=True)

    def call(self, x):
        return self.rnn(sequences=self.dense(x))


class Luong(Mixer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.Attention()

    def call(self, x):
        return self.dense(self.attention([x, x]))


@pytest.mark.parametrize("kind", [ByItself, ByItsArgument, Causal, Twice, Pooled, Recurrent, Luong])
def test_padding_is_left_out_in_the_opened_model_too(kind):
    keras.utils.set_random_seed(0)
    tokens = keras.Input((None,), dtype="int32")
    model = keras.Model(tokens, layers.Dense(3)(kind()(Words()(tokens))))
    opened = tfprune.inline(model)
    assert not open_model(model).closed
    np.testing.assert_allclose(opened(TOKENS), model(TOKENS), atol=1e-5)
    other = np.where(TOKENS == 0, 0, TOKENS[:, ::-1])  # the same places are padding
    np.testing.assert_allclose(opened(other), model(other), atol=1e-5)
    pruned = tfprune.prune(model, tfprune.Structured(0.5), verbose=0)
    small = tfprune.shrink(pruned)
    assert small.count_params() < 0.8 * model.count_params()
    np.testing.assert_allclose(small(TOKENS), pruned(TOKENS), atol=1e-5)


def test_two_sequences_with_masks_of_their_own():
    class Decoder(Mixer):
        def call(self, both, mask=None):
            x, seen = both
            return self.dense(x + self.attention(query=x, value=seen, key=seen, query_mask=mask[0], key_mask=mask[1]))

    keras.utils.set_random_seed(0)
    seen, tokens = keras.Input((None,), dtype="int32", name="seen"), keras.Input((None,), dtype="int32", name="tokens")
    model = keras.Model([tokens, seen], layers.Dense(3)(Decoder()([Words()(tokens), Words()(seen)])))
    given = [TOKENS, np.array([[1, 2, 0], [3, 0, 0], [4, 5, 6]])]
    opened = tfprune.inline(model)
    np.testing.assert_allclose(opened(given), model(given), atol=1e-5)


def test_outputs_whose_padding_the_loss_no_longer_leaves_out_are_said():
    tokens = keras.Input((None,), dtype="int32")
    padded = keras.Model(tokens, ByItself()(Words()(tokens)))
    with pytest.warns(UserWarning, match="fit leaves padded steps of your model's outputs out of the loss"):
        tfprune.inline(padded)
    pooled = keras.Model(tokens, layers.GlobalAveragePooling1D()(ByItself()(Words()(tokens))))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tfprune.inline(pooled)


class Blind(layers.Layer):
    """A layer as users write it: it says nothing of masks, so that Keras drops them."""

    def call(self, x):
        return 2.0 * x


class MaskedSum(layers.Layer):
    def call(self, x, mask):
        return ops.sum(x * ops.cast(mask, x.dtype)[..., None], axis=1)


def test_a_mask_that_keras_drops_on_the_way_is_dropped_in_the_opened_model_too():
    class Classifier(keras.Model):
        def __init__(self):
            super().__init__()
            self.words, self.blind = layers.Embedding(9, 8, mask_zero=True), Blind()
            self.recurrent, self.head = layers.LSTM(5), layers.Dense(2)

        def call(self, x):
            return self.head(self.recurrent(self.blind(self.words(x))))

    model = Classifier()
    with pytest.warns(UserWarning, match="does not support masking"):
        expected = model(TOKENS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(tfprune.inline(model)(TOKENS), expected, atol=1e-6)


def test_a_mask_that_a_layer_needs_and_does_not_get_is_said_with_the_line():
    class Classifier(keras.Model):
        def __init__(self):
            super().__init__(name="classifier")
            self.words, self.blind, self.sum = layers.Embedding(9, 8, mask_zero=True), Blind(), MaskedSum()

        def call(self, x):
            return self.sum(self.blind(self.words(x)))

    model = Classifier()
    message = (
        r"'classifier' \(Classifier\) fails when it is called on the example: a layer takes a mask and none reaches "
        r"it.*supports_masking = True.*\(test_inline_masks.py:\d+: return self.sum\(self.blind\(self.words\(x\)\)\)\)"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(PruningError, match=message):
            tfprune.inline(model, data=TOKENS)
