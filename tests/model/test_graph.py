import keras
import pytest
from keras import layers, ops

from tfprune.errors import PruningError
from tfprune.model.graph import flow, is_graph, require_graph


def visited(model):
    seen = []

    def visit(call):
        seen.append((call.path, call.args, call.kwargs))
        return [call.path] * len(call.outputs)

    return seen, flow(model, [x.name for x in model.inputs], visit)


def test_calls_come_in_order_with_operations_and_their_arguments():
    # Reads Keras' private records of calls: fails when Keras moves them.
    x = keras.Input((4,), name="x")
    dense = layers.Dense(4, name="dense")
    y = ops.concatenate([dense(x), ops.relu(x)], axis=-1)
    seen, results = visited(keras.Model(x, [y, dense(dense.output)]))
    paths = [path for path, _, _ in seen]
    assert paths[0] == "dense" and paths.count("dense") == 2
    assert seen[paths.index(y._keras_history.operation.name)][1] == (["dense", paths[1]],)
    assert results == [y._keras_history.operation.name, "dense"]


def test_nested_models_are_entered_at_every_call():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense")], name="inner")
    x = keras.Input((4,), name="x")
    seen, _ = visited(keras.Model(x, layers.Add(name="add")([inner(x), inner(x)])))
    assert [path for path, _, _ in seen] == ["inner/dense", "inner/dense", "add"]


class Own(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


class Altered(keras.Model):
    def call(self, x):
        return super().call(x) + 1


def test_models_without_a_readable_graph_are_refused_with_what_to_write():
    x = keras.Input((4,))
    altered = Altered(x, layers.Dense(2)(x), name="altered")
    assert not is_graph(altered)
    with pytest.raises(PruningError, match=r"Shrinking needs a functional or Sequential model: Own 'own'.*Masks work"):
        require_graph(Own(), "Shrinking")
    with pytest.raises(PruningError, match=r"Sequential model 'seq', which is not built. Begin it with keras.Input"):
        require_graph(keras.Sequential([layers.Dense(2)], name="seq"), "Shrinking")
    with pytest.raises(PruningError, match=r"needs a keras\.Model, not str"):
        require_graph("model.keras", "Shrinking")
