"""Zeros that pay: which kernel takes them, what is planned, how a file stores them."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from sparse_files import SIZE, dense_model, mobile, zeroed

import tfprune
from tfprune import PruningError, convert, plan_sparse
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.kernels import BLOCKS, KERNELS, RUNTIMES
from tfprune.lite.file.sparsity import encode, encoded_bytes
from tfprune.lite.sparse.storing import store_sparse


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(1).normal(size=(40, SIZE)).astype(np.float32)


def encodings(lite):
    return {constant.name.split("/")[1].rsplit("_", 1)[0]: constant.encoding for constant in lite.inspect().constants
            if len(constant.shape) == 2}  # fmt: skip


def operators(lite):
    return [operator.name for operator in lite.operators]


class TestEncoding:
    @pytest.mark.parametrize("block", [1, 4, 16])
    @pytest.mark.parametrize("shape", [(3, 16), (300, 32), (2, 1, 1, 16)])
    @pytest.mark.parametrize("dtype", [np.float32, np.int8])
    def test_what_is_written_is_read_back(self, shape, block, dtype):
        generator = np.random.default_rng(0)
        values = generator.integers(1, 9, shape).astype(dtype)
        values.reshape(-1, block)[generator.random(values.size // block) < 0.7] = 0
        parameters, stored = encode(values, block)
        file, tensor = flatbuffer.schema().ModelT(), flatbuffer.schema().TensorT()
        tensor.shape, tensor.buffer, tensor.sparsity = np.array(shape), 1, parameters
        tensor.type = getattr(flatbuffer.schema().TensorType, np.dtype(dtype).name.upper())
        file.buffers = [flatbuffer.schema().BufferT(), flatbuffer.schema().BufferT()]
        file.buffers[1].data = np.frombuffer(stored.tobytes(), np.uint8)
        np.testing.assert_array_equal(flatbuffer.zero_pattern(file, tensor), values == 0)
        levels = [level for level in parameters.dimMetadata if level.arrayIndices is not None]
        counted = stored.nbytes + levels[0].arrayIndices.values.nbytes + levels[0].arraySegments.values.nbytes
        assert encoded_bytes(values, block) == counted


class TestConvert:
    def test_float_blocks_are_read_by_the_kernel(self, rows):
        model = zeroed(dense_model(), 4)
        dense, sparse = convert(model), convert(model, sparse=True)
        assert encodings(sparse) == {"first": "sparse", "second": "sparse", "scores": "dense"}
        assert "DENSIFY" not in operators(sparse) and sparse.size < 0.5 * dense.size
        np.testing.assert_allclose(sparse(rows), dense(rows), atol=1e-5)
        assert sparse.notes == ("Stored in blocks, which LiteRT's kernels read: 'second', 'first'.",)

    @pytest.mark.parametrize("options", [{}, {"io": "float32"}, {"batch_size": None}, {"bias_correction": True}])
    def test_int8_blocks_are_read_by_the_kernel(self, rows, options):
        model = zeroed(dense_model(), 16, share=0.97)
        dense, sparse = convert(model, "int8", rows, **options), convert(model, "int8", rows, sparse=True, **options)
        assert encodings(sparse) == {"first": "sparse", "second": "sparse", "scores": "dense"}
        assert sparse.size < 0.75 * dense.size and sparse.inspect().float_ops == {}
        assert np.abs(sparse(rows) - dense(rows)).max() <= 0.05 * np.abs(dense(rows)).max()

    def test_what_would_be_slower_is_stored_for_its_size_alone(self, rows):
        model = zeroed(dense_model(), 16, share=0.9)
        dense = convert(model, "int8", rows)
        with pytest.warns(UserWarning, match=r"faster with them from 96% on; sparse='size' stores fewer too"):
            assert convert(model, "int8", rows, sparse=True).size == dense.size
        small = convert(model, "int8", rows, sparse="size")
        assert encodings(small) == {"first": "sparse", "second": "sparse", "scores": "dense"}
        assert small.size < 0.75 * dense.size
        blocks = zeroed(dense_model(), 4, share=0.7)
        assert "DENSIFY" in operators(convert(blocks, sparse=True))
        assert "DENSIFY" not in operators(convert(blocks, sparse="size"))

    @pytest.mark.parametrize("share", [0.3, 0.75, 0.97])
    @pytest.mark.parametrize("block", [1, 4, 16])
    @pytest.mark.parametrize("quantization", ["float32", "int8"])
    def test_no_file_grows(self, rows, share, block, quantization):
        data = rows if quantization == "int8" else None
        model = zeroed(dense_model(), block, share)
        dense = convert(model, quantization, data)
        file = flatbuffer.read_model(dense.content)
        stored = store_sparse(file)
        assert len(flatbuffer.write_model(file)) <= dense.size
        gains = [BLOCKS[{"float32": "FLOAT32", "int8": "INT8"}[quantization]].gain(found.blocks) for found in stored
                 if found.form == "blocks"]  # fmt: skip
        assert all(gain >= 1 for gain in gains)

    def test_int8_without_such_blocks_stays_dense_and_says_so(self, rows):
        model = zeroed(dense_model(), 4)
        with pytest.warns(UserWarning, match=r"nothing of 'mlp' sparsely.*blocks of 1x16.*'first': .* are zero"):
            sparse = convert(model, "int8", rows, sparse=True)
        assert sparse.size == convert(model, "int8", rows).size

    def test_single_zeros_of_float_are_smaller_and_made_dense_when_loaded(self, rows):
        model = zeroed(dense_model(), 1)
        dense, sparse = convert(model), convert(model, sparse=True)
        assert operators(sparse).count("DENSIFY") == 2 and sparse.size < 0.7 * dense.size
        np.testing.assert_allclose(sparse(rows), dense(rows), atol=1e-6)
        assert "no faster" in sparse.notes[0]

    def test_what_would_grow_stays_dense(self):
        model = zeroed(dense_model(), 4, share=0.2)
        assert convert(model, sparse=True).size == convert(model).size

    def test_blocks_that_many_rows_would_slow_down_are_left(self):
        series = keras.Input((32, SIZE))
        model = zeroed(keras.Model(series, layers.Dense(SIZE, name="wide")(series)), 4, share=0.8)
        notes = convert(model, sparse=True).notes
        assert operators(convert(model, sparse=True)).count("DENSIFY") == 1 and "no faster" in notes[0]


class TestPlan:
    def test_a_plan_prunes_what_its_file_stores_in_blocks(self, rows):
        model = dense_model()
        for quantization, data, amount in (("float32", None, 0.9), ("int8", rows, 0.97)):
            plan = plan_sparse(model, quantization=quantization)
            pruned = tfprune.prune(plan.model, plan.method(amount))
            sparse = convert(tfprune.strip_masks(pruned), quantization, data, sparse=True)
            planned = {found.layer for found in plan.prunable}
            assert planned == {name for name, form in encodings(sparse).items() if form == "sparse"}
            assert plan.model is model

    def test_a_plan_is_a_report(self):
        plan = plan_sparse(dense_model(512))
        told = json.loads(plan.to_json())
        first, _, last = told["rows"]
        assert first["kernel"] == "Dense float 1x4" and first["pattern"] == "4x1" and first["share_needed"] == 0.82
        assert 1.5 < first["gain"] < 3 and 1.5 < told["totals"]["gain"] < 3
        assert last["kernel"] is None and "too little" in last["reason"]
        assert "Dense float 1x4" in str(plan) and plan.to_markdown().startswith("| layer")

    @pytest.mark.parametrize("runtime", RUNTIMES)
    @pytest.mark.parametrize("quantization", ["float32", "int8"])
    def test_every_layer_has_a_kernel_or_a_reason(self, runtime, quantization):
        series = keras.Input((8, 32, 3))
        x = layers.Conv2D(8, 3)(series)
        x = layers.DepthwiseConv2D(3)(layers.Conv2D(8, 1)(x))
        x = layers.GRU(30)(layers.Reshape((4, -1))(x))
        model = keras.Model(series, layers.Dense(64)(x))
        plan = plan_sparse(model, runtime, quantization)
        assert len(plan.layers) == 5
        assert all((found.kernel is None) == bool(found.reason) for found in plan.layers)

    def test_kernels_say_where_their_conditions_are_from(self):
        assert all(kernel.source and set(kernel.runtimes) <= set(RUNTIMES) for kernel in KERNELS)
        assert all(kernel.gain(kernel.share() + 0.01) > 1 > kernel.gain(kernel.share() - 0.02) for kernel in KERNELS)


class TestCluster:
    @pytest.mark.parametrize("padding", ["same", "explicit"])
    @pytest.mark.parametrize("head", ["dense", "convolution"])
    @pytest.mark.parametrize("size", [32, 33])
    def test_the_model_of_the_plan_is_the_same_function(self, padding, head, size):
        if padding == "explicit" and size == 33:
            pytest.skip("Keras pads odd sizes by one on all sides, not so")
        model = mobile(padding, head, size)
        plan = plan_sparse(model, "web")
        images = np.random.default_rng(2).normal(size=(4, size, size, 3)).astype(np.float32)
        np.testing.assert_allclose(plan.model(images), model(images), atol=1e-6)
        assert plan.cluster.turned == (size == 32 or padding == "explicit") or size == 33
        padded = [layer.padding for layer in plan.model.layers if isinstance(layer, layers.ZeroPadding2D)]
        assert padded == [((1, 1), (1, 1))] * 3
        # LiteRT.js fails on a head of four axes, and answers garbage without a word.
        assert isinstance(plan.model.get_layer("scores"), layers.Dense)
        assert plan.model.get_layer("scores").input.shape == (None, 24)
        assert [found.layer for found in plan.prunable] == ["pointwise1", "pointwise2", "pointwise3"]

    def test_its_zeros_are_stored_before_densify_and_answer_alike(self):
        plan = plan_sparse(mobile(), "web")
        pruned = tfprune.strip_masks(tfprune.prune(plan.model, plan.method(0.8)))
        big = [layer for layer in pruned.layers if layer.name.startswith("pointwise")]
        assert all(np.mean(layer.kernel.numpy() == 0) == pytest.approx(0.8, abs=0.01) for layer in big)
        sparse = convert(pruned, sparse=True)
        assert "DENSIFY" in operators(sparse)
        images = np.random.default_rng(2).normal(size=(4, 32, 32, 3)).astype(np.float32)
        np.testing.assert_allclose(sparse(images), pruned(images), atol=1e-5)

    @pytest.mark.parametrize("application", ["MobileNet", "MobileNetV2"])
    def test_mobilenets_of_keras_are_taken(self, application):
        model = getattr(keras.applications, application)(weights=None, input_shape=(64, 64, 3), alpha=0.35 if
                                                         application.endswith("V2") else 0.25)  # fmt: skip
        plan = plan_sparse(model, "web")
        assert not plan.cluster.broken
        assert sum(found.macs for found in plan.prunable) > 0.5 * sum(found.macs for found in plan.layers)

    @pytest.mark.parametrize("keepdims", [True, False])
    def test_squeeze_and_excitation_stays_inside(self, keepdims):
        keras.utils.set_random_seed(0)
        image = keras.Input((32, 32, 3))
        x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(image)
        scale = layers.GlobalAveragePooling2D(keepdims=keepdims, name="squeeze")(x)
        scale = scale if keepdims else layers.Reshape((1, 1, 16))(scale)
        scale = layers.Conv2D(16, 1, activation="relu", name="reduce")(scale)
        x = layers.Multiply()([x, layers.Conv2D(16, 1, activation="sigmoid", name="expand")(scale)])
        x = layers.GlobalAveragePooling2D(keepdims=True)(layers.Conv2D(32, 1, name="project")(x))
        model = keras.Model(image, layers.Flatten()(layers.Conv2D(5, 1, name="head")(x)))
        plan = plan_sparse(model, "web")
        assert [found.layer for found in plan.prunable] == ["reduce", "expand", "project"]
        images = np.random.default_rng(2).normal(size=(2, 32, 32, 3)).astype(np.float32)
        np.testing.assert_allclose(plan.model(images), model(images), atol=1e-6)
        pruned = tfprune.strip_masks(tfprune.prune(plan.model, plan.method(0.8)))
        paths = convert(pruned, sparse=True).paths("web")
        assert paths.runs and [found.path for found in paths.operators].count("sparse kernel") == 3

    def test_what_breaks_it_is_told(self):
        image = keras.Input((32, 32, 3))
        x = layers.Conv2D(8, 3, strides=2, padding="same")(image)
        x = layers.Conv2D(8, 1)(layers.MaxPooling2D(name="pool")(x))
        model = keras.Model(image, layers.GlobalAveragePooling2D()(x))
        reasons = {found.reason for found in plan_sparse(model, "web").layers}
        assert any("'pool' (MaxPooling2D)" in reason for reason in reasons)


class TestRefused:
    def test_a_runtime_that_is_not_known(self):
        with pytest.raises(PruningError, match=r"runtime='wbe' is unknown.*web"):
            plan_sparse(dense_model(), "wbe")

    def test_a_quantization_without_kernels(self):
        with pytest.raises(PruningError, match="'dynamic' has no sparse kernel: write 'float32' or 'int8'"):
            plan_sparse(dense_model(), quantization="dynamic")

    def test_a_form_that_is_not_known(self):
        with pytest.raises(PruningError, match="sparse='small' is unknown. Write sparse=True .* or sparse='size'"):
            convert(dense_model(), sparse="small")

    def test_zeros_too_few_for_the_kernel(self):
        with pytest.raises(PruningError, match=r"50% zeros are too few for the kernel 'Dense float 1x4'.*from 82% on"):
            plan_sparse(dense_model()).method(0.5)

    @pytest.mark.parametrize("pattern", ["2:4", "element", "6x1", "2x4"])
    def test_a_pattern_that_the_kernel_cannot_use(self, pattern):
        with pytest.raises(PruningError, match=r"is not what the kernel 'Dense float 1x4' reads.*Write pattern='4x1'"):
            plan_sparse(dense_model()).method(0.9, pattern=pattern)
        assert plan_sparse(dense_model()).method(0.9, pattern="8x2").pattern.height == 8

    def test_no_layer_can_be_faster(self):
        with pytest.raises(PruningError, match=r"No layer of 'mlp' becomes faster by zeros on runtime='micro'.*shrink"):
            plan_sparse(dense_model(), "micro").method(0.9)

    def test_a_plan_for_another_model(self):
        other = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="other")])
        with pytest.raises(PruningError, match="layers='first' matches no layer"):
            tfprune.prune(other, plan_sparse(dense_model()).method(0.9))


def test_shares_by_sensitivity_fall_in_the_kernels_blocks(rows):
    model = dense_model()
    plan = plan_sparse(model)
    layers_of_plan = [found.layer for found in plan.prunable]
    measured = tfprune.sensitivity(model, rows, levels=(0.8, 0.95), pattern="4x1", layers=layers_of_plan, verbose=0)
    amounts = measured.amounts(0.9)
    masks = tfprune.get_masks(tfprune.prune(model, plan.method(0.9, allocation=amounts), verbose=0))
    assert set(amounts) == set(masks) == {f"{layer}/kernel" for layer in layers_of_plan}
    for key, mask in masks.items():
        blocks = mask.reshape(-1, 4, mask.shape[1])
        assert (blocks.all(axis=1) | ~blocks.any(axis=1)).all()
        assert abs((~mask).mean() - amounts[key]) <= 4 / mask.size


def test_a_sequential_model_is_written_anew_too():
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(16, 1, activation="relu"),
            layers.Conv2D(16, 1),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    written = plan_sparse(model, runtime="web").model
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    assert written is not model and any(isinstance(each, layers.ZeroPadding2D) for each in written.layers)
    np.testing.assert_allclose(written(x), model(x), atol=1e-6)
