"""Files with and without zeros that runtimes treat differently: some run fast, some slow, some fail or answer wrong."""

import keras
import numpy as np
from keras import layers

from tfprune.lite import LiteModel
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
