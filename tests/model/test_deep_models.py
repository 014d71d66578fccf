"""What each layer of a copy costs does not grow with the number of layers."""

import keras
import pytest
from keras import layers

import tfprune


def sequential(count):
    return keras.Sequential([keras.Input((6,)), *[layers.Dense(6) for _ in range(count)]])


def functional(count):
    x = inputs = keras.Input((6,))
    for _ in range(count):
        x = layers.Dense(6)(x)
    return keras.Model(inputs, x)


STAGES = {
    "prune": lambda model: tfprune.prune(model, tfprune.Percentile(0.5)),
    "wrap": lambda model: tfprune.wrap(model, 0.5),
    "strip": tfprune.strip_masks,
    "shrink": lambda model: tfprune.shrink(model, tfprune.plan_shrink(model, tfprune.Structured(0.5))),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("make", [sequential, functional])
def test_each_layer_is_called_as_often_in_a_deep_model_as_in_a_short_one(make, stage, monkeypatch):
    called = []

    def counted(self, *args, original=layers.Dense.__call__, **kwargs):
        called.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(layers.Dense, "__call__", counted)
    calls = []
    for count in (5, 40):
        model = make(count)
        called.clear()
        STAGES[stage](model)
        calls.append(len(called) / count)
    assert 0 < calls[1] <= calls[0]
