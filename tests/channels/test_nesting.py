"""Models in models: whatever is nested in what, the smaller model is the same function."""

import keras
import numpy as np
import pytest
from channel_checks import RandomChannels, check_shrinks, randomise
from keras import layers

import tfprune
from tfprune.channels import channel_groups, plan_shrink, register_rule, shrink
from tfprune.channels.rules import registry
from tfprune.errors import PruningError


def encoder(name="encoder"):
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="wide")(x)
    return keras.Model(inputs, layers.Conv2D(8, 3, padding="same", name="code")(x), name=name)


def decoder(width=8, name="decoder"):
    x = inputs = keras.Input((8, 8, width))
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="wide")(x)
    return keras.Model(inputs, layers.Conv2D(3, 3, padding="same")(x), name=name)


def head(outputs, name="head"):
    return keras.Sequential([layers.Flatten(), layers.Dense(5, activation="relu"), layers.Dense(outputs)], name=name)


def decoder_of_encoder():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, decoder()(encoder()(inputs)))


def sequential_of_functional_models():
    return keras.Sequential([encoder(), decoder()])


def sequential_that_begins_with_an_input():
    return keras.Sequential([keras.Input((8, 8, 3)), encoder(), decoder()])


def sequential_of_a_trunk_and_a_head():
    return keras.Sequential([encoder(), head(2)])


def trunk_with_two_heads():
    x = inputs = keras.Input((8, 8, 3))
    x = encoder()(x)
    return keras.Model(inputs, [head(2, "kind")(x), head(3, "size")(x)])


def sequential_at_four_depths():
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(8, activation="relu")], name="inner")
    middle = keras.Sequential([inner, layers.Dense(7, activation="tanh")], name="middle")
    outer = keras.Sequential([middle, layers.Dense(6)], name="outer")
    return keras.Sequential([keras.Input((5,)), outer, layers.Dense(2)])


def functional_at_three_depths():
    x = inputs = keras.Input((8, 8, 3))
    middle = keras.Model(inputs, decoder()(encoder()(x)), name="middle")
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, decoder(3, "second")(middle(inputs)))


def called_with_an_argument():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, decoder()(encoder()(inputs, training=False)))


def called_elsewhere_too():
    parts = encoder(), decoder()
    keras.Sequential([keras.Input((8, 8, 3)), *parts])
    return keras.Sequential([keras.Input((8, 8, 3)), *parts])


def head_called_twice():
    inputs = keras.Input((6,))
    twice = keras.Sequential([layers.Dense(8, activation="relu"), layers.Dense(6)], name="twice")
    return keras.Model(inputs, layers.Dense(2)(layers.Dense(6)(twice(layers.Dense(6)(twice(inputs))))))


def called_on_images_of_two_sizes():
    chain = [keras.Input((None, None, 4)), layers.Conv2D(6, 3, activation="relu"), layers.GlobalAveragePooling2D()]
    pooled = keras.Sequential(chain, name="pooled")
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.Add()([pooled(x), pooled(layers.MaxPooling2D(2)(x))])))


def several_outputs(structure):
    def build():
        x = inputs = keras.Input((6,))
        first = layers.Dense(8, name="first")(x)
        second = layers.Dense(7, name="second")(first)
        outputs = {"first": first, "second": second, "third": layers.Dense(5, name="third")(second)}
        outputs = outputs if structure is dict else structure(outputs.values())
        inner = keras.Model(inputs, outputs, name="inner")
        inputs = keras.Input((6,))
        results = inner(inputs)
        x = results["second"] if structure is dict else results[1]
        return keras.Model(inputs, layers.Dense(2)(layers.Dense(4)(x)))

    return build


def list_of_inputs_called_on_a_dict():
    """Keras takes the tensors by their names; in the order of the keys they would change places."""
    given = [keras.Input((8,), name="words"), keras.Input((8,), name="image")]
    x = layers.Concatenate()([layers.Dense(6, name="of_words")(given[0]), given[1]])
    inner = keras.Model(given, layers.Dense(4, activation="relu", name="both")(x), name="inner")
    inputs = keras.Input((5,))
    parts = {"image": layers.Dense(8, name="seen")(inputs), "words": layers.Dense(8, name="read")(inputs)}
    return keras.Model(inputs, layers.Dense(2)(inner(parts)))


