"""Files with and without zeros that runtimes treat differently: some run fast, some slow, some fail or answer wrong."""

import keras
import numpy as np
from keras import layers

from tfprune.lite import LiteModel, convert
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.edit import Graph
from tfprune.lite.file.sparsity import encode, store

SIZE = 64


def dense_model(size=SIZE, seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((size,), name="row"),
            layers.Dense(size, activation="relu", name="first"),
            layers.Dense(size, activation="relu", name="second"),
            layers.Dense(2, name="scores"),
        ],
        name="mlp",
    )


def zeroed(model, block, share=0.9, seed=0):
    """Zeros whole blocks along the inputs of every Dense kernel that they divide."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.Dense) and layer.units > 10:
            rows, columns = layer.kernel.shape
            kept = generator.permutation(rows // block * columns).reshape(rows // block, columns)
            kept = kept >= round(share * kept.size)
            layer.kernel.assign(layer.kernel.numpy() * np.repeat(kept, block, axis=0))
    return model


def mobile(padding="same", head="dense", size=32, zeros=0.0):
    """A small network of depthwise and 1x1 convolutions, as keras.applications pad them.

    Args:
        padding: `"same"`; `"explicit"`, as keras.applications write it; `"sides"`, zeros on all sides.
        head: `"dense"`, `"convolution"`, or `"kept"`: a Dense layer behind a mean that keeps its axes.
        size: Of the image.
        zeros: Share of zeros in the 1x1 convolutions.
    """
    keras.utils.set_random_seed(0)
    image = keras.Input((size, size, 3), name="image")
    x = image
    for index, (channels, stride) in enumerate([(8, 2), (16, 1), (16, 2), (24, 2)]):
        way = "same"
        if stride == 2 and (padding == "sides" or (padding == "explicit" and index)):
            way = "valid"
            x = layers.ZeroPadding2D(1 if padding == "sides" else ((0, 1), (0, 1)), name=f"pad{index}")(x)
        if index == 0:
            x = layers.Conv2D(channels, 3, strides=2, padding=way, use_bias=False, name="stem")(x)
        else:
            x = layers.DepthwiseConv2D(3, strides=stride, padding=way, use_bias=False, name=f"depthwise{index}")(x)
            x = layers.BatchNormalization(name=f"depthwise_norm{index}")(x)
            x = layers.Conv2D(channels, 1, use_bias=False, name=f"pointwise{index}")(x)
        x = layers.BatchNormalization(name=f"norm{index}")(x)
        x = layers.ReLU(6.0, name=f"relu{index}")(x)
    x = layers.GlobalAveragePooling2D(keepdims=head != "dense", name="mean")(x)
    if head == "convolution":
        x = layers.Reshape((5,), name="flat")(layers.Conv2D(5, 1, activation="softmax", name="scores")(x))
    else:
        x = layers.Dense(5, activation="softmax", name="scores")(x)
        x = layers.Flatten()(x) if head == "kept" else x
    model = keras.Model(image, x, name="mobile")
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        else:
            values = generator.normal(0, 0.5, weight.shape)
            if "pointwise" in weight.path and len(weight.shape) == 4:
                values.reshape(-1)[generator.permutation(values.size)[: round(zeros * values.size)]] = 0
            weight.assign(values)
    return model


def edited(lite, change):
    """The file with a change made to it: a function of its main graph."""
    file = flatbuffer.read_model(lite.content)
    change(Graph(file, file.subgraphs[0]))
    return LiteModel.written(file)


def weights_of(graph, least=200):
    """The places of the weights of so many entries."""
    for index, tensor in enumerate(graph.tensors):
        values = flatbuffer.stored_values(graph.model, tensor)
        if values is not None and len(flatbuffer.shape_of(tensor)) >= 2 and values.size >= least:
            yield index, values.reshape(flatbuffer.shape_of(tensor))


def stored(lite, block=1, densify=True):
    """The file with its weights stored sparsely, whatever its runtime makes of that."""

    def change(graph):
        for index, values in list(weights_of(graph)):
            if np.mean(values == 0) > 0.3:
                store(graph, index, values, block, densify)

    return edited(lite, change)


def old_version(graph):
    """Lets operators say a version before that which reads blocks."""
    for code in graph.model.operatorCodes:
        code.version = 1


def custom(graph):
    """Makes the last operator one of the user's own."""
    code = graph.model.operatorCodes[graph.subgraph.operators[-1].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = flatbuffer.schema().BuiltinOperator.CUSTOM
    code.customCode = b"MyOperator"


def columns_first(graph):
    """Stores the first weight sparsely column by column, which the format allows and no kernel reads."""
    index, values = next(weights_of(graph))
    tensor = graph.tensors[index]
    parameters, entries = encode(np.ascontiguousarray(values.T))
    parameters.traversalOrder = np.array([1, 0], np.int32)
    graph.insert_densify(index)
    graph.rewrite(tensor, entries)
    tensor.sparsity = parameters


def in_place(graph):
    """Stores the first weight sparsely under an operator that takes the entries for dense values."""
    index, values = next(weights_of(graph))
    parameters, entries = encode(values)
    graph.rewrite(graph.tensors[index], entries)
    graph.tensors[index].sparsity = parameters


def unknown_encoding(graph):
    """Says of a level of a sparse encoding that it is of a kind which the schema does not know."""
    for tensor in graph.tensors:
        if tensor.sparsity is not None:
            tensor.sparsity.dimMetadata[-1].format = 7


def unpacked(lite):
    """The same file with all sparse weights stored densely, in numbers that no runtime had a hand in."""

    def change(graph):
        for tensor in graph.tensors:
            if tensor.sparsity is not None:
                entries, shape = flatbuffer.stored_values(graph.model, tensor), flatbuffer.shape_of(tensor)
                values = np.zeros(shape, entries.dtype)
                values[flatbuffer._stored_positions(tensor)] = entries
                graph.rewrite(tensor, values)
                tensor.sparsity = None
        for operator in list(graph.subgraph.operators):
            if graph.name(operator) == "DENSIFY":
                graph.replace_readers(int(operator.outputs[0]), int(operator.inputs[0]))
        graph.drop_unused(("DENSIFY",))

    return edited(lite, change)


def interrupted():
    """A network of a stem, a 1x1 convolution, a pooling and another: XNNPACK's cluster begins and does not end."""
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(layers.ZeroPadding2D(1)(image))
    x = layers.MaxPooling2D()(layers.Conv2D(32, 1)(x))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 1)(x))
    return _sparse_convolutions(keras.Model(image, layers.Dense(5)(x)))


