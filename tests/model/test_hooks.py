import ast
import inspect
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.model import hooks

PACKAGE = Path(tfprune.__file__).parent
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "hooks.py"]


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_no_other_file_uses_a_private_name_of_keras_or_tensorflow(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    own = {name for node in nodes for name in own_names(node)}
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any(re.match(r"keras\.src|tensorflow\.(lite\.)?python", name) for name in names), names
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
            owner = node.value.id if isinstance(node.value, ast.Name) else None
            assert owner in ("self", "cls") or node.attr in own | {"_asdict", "_replace"}, (node.lineno, node.attr)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr") and len(node.args) > 1:
            name = getattr(node.args[1], "value", None)
            assert not re.match(r"_[a-z]", str(name)) or name in own, (node.lineno, name)


def own_names(node):
    """The private names that a file defines itself: its methods, attributes and fields."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self":
        yield node.attr
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def compiled(**arguments):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    model.compile(**arguments)
    return model


DATA = np.ones((4, 4), np.float32), np.zeros((4, 2), np.float32)


def test_tensorflow_is_accepted():
    hooks.check_backend()


def test_another_backend_is_refused_with_the_setting_to_change(monkeypatch):
    # Another backend cannot be loaded beside TensorFlow in one process, so its name is all that is exchanged.
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ImportError, match=r"Keras runs on 'jax' here\. Set the environment variable KERAS_BACKEND"):
        hooks.check_backend()


def test_layers_inside_a_composite_layer():
    lstm = layers.LSTM(2)
    assert hooks.layers_inside(lstm) == [lstm.cell]
    both = layers.Bidirectional(lstm)
    assert hooks.layers_inside(both) == [both.forward_layer, both.backward_layer]


def test_what_keras_notes_of_layers_is_told_from_a_users_attributes():
    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)
            self.steps = [layers.Dense(2)]

    block = Block()
    held = {
        name
        for name, value in vars(block).items()
        if value is block.dense or (isinstance(value, (list, dict)) and block.dense in list(value))
    }
    assert "_layers" in held and {name for name in held if not hooks.is_bookkeeping(name)} == {"dense"}


@pytest.mark.parametrize(
    ("module", "name"),
    [("inception_resnet_v2", "CustomScaleLayer"), ("convnext", "LayerScale"), ("convnext", "StochasticDepth")],
)
def test_classes_of_applications(module, name):
    assert issubclass(hooks.class_of_applications(module, name), layers.Layer)
    assert hooks.class_of_applications("no_such_network", name) is hooks.class_of_applications(module, "No") is None


@pytest.mark.parametrize("kind", [layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D])
def test_the_cell_of_convolutional_recurrent_layers(kind):
    assert type(kind(1, 1).cell) is hooks.convolutional_cell()


def test_operations_go_by_the_names_of_their_classes():
    x = keras.Input((4, 4))
    named = {"Matmul": x @ x, "Einsum": keras.ops.einsum("bij,bjk->bik", x, x), "Relu6": keras.ops.relu6(x)}
    for name, tensor in named.items():
        assert hooks.operation_name(hooks.maker_of(tensor)) == name
    assert hooks.operation_name(layers.Dense(1)) is None
    assert hooks.operation_name(len) is None


def test_the_call_that_made_a_tensor():
    x = keras.Input((4,), name="x")
    dense = layers.Dense(2)
    first, second = dense(x), dense(x)
    assert hooks.maker_of(x).name == "x" and hooks.maker_of(second) is dense
    assert hooks.node_of(second).output_tensors[0] is second and hooks.node_of(first).input_tensors[0] is x


def test_an_operation_that_forgets_its_calls_leaves_the_others_alone():
    import copy

    y = keras.ops.relu(keras.Input((4,)))
    operation = hooks.maker_of(y)
    fresh = copy.copy(operation)
    hooks.forget_calls(fresh)
    other = fresh(keras.Input((3,)))
    assert hooks.node_of(other).output_tensors[0] is other and hooks.node_of(y).output_tensors[0] is y


def test_arguments_of_compile_come_back_as_they_were_given():
    def loss(y, p):
        return keras.ops.mean(y - p)

    arguments = hooks.compile_arguments(compiled(optimizer="sgd", loss=loss, metrics=[loss], steps_per_execution=3))
    assert arguments["loss"] is loss and arguments["metrics"] == [loss] and arguments["steps_per_execution"] == 3


def test_the_direction_of_a_metric():
    asked = [keras.metrics.AUC(), keras.metrics.MeanAbsoluteError(), keras.metrics.MeanIoU(2), keras.metrics.Mean()]
    assert [hooks.direction_of_metric(metric) for metric in asked] == ["max", "min", "max", None]


def test_the_schedule_of_a_learning_rate():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    assert hooks.learning_rate_of(keras.optimizers.SGD(schedule)) is schedule
    assert float(hooks.learning_rate_of(keras.optimizers.SGD(0.25))) == 0.25


@pytest.mark.parametrize("scaled", [False, True])
def test_the_optimizer_at_work_and_its_averages(scaled):
    seen = []

    class Watch(keras.constraints.Constraint):
        def __call__(self, weight):
            seen.append(hooks.optimizer_at_work())
            return weight

    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, kernel_constraint=Watch())])
    optimizer = keras.optimizers.SGD(0.1, use_ema=True)
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer, "mse", run_eagerly=True)
    model.fit(*DATA, verbose=0)
    assert seen and seen[0] is optimizer and hooks.optimizer_at_work() is None
    kernel = model.layers[0].kernel
    averages = hooks.moving_averages_of(optimizer)
    assert hooks.variables_of(optimizer)[0] is kernel and averages[0].shape == kernel.shape


def test_a_fit_that_was_resumed(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.stops:
                raise KeyboardInterrupt
            assert hooks.is_resumed(self.model)

    stop = Stop()
    for stop.stops in (True, False):
        model = compiled(optimizer="sgd", loss="mse")
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=1)
        assert not hooks.is_resumed(model)
        try:
            model.fit(*DATA, batch_size=1, callbacks=[backup, stop], verbose=0)
        except KeyboardInterrupt:
            assert stop.stops


def test_steps_that_were_traced_before_are_forgotten():
    import tensorflow as tf

    model = compiled(optimizer="sgd", loss="mse")
    traced = []

    @tf.function
    def step(x):
        traced.append(len(traced))
        return model(x, training=True)

    for _ in range(2):
        step(DATA[0])
    assert traced == [0] and hooks.forget_traces(model.weights) == 1
    step(DATA[0])
    assert traced == [0, 1] and hooks.forget_traces([keras.Variable(1.0)]) == 0


def test_gradients_are_told_until_nobody_listens():
    model = compiled(optimizer="sgd", loss="mse")
    told = []
    hooks.listen_to_gradients(model.optimizer, lambda gradient, variable: told.append((gradient.shape, variable)))
    model.fit(*DATA, verbose=0)
    assert [shape for shape, _ in told] == [(4, 2), (2,)]
    assert all(variable is weight for (_, variable), weight in zip(told, model.trainable_variables, strict=True))
    assert hooks.stop_listening(model.optimizer) and not hooks.stop_listening(model.optimizer)
    model.optimizer.apply([np.zeros((4, 2), np.float32), np.zeros(2, np.float32)], model.trainable_variables)
    assert len(told) == 2


def test_frames_of_keras_are_told_from_others():
    seen = []
    layer = keras.layers.Lambda(lambda x: [x, seen.append(hooks.is_of_keras(inspect.currentframe().f_back))][0])
    layer(np.zeros((1, 1)))
    assert seen == [True] and not hooks.is_of_keras(inspect.currentframe()) and not hooks.is_of_keras(None)


def test_calls_of_some_layers_are_exchanged_for_a_while():
    one, other = layers.Dense(2), layers.Dense(2)
    x = np.ones((1, 2), np.float32)
    plain = one(x), other(x)
    with pytest.raises(KeyError, match="as it goes"), hooks.calls_by([one], lambda layer: lambda inputs: inputs * 3):
        assert np.array_equal(one(x), x * 3) and np.array_equal(other(x), plain[1])
        raise KeyError("as it goes")
    assert np.array_equal(one(x), plain[0]) and "call" not in vars(one)


def test_functional_models_of_keras_2():
    import tf_keras

    class Subclassed(tf_keras.Model):
        pass

    x = tf_keras.Input((4,))
    assert hooks.is_graph_of_keras_2(tf_keras.Model(x, tf_keras.layers.Dense(2)(x)))
    assert not hooks.is_graph_of_keras_2(Subclassed())


def test_a_tensor_says_which_of_its_steps_keras_takes_for_padding():
    x = keras.Input((4,), dtype="int32")
    padded = layers.Embedding(5, 3, mask_zero=True)(x)
    assert hooks.mask_of(padded).shape == (None, 4)
    hooks.forget_mask(padded)
    assert hooks.mask_of(padded) is None
    assert hooks.mask_of(layers.Embedding(5, 3)(x)) is None


def test_calls_of_layers_go_through_a_function_for_a_while():
    seen = []

    def call(plain, layer, args, kwargs):
        seen.append(layer)
        return plain(layer, *args, **kwargs)

    layer = layers.ReLU()
    with hooks.layer_calls_by(call):
        layer(np.ones((1, 2)))
    layer(np.ones((1, 2)))
    assert seen == [layer]


def test_operations_on_symbolic_tensors_are_told():
    seen = []
    with hooks.symbolic_calls_told(seen.append):
        keras.ops.relu(keras.KerasTensor((1, 2)))
    keras.ops.relu(keras.KerasTensor((1, 2)))
    assert [type(operation).__name__ for operation in seen] == ["Relu"]


def test_a_layer_computes_its_symbolic_outputs_by_a_function():
    layer = layers.ReLU()
    with hooks.symbolic_call_by(layer, lambda x: keras.KerasTensor((5,))):
        assert layer(keras.KerasTensor((1, 2))).shape == (5,)
    assert layer(keras.KerasTensor((1, 2))).shape == (1, 2)


def test_reads_of_variables_are_told_and_attributes_exchanged():
    seen = []
    layer = layers.Dense(2)
    layer.build((None, 3))
    with hooks.reads_told(seen.append):
        layer.kernel.value, keras.ops.transpose(layer.kernel)
    assert len(seen) >= 2
    assert seen and all(variable is layer.kernel for variable in seen)
    with hooks.weights_by(lambda owner, variable: (owner, variable.name)):
        assert layer.kernel == (layer, "kernel")
    assert isinstance(layer.kernel, keras.Variable)


def test_arange_is_exchanged_wherever_it_is_called_from():
    with hooks.arange_by(lambda plain, *arguments: (arguments, plain())):
        assert keras.ops.arange(3)[0] == (3, None, None, None)
        assert keras.ops.numpy.arange(3)[0] == (3, None, None, None)
    assert keras.ops.arange(3).shape == (3,)


def test_attention_masks_by_another_number_for_a_while():
    logits, seen = np.array([[1.0, 2.0]], "float32"), np.array([[True, False]])
    attention = layers.MultiHeadAttention(1, 2, seed=0)
    x = np.random.default_rng(0).normal(size=(1, 3, 2)).astype("float32")
    plain = attention(x, x, use_causal_mask=True)
    with hooks.masked_by(2.0):  # so that what is masked counts as much as what is not
        np.testing.assert_allclose(layers.Softmax()(logits, mask=seen), [[1 / (1 + np.e), 0]], rtol=1e-5)
        assert np.abs(attention(x, x, use_causal_mask=True) - plain).max() > 0.01
        keras.ops.dot_product_attention(*[x[:, :, None]] * 3, is_causal=True)
    np.testing.assert_allclose(layers.Softmax()(logits, mask=seen), [[1, 0]])
    np.testing.assert_array_equal(attention(x, x, use_causal_mask=True), plain)


def test_symbolic_tensors_take_bare_slices():
    with hooks.plain_slices():
        assert keras.KerasTensor((5, 2))[:3].shape == (3, 2)


def test_records_of_calls_are_put_back_and_forgotten():
    layer = layers.Dense(2)
    made = layer(keras.KerasTensor((1, 2)))
    calls, history = hooks.recorded_calls(layer), hooks.history_of(made)
    assert hooks.node_of(made) is calls[0][0] and history.operation is layer
    layer(keras.KerasTensor((1, 2)))
    hooks.set_recorded_calls(layer, calls)
    assert hooks.recorded_calls(layer) == calls
    hooks.set_history(made, None)
    assert hooks.history_of(made) is None
    hooks.set_history(made, history)
    assert hooks.history_of(made) is history
    other = hooks.shallow_copy(layer)
    assert other.kernel is layer.kernel and hooks.recorded_calls(other) == ([], []) != hooks.recorded_calls(layer)


def test_shapes_of_symbolic_tensors_are_corrected():
    tensor = keras.KerasTensor((None, 2))
    hooks.set_shape(tensor, (3, 2))
    assert tensor.shape == (3, 2)


def test_tracebacks_are_whole_for_a_while():
    filtered = keras.config.is_traceback_filtering_enabled()
    with hooks.whole_tracebacks():
        assert not keras.config.is_traceback_filtering_enabled()
    assert keras.config.is_traceback_filtering_enabled() == filtered


def test_the_format_of_lite_files():
    file = hooks.schema().ModelT()
    assert file.buffers is None and hooks.schema().TensorType.INT8 == 9


def dense_operators(content):
    """The names of the results of a file's Dense layers, and the types of their kernels."""
    file, schema = hooks.schema().ModelT.InitFromPackedBuf(content, 0), hooks.schema()
    graph = file.subgraphs[0]
    codes = [file.operatorCodes[operator.opcodeIndex].builtinCode for operator in graph.operators]
    dense = [o for o, code in zip(graph.operators, codes) if code == schema.BuiltinOperator.FULLY_CONNECTED]
    return {graph.tensors[o.outputs[0]].name.decode(): graph.tensors[o.inputs[1]].type for o in dense}


def test_operators_are_left_out_of_rounding_by_name():
    import tensorflow as tf

    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    _, last = dense_operators(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in DATA[0])
    types = dense_operators(hooks.converted_without_rounding(converter, [last])).values()
    assert list(types) == [hooks.schema().TensorType.INT8, hooks.schema().TensorType.FLOAT32]
