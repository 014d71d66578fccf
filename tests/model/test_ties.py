"""Weights that layers share, as a head that reads the embedding: shared in every copy, trained and pruned as one."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune
from tfprune.errors import PruningError
from tfprune.model.copying import clone_with_weights
from tfprune.model.state import check_ties


class Head(layers.Layer):
    """Scores of words by the embedding that has read them."""

    def __init__(self, embedding, name=None):
        super().__init__(name=name)
        self.embedding = embedding

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.embedding.embeddings))


@keras.saving.register_keras_serializable("tfprune_tests")
class ToldHead(Head):
    """Says so in its config, of which Keras makes an embedding for itself."""

    def get_config(self):
        return {"name": self.name, "embedding": keras.saving.serialize_keras_object(self.embedding)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["embedding"]), config["name"])


class Network(keras.Model):
    """A functional model whose class makes its layers by itself."""

    def __init__(self, width=6, **kwargs):
        words = keras.Input((5,), dtype="int32")
        embedding = layers.Embedding(20, width, name="tokens")
        x = layers.Dense(width, activation="relu", name="middle")(embedding(words))
        super().__init__(words, Head(embedding, name="head")(x), **kwargs)
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name}


def graph(kind):
    words = keras.Input((5,), dtype="int32")
    embedding = layers.Embedding(20, 6, name="tokens")
    x = layers.Dense(6, activation="relu", name="middle")(embedding(words))
    return keras.Model(words, kind(embedding, name="head")(x), name="net")


MAKES = {"no config": lambda: graph(Head), "config": lambda: graph(ToldHead), "class": lambda: Network(name="net")}
COPIES = {
    "clone": clone_with_weights,
    "prune": lambda model: tfprune.prune(model, tfprune.Percentile(0.5, layers=["tokens", "middle"]), verbose=0),
    "prune channels": lambda model: tfprune.prune(model, tfprune.Structured(0.4), verbose=0),
    "wrap": lambda model: tfprune.wrap(model, tfprune.Percentile(0.5, layers=["tokens", "middle"])),
    "strip": lambda model: tfprune.strip_masks(tfprune.wrap(model, 0.5)),
    "shrink": lambda model: tfprune.shrink(tfprune.prune(model, tfprune.Structured(0.4), verbose=0)),
    "inline": tfprune.inline,
    "quantize_aware": lambda model: tfprune.quantize_aware(model, data=WORDS),
}
WORDS = np.random.default_rng(0).integers(0, 20, (16, 5)).astype("int32")


def tables(model):
    return [weight for weight in model.trainable_weights if weight.shape[0] == 20]


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("make", MAKES)
@pytest.mark.filterwarnings("ignore:tfprune. 'net' is of class Network:UserWarning")
@pytest.mark.filterwarnings("ignore:'net' is of class Network:UserWarning")
def test_a_shared_weight_is_one_weight_in_every_copy_and_trains_as_one(make, copy):
    model = MAKES[make]()
    made = COPIES[copy](model)
    assert len(tables(model)) == len(tables(made)) == 1
    made.compile(keras.optimizers.SGD(0.5), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = np.asarray(tables(made)[0])
    few = WORDS % 10
    made.fit(few, few, epochs=1, verbose=0, callbacks=[tfprune.UpdateMasks()] if copy == "wrap" else [])
    rows = np.abs(np.asarray(tables(made)[0]) - before).max(axis=-1)
    assert rows[:10].any() and rows[10:].any()  # the head moves those of words that are never read too


@pytest.mark.parametrize("make", MAKES)
def test_what_channels_a_shared_weight_loses_it_loses_for_both(make):
    model = MAKES[make]()
    pruned = tfprune.prune(model, tfprune.Structured(0.4), verbose=0)
    small = tfprune.shrink(pruned)
    assert tfprune.channels.certify(pruned, small, WORDS).largest <= 1e-5
    assert tables(small)[0].shape[1] == small.get_layer("middle").units < 6


def test_a_model_with_a_shared_weight_is_stripped_to_what_was_trained():
    model = graph(ToldHead)
    wrapped = tfprune.wrap(model, tfprune.Percentile(0.5))
    wrapped.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    wrapped.fit(WORDS, WORDS, epochs=2, verbose=0, callbacks=[tfprune.UpdateMasks()])
    plain = tfprune.strip_masks(wrapped)
    np.testing.assert_array_equal(plain.predict(WORDS, verbose=0), wrapped.predict(WORDS, verbose=0))
    assert tfprune.summary(plain).sparsity == pytest.approx(0.5, abs=0.01)


def test_a_copy_that_has_a_shared_weight_twice_is_refused():
    model = graph(Head)
    words = keras.Input((5,), dtype="int32")
    other = layers.Embedding(20, 6)
    other.build(None)
    apart = keras.Model(words, Head(other)(layers.Dense(6)(layers.Embedding(20, 6)(words))))
    with pytest.raises(PruningError, match=r"copy of 'net' would have 4 weights in the place of 3, since layers that"):
        check_ties(model, apart)
    check_ties(apart, model)