BUILDS = {
    **{build.__name__: build for build in (
        decoder_of_encoder, sequential_of_functional_models, sequential_that_begins_with_an_input,
        sequential_of_a_trunk_and_a_head, trunk_with_two_heads, sequential_at_four_depths, functional_at_three_depths,
        called_with_an_argument, called_elsewhere_too, head_called_twice, called_on_images_of_two_sizes,
        list_of_inputs_called_on_a_dict,
    )},
    "one_of_a_list_of_outputs": several_outputs(list),
    "one_of_a_dict_of_outputs": several_outputs(dict),
}  # fmt: skip


@pytest.mark.parametrize("name", BUILDS)
def test_nested_models_shrink_to_an_equal_model(name):
    plan, small = check_shrinks(randomise(BUILDS[name]()))
    assert sum(not keep.all() for keep in plan.values()) >= 2
    assert any(isinstance(layer, keras.Model) for layer in small.layers)


def test_a_nested_model_loses_what_its_flat_twin_loses():
    flat_input = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(flat_input)
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(layers.Conv2D(8, 3, padding="same")(x))
    flat = keras.Model(flat_input, layers.Conv2D(3, 3, padding="same")(x))
    nested = randomise(decoder_of_encoder())
    flat.set_weights(nested.get_weights())
    small, twin = (shrink(model, plan_shrink(model, RandomChannels())) for model in (nested, flat))
    for one, other in zip(small.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_output_that_nobody_takes_keeps_one_channel():
    model = randomise(several_outputs(list)())
    plan = plan_shrink(model)
    assert {name: int(keep.sum()) for name, keep in plan.items() if not keep.all()} == {"inner/third": 1}
    small = shrink(model, plan)
    assert small.get_layer("inner").get_layer("third").units == 1
    assert tfprune.certify(model, small).exactness.name == "EXACT"


def shared_by_two_models():
    shared = encoder()
    models = [keras.Model(shared.input, layers.Conv2D(4, 1)(shared.output), name=name) for name in ("left", "right")]
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layers.Conv2D(2, 1)(layers.Concatenate()([model(inputs) for model in models])))


def alone_and_within_another():
    shared = encoder()
    whole = keras.Model(shared.input, decoder()(shared.output), name="whole")
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, [layers.Conv2D(2, 1)(whole(inputs)), layers.Conv2D(3, 1)(shared(inputs))])


def whole_and_in_part():
    shared = encoder()
    part = keras.Model(shared.input, shared.get_layer("wide").output, name="part")
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, [decoder()(shared(inputs)), layers.Conv2D(2, 1)(part(inputs))])


@pytest.mark.parametrize("build", [shared_by_two_models, alone_and_within_another, whole_and_in_part])
def test_models_that_share_layers_shrink_together(build):
    model = randomise(build())
    plan = plan_shrink(model, RandomChannels())
    small = shrink(model, plan)
    assert plan.removes and len(small.weights) == len(model.weights)
    tfprune.apply_masks(model, channel_groups(model).masks(dict(plan)))
    assert tfprune.certify(model, small).exactness.name == "EXACT"


def test_an_error_from_a_layer_names_it_and_no_memory_address():
    class Refusing(layers.Layer):
        def call(self, x):
            if x.shape[-1] != 8:
                raise KeyError(id(x))
            return x

    class Complaining(layers.Layer):
        def call(self, x):
            if x.shape[-1] != 8:
                raise ValueError(f"what is {object()}")
            return x

    for cls in (Refusing, Complaining):
        register_rule(cls, lambda visit: visit.result(visit.input.factors))
        x = inputs = keras.Input((5,))
        x = cls(name="own")(layers.Dense(8, name="first")(x))
        model = keras.Model(inputs, layers.Dense(2)(x))
        with pytest.raises(PruningError, match=rf"Layer 'own' \({cls.__name__}\) does not fit") as raised:
            shrink(model, plan_shrink(model).keep("first", [0, 1]))
        assert not any(part.strip("<>.:'").isdigit() or "0x" in part for part in str(raised.value).split())
        registry.LAYERS.pop(cls)