def squeezed():
    """A network with a squeeze-and-excitation block inside of the cluster."""
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(layers.ZeroPadding2D(1)(image))
    x = layers.Conv2D(32, 1)(x)
    scale = layers.Conv2D(16, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, layers.Conv2D(32, 1, activation="sigmoid")(scale)])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 1)(x))
    return _sparse_convolutions(keras.Model(image, layers.Dense(5)(x)))


def _sparse_convolutions(model, share=0.9):
    generator = np.random.default_rng(0)
    for weight in model.weights:
        values = generator.normal(0, 0.3, weight.shape)
        if len(weight.shape) == 4 and weight.shape[0] == 1:
            values.reshape(-1)[generator.permutation(values.size)[: round(share * values.size)]] = 0
        weight.assign(values)
    return model


RIGHT, WRONG = "runs", "broken"


def table():
    """Twenty files by name, each with what LiteRT and LiteRT.js make of it."""
    rows = np.random.default_rng(1).normal(size=(30, SIZE)).astype(np.float32)
    images = np.random.default_rng(1).normal(size=(10, 32, 32, 3)).astype(np.float32)
    plain, single, fours = dense_model(), zeroed(dense_model(), 1), zeroed(dense_model(), 4)
    sixteens, mobile_net = zeroed(dense_model(), 16, 0.97), mobile("sides", zeros=0.8)
    dense, densified, blocks = convert(plain), convert(single, sparse=True), convert(fours, sparse=True)
    ends = {"io": "float32"}
    return {
        "dense": (dense, RIGHT, RIGHT),
        "single zeros": (densified, RIGHT, RIGHT),
        "blocks": (blocks, RIGHT, RIGHT),
        "blocks of an old version": (edited(blocks, old_version), WRONG, WRONG),
        "blocks of 8": (stored(convert(zeroed(dense_model(), 8)), 8, densify=False), WRONG, WRONG),
        "single zeros read by the kernel": (stored(convert(single), 1, densify=False), RIGHT, RIGHT),
        "column by column": (edited(convert(single), columns_first), RIGHT, RIGHT),
        "unknown encoding": (edited(densified, unknown_encoding), WRONG, WRONG),
        "int8, integer ends": (convert(plain, "int8", rows), RIGHT, WRONG),
        "int8, blocks of 16": (convert(sixteens, "int8", rows, sparse=True, **ends), RIGHT, RIGHT),
        "int8, blocks of 4": (stored(convert(fours, "int8", rows, **ends), 4, densify=False), WRONG, WRONG),
        "int8, single zeros": (stored(convert(single, "int8", rows, **ends)), WRONG, WRONG),
        "dynamic, single zeros": (stored(convert(single, "dynamic")), WRONG, WRONG),
        "custom operator": (edited(dense, custom), WRONG, WRONG),
        "open batch": (convert(plain, batch_size=None), RIGHT, WRONG),
        "MobileNet": (convert(mobile_net, sparse=True), RIGHT, RIGHT),
        "MobileNet, 1x1 head": (stored(convert(mobile("sides", "convolution", zeros=0.8))), RIGHT, WRONG),
        "MobileNet, int8": (stored(convert(mobile_net, "int8", images, **ends)), RIGHT, RIGHT),
        "pooling inside": (stored(convert(interrupted())), RIGHT, WRONG),
        "squeeze and excitation": (stored(convert(squeezed())), RIGHT, RIGHT),
        "convolution of stored entries": (edited(convert(mobile_net), in_place), WRONG, WRONG),
    }
