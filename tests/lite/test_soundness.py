"""What a file is looked through for before LiteRT sees it, each fault by itself."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import ConversionError, PruningError
from tfprune.lite import LiteModel
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.soundness import read_sound_model


@pytest.fixture(scope="module")
def contents():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 2)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(8)]
    model = tfprune.prune(keras.Sequential(layers), tfprune.Percentile(0.9, pattern="4x1", layers=keras.layers.Dense))
    images = np.random.default_rng(0).random((8, 8, 8, 2)).astype(np.float32)
    return {
        "int8": tfprune.convert(model, "int8", images).content,
        "sparse": tfprune.convert(model, sparse=True).content,
    }


def named(model, part):
    return next(tensor for tensor in model.subgraphs[0].tensors if part in flatbuffer.tensor_name(tensor))


def sparse(model):
    return next(tensor for tensor in model.subgraphs[0].tensors if tensor.sparsity is not None)


def rows(model):
    return next(level for level in sparse(model).sparsity.dimMetadata if level.arraySegments is not None)


def per_channel(model):
    return next(
        tensor
        for tensor in model.subgraphs[0].tensors
        if tensor.quantization is not None and np.size(tensor.quantization.scale) > 1
    )


def convolution(model):
    return next(each for each in model.subgraphs[0].operators if flatbuffer.operator_name(model, each) == "CONV_2D")


def constant(model):
    return next(each for each in model.subgraphs[0].tensors if flatbuffer.stored_bytes(model, each) is not None)


def shifted(values, by):
    return np.asarray(values) + by


FAULTS = {
    "no graph": ("int8", lambda m: setattr(m, "subgraphs", []), "it has no graph"),
    "buffer": ("int8", lambda m: setattr(constant(m), "buffer", 999), "is kept in buffer 999"),
    "type": ("int8", lambda m: setattr(constant(m), "type", 99), "is of the unknown type 99"),
    "shape": ("int8", lambda m: setattr(constant(m), "shape", np.array([-4], np.int32)), r"has the shape \(-4,\)"),
    "size": ("int8", lambda m: setattr(constant(m), "shape", np.array([1, 1], np.int32)), "takes . bytes and has"),
    "huge": (
        "int8",
        lambda m: setattr(m.subgraphs[0].tensors[0], "shape", np.full(4, 2**31 - 1, np.int32)),
        "is larger than any memory",
    ),
    "scales": (
        "int8",
        lambda m: setattr(per_channel(m).quantization, "scale", np.ones(3, np.float32)),
        "has 3 scales and . zero points",
    ),
    "axis": ("int8", lambda m: setattr(per_channel(m).quantization, "quantizedDimension", 9), "scales along axis 9"),
    "scale": (
        "int8",
        lambda m: setattr(m.subgraphs[0].tensors[0].quantization, "scale", np.array([np.nan], np.float32)),
        "has a scale that is no number",
    ),
    "code": ("int8", lambda m: setattr(convolution(m), "opcodeIndex", 77), "an operator has the code 77 of"),
    "input": ("int8", lambda m: setattr(convolution(m), "inputs", [0, 99, -1]), "CONV_2D refers to tensor 99"),
    "output": ("int8", lambda m: setattr(convolution(m), "outputs", [-1]), "CONV_2D refers to tensor -1"),
    "stride": ("int8", lambda m: setattr(convolution(m).builtinOptions, "strideW", 0), "CONV_2D has strideW 0"),
    "order": ("int8", lambda m: m.subgraphs[0].operators.reverse(), "which nothing has made by then"),
    "end": ("int8", lambda m: setattr(m.subgraphs[0], "outputs", [98]), "an end of the graph refers to tensor 98"),
    "metadata": ("int8", lambda m: setattr(m.metadata[0], "buffer", 500), "metadata lie in buffer 500"),
    "signature": ("int8", lambda m: setattr(m.signatureDefs[0].inputs[0], "tensorIndex", 70), "refers to tensor 70"),
    "traversal": (
        "sparse",
        lambda m: setattr(sparse(m).sparsity, "traversalOrder", np.array([0, 0, 2], np.int32)),
        "the sparse encoding of .* is broken",
    ),
    "dense size": (
        "sparse",
        lambda m: setattr(sparse(m).sparsity.dimMetadata[0], "denseSize", 7),
        "the sparse encoding of .* is broken",
    ),
    "segments": (
        "sparse",
        lambda m: setattr(rows(m).arraySegments, "values", shifted(rows(m).arraySegments.values, 1)),
        "the sparse encoding of .* is broken",
    ),
    "indices": (
        "sparse",
        lambda m: setattr(rows(m).arrayIndices, "values", shifted(rows(m).arrayIndices.values, 100)),
        "the sparse encoding of .* is broken",
    ),
    "block": (
        "sparse",
        lambda m: setattr(sparse(m).sparsity, "blockMap", np.array([5], np.int32)),
        "the sparse encoding of .* is broken",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_told_before_litert_sees_the_file(contents, fault):
    kind, damage, message = FAULTS[fault]
    model = flatbuffer.read_model(contents[kind])
    damage(model)
    with pytest.raises(PruningError, match=f"is damaged: .*{message}.*Save or copy it again"):
        LiteModel(flatbuffer.write_model(model))


@pytest.mark.parametrize("kind", ["int8", "sparse"])
def test_whole_files_are_sound(contents, kind):
    assert len(read_sound_model(contents[kind]).subgraphs[0].operators) >= 3


@pytest.mark.parametrize("isolate", [False, True])
def test_a_file_that_asks_for_more_memory_than_there_is_is_refused(isolate):
    model = keras.Sequential([keras.Input((64,)), keras.layers.ReLU()])
    file = flatbuffer.read_model(tfprune.convert(model).content)
    for tensor in file.subgraphs[0].tensors:
        tensor.shapeSignature, tensor.shape = None, np.array([2**15, 2**15, 2**13], np.int32)
    with pytest.raises(ConversionError, match="takes 35,184,372,088,832 bytes, more than the memory of this machine"):
        tfprune.benchmark({"huge": flatbuffer.write_model(file)}, runs=1, isolate=isolate)
