"""Conversion: every kind of model in every quantization, exact zeros, integer ends, names, and what is refused."""

import functools
import gc
import subprocess
import sys

import keras
import lite_models
import numpy as np
import pytest
from keras import layers, ops

import tfprune
from tfprune.errors import ConversionError, PruningError
from tfprune.lite import convert, verify
from tfprune.lite.convert.layer_names import layer_at
from tfprune.lite.convert.request import QUANTIZATIONS
from tfprune.model.signature import flat_outputs, signature_of

# The largest difference from Keras, in shares of the largest output; int8 has 256 steps and several roundings.
TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "dynamic": 0.05, "int8": 0.15, "int16x8": 0.08}
WITHOUT_INT16 = {  # what TensorFlow's int16 quantizer has no rule for
    "attention": "no such form of 'NEG'",
}


@pytest.fixture(scope="module")
def models():
    return {name: make() for name, make in lite_models.EVERY.items()}


@pytest.fixture(scope="module")
def converted(models):
    """Every model in every quantization, converted once, on the data of `lite_models.samples_for`."""

    @functools.cache
    def convert_once(name, quantization):
        data = lite_models.samples_for(signature_of(models[name]).inputs)
        return convert(models[name], quantization, data)

    return convert_once


@pytest.fixture(scope="module")
def convolutional(models):
    return models["convolutional"]


@pytest.fixture(scope="module")
def images(convolutional):
    return lite_models.samples_for(signature_of(convolutional).inputs)["image"]


def expected(model, data):
    signature = signature_of(model)
    outputs = flat_outputs(signature.call(model, [data[given.name] for given in signature.inputs]))
    return [np.asarray(keras.ops.cast(output, "float32")) for output in outputs]


# The two ends of the range for every model; what lies between for one of each kind.
PAIRS = [(name, quantization) for name in lite_models.EVERY for quantization in ("float32", "int8")]
PAIRS += [
    (name, quantization)
    for name in ("convolutional", "two_inputs", "lstm", "embedding", "float_tokens", "attention")
    for quantization in ("float16", "dynamic", "int16x8")
]


@pytest.mark.parametrize(("name", "quantization"), PAIRS)
def test_every_model_converts_with_its_answers_and_its_zeros(models, converted, name, quantization):
    model = models[name]
    data = lite_models.samples_for(signature_of(model).inputs)
    before = [np.array(weight) for weight in model.get_weights()]
    if quantization == "int16x8" and name in WITHOUT_INT16:
        with pytest.raises(ConversionError, match=WITHOUT_INT16[name]):
            converted(name, quantization)
        return
    lite = converted(name, quantization)
    answers = lite(data)
    for wanted, answer in zip(expected(model, data), answers if isinstance(answers, list) else [answers], strict=True):
        assert answer.shape == wanted.shape
        tolerance = max(TOLERANCE[quantization], 2e-3 if name == "mixed_precision" else 0)  # Keras computes in float16
        assert np.abs(wanted - answer).max() <= tolerance * np.abs(wanted).max()
    compared = verify(model, lite, data)
    assert compared.weights
    assert all(weight.kept == weight.zeros > 0 for weight in compared.weights)
    assert lite.inspect().flex_ops == {}
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("io", ["int8", "float32"])
@pytest.mark.parametrize("quantization", ["int8", "int16x8"])
def test_integer_models_compute_in_integers_between_the_ends_asked_for(convolutional, images, quantization, io):
    report = convert(convolutional, quantization, images, io=io).inspect()
    assert report.float_ops == {}
    ends = "float32" if io == "float32" else "int8" if quantization == "int8" else "int16"
    assert report.input_dtypes == {"image": ends}
    assert report.output_dtypes == {"scores": ends}
    assert set(report.weight_dtypes) == {"int8"}
    assert report.quantization == quantization


@pytest.mark.parametrize("quantization", ["float32", "float16", "dynamic"])
def test_other_models_have_float_ends_whatever_io_says(convolutional, converted, quantization):
    for lite in (converted("convolutional", quantization), convert(convolutional, quantization, io="float32")):
        assert lite.inspect().input_dtypes == {"image": "float32"}
        assert lite.inspect().output_dtypes == {"scores": "float32"}
        assert lite.quantization == quantization


def test_batch_norm_folds_away(converted):
    for quantization in QUANTIZATIONS:
        ops = converted("convolutional", quantization).inspect().ops
        assert "MUL" not in ops
        assert "RSQRT" not in ops
        assert ops["ADD"] == 1  # the residual


@pytest.mark.parametrize("name", ["attention", "gru", "float_tokens"])
def test_operators_that_the_converter_leaves_in_float_become_integer(converted, name):
    assert converted(name, "int8").inspect().float_ops == {}


@pytest.mark.parametrize(
    "function",
    [lambda x: -x, keras.ops.square, keras.ops.elu, lambda x: keras.ops.split(x, 2, axis=-1)[0] * 2],
    ids=["negation", "square", "elu", "split"],
)
def test_int8_forms_of_single_operators_give_the_answers_of_keras(function):
    values = keras.Input((4,), name="values")
    x = layers.Dense(4, kernel_initializer="identity", name="copy")(values)
    model = keras.Model(values, layers.Dense(4, kernel_initializer="ones")(function(x)))
    data = np.random.default_rng(0).uniform(-1, 1, (64, 4)).astype(np.float32)
    lite = convert(model, "int8", data)
    assert lite.inspect().float_ops == {}
    wanted = np.asarray(model(data))
    assert np.abs(lite(data) - wanted).max() < 0.03 * np.abs(wanted).max()


def test_tokens_in_a_float_input_stay_whole_numbers(models):
    model = models["float_tokens"]
    data = lite_models.samples_for(signature_of(model).inputs)
    for io in ("int8", "float32"):
        lite = convert(model, "int8", data, io=io)
        assert lite.inspect().input_dtypes == {"tokens": "int32"}
        assert any("'tokens' takes int32" in note for note in lite.notes)


def test_masked_tokens_in_a_float_input_stay_whole_numbers():
    model = keras.Sequential(
        [keras.Input((4,), name="tokens"), layers.Embedding(300, 4, mask_zero=True), layers.LSTM(3), layers.Dense(2)]
    )
    lite_models.punch(model)
    data = np.random.default_rng(0).integers(0, 300, (40, 4)).astype(np.float32)
    data[::3, 2:] = 0
    lite = convert(model, "int8", data)
    assert lite.inspect().input_dtypes == {"tokens": "int32"}
    wanted = np.asarray(model(data))
    assert np.abs(lite(data) - wanted).max() < 0.1 * np.abs(wanted).max()


def test_names_and_order_are_those_of_keras(models, converted):
    from ai_edge_litert.interpreter import Interpreter

    content = converted("two_inputs", "float32").content
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    assert [end["name"] for end in interpreter.get_input_details()] == ["zeta", "alpha"]
    assert [end["name"] for end in interpreter.get_output_details()] == ["second", "first"]
    run = interpreter.get_signature_runner()
    data = lite_models.samples_for(signature_of(models["two_inputs"]).inputs, count=1)
    by_name = run(**data)
    wanted = expected(models["two_inputs"], data)
    np.testing.assert_allclose(by_name["second"], wanted[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by_name["first"], wanted[1], rtol=1e-5, atol=1e-6)


def test_dict_models_keep_their_keys(converted):
    lite = converted("dict_inputs", "float32")
    assert [end.name for end in lite.inputs] == ["image", "length"]
    assert [end.name for end in lite.outputs] == ["kind", "size"]


def test_arguments_of_call_name_the_inputs_of_a_subclassed_model(converted):
    names = {"subclassed": ["features"], "two_arguments": ["left", "right"], "takes_dict": ["narrow", "wide"]}
    for name, inputs in names.items():
        assert [end.name for end in converted(name, "float32").inputs] == inputs


def test_outputs_of_one_layer_get_names_of_their_own():
    series = keras.Input((3, 2), name="series")
    model = keras.Model(series, layers.LSTM(2, return_state=True, name="cell")(series))
    assert [end.name for end in convert(model).outputs] == ["cell", "cell_1", "cell_2"]


def test_a_wrapped_model_converts_without_stripping(convolutional, images):
    wrapped = tfprune.wrap(convolutional, tfprune.Percentile(0.8, allocation="uniform"))
    wrapped.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.warns(UserWarning, match="are zero already, but no mask holds them"):  # the model has zeros to count
        wrapped.fit(images, np.arange(len(images)) % 5, verbose=0, callbacks=[tfprune.UpdateMasks()])
    lite = convert(wrapped, "int8", images)
    assert lite.inspect().float_ops == {}
    compared = verify(wrapped, lite, images)
    masked = sum(int(np.count_nonzero(~mask)) for mask in tfprune.get_masks(wrapped).values())
    assert compared.zeros_kept == compared.zeros == masked > 0


def test_a_fixed_batch_and_an_open_one_give_the_same_answers(convolutional, images):
    one = convert(convolutional)
    three = convert(convolutional, batch_size=3)
    any_number = convert(convolutional, batch_size=None)
    assert [lite.inputs[0].shape[0] for lite in (one, three, any_number)] == [1, 3, None]
    for lite in (three, any_number):
        np.testing.assert_allclose(lite(images[:7]), one(images[:7]), atol=1e-6)


def test_a_batch_that_the_model_fixes_is_kept():
    image = keras.Input(batch_shape=(4, 6), name="row")
    lite = convert(keras.Model(image, layers.Dense(2)(image)))
    assert lite.inputs[0].shape == (4, 6)
    assert lite(np.ones((5, 6), np.float32)).shape == (5, 2)


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_a_length_may_vary(quantization):
    series = keras.Input((None, 4), name="series")
    model = keras.Model(series, layers.Dense(2)(layers.GlobalAveragePooling1D()(layers.Conv1D(8, 3)(series))))
    lite_models.punch(model)
    generator = np.random.default_rng(0)
    lite = convert(model, quantization, (generator.normal(size=(4, length, 4)) for length in [5, 12, 8] * 8))
    assert lite.inputs[0].shape == (1, None, 4)
    for length in (5, 12, 5):
        piece = generator.normal(size=(3, length, 4)).astype(np.float32)
        wanted = np.asarray(model(piece))
        assert np.abs(lite(piece) - wanted).max() < TOLERANCE[quantization] * np.abs(wanted).max()


@pytest.mark.parametrize("batch_size", [1, None])
def test_recurrent_layers_come_out_of_conversion_as_they_went_in(models, batch_size):
    model = models["lstm"]
    data = lite_models.samples_for(signature_of(model).inputs)["series"]
    lite = convert(model, "int8", data, batch_size=batch_size)
    assert not any(layer.unroll for layer in model.layers if isinstance(layer, layers.RNN))
    (note,) = [note for note in lite.notes if note.startswith("Unrolled")]
    assert "holds no loop: '" in note and "quantization='dynamic' keeps the loop" in note
    np.testing.assert_allclose(lite(data), np.asarray(model(data)), atol=0.1)


def test_the_state_of_a_layer_is_left_alone():
    series = keras.Input(batch_shape=(1, 3, 2), name="series")
    model = keras.Model(series, layers.LSTM(2, stateful=True, name="cell")(series))
    data = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    model(data[:1])
    before = [np.array(variable) for variable in model.get_layer("cell").states]
    assert verify(model, convert(model), data[:1]).samples == 1
    for old, new in zip(before, model.get_layer("cell").states, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
def test_integer_inputs_that_are_real_numbers_become_int8(dtype):
    pixels = keras.Input((6,), dtype=dtype, name="pixels")
    x = layers.Rescaling(1 / 255)(pixels) if dtype != "bool" else keras.ops.cast(pixels, "float32")
    model = lite_models.punch(keras.Model(pixels, layers.Dense(3)(x)))
    data = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 256, (40, 6)).astype(dtype)
    lite = convert(model, "int8", data)
    assert lite.inspect().input_dtypes == {"pixels": "int8"}
    wanted = np.asarray(model(data))
    assert np.abs(lite(data) - wanted).max() < 0.05 * np.abs(wanted).max()
    assert convert(model, "float32").inspect().input_dtypes == {"pixels": dtype}


def test_masked_values_are_left_out_in_integers_too():
    model = keras.Sequential([keras.Input((4, 2), name="series"), layers.Masking(), layers.GRU(3), layers.Dense(2)])
    lite_models.punch(model)
    data = np.random.default_rng(0).normal(size=(40, 4, 2)).astype(np.float32)
    data[::2, 2:] = 0
    lite = convert(model, "int8", data)
    assert lite.inspect().float_ops == {}
    wanted = np.asarray(model(data))
    assert np.abs(lite(data) - wanted).max() < 0.1 * np.abs(wanted).max()


def test_mixed_precision_comes_out_of_conversion_as_it_went_in(models):
    model = models["mixed_precision"]
    convert(model)
    assert {layer.dtype_policy.name for layer in model.layers} == {"mixed_float16"}
    assert keras.backend.standardize_dtype(model(np.zeros((1, 8, 8, 3), np.float32)).dtype) == "float16"


def test_a_failed_conversion_leaves_the_layers_as_they_were():
    series = keras.Input((None, 2), name="series")
    model = keras.Model(series, layers.LSTM(2, name="cell")(series))
    with pytest.raises(ConversionError):
        convert(model, "int8", np.random.default_rng(0).normal(size=(8, 3, 2)))
    assert model.get_layer("cell").unroll is False


def test_sparse_files_are_smaller_and_answer_alike():
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64, name="wide"), layers.Dense(4)])
    kernel = model.get_layer("wide").kernel
    kernel.assign(np.where(np.random.default_rng(0).random((64, 64)) < 0.9, 0, kernel.numpy()))
    data = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    for quantization in ("float32", "float16"):
        dense, sparse = convert(model, quantization), convert(model, quantization, sparse=True)
        assert sparse.size < 0.7 * dense.size
        assert sparse.quantization == quantization
        np.testing.assert_allclose(sparse(data), dense(data), atol=1e-6)
        assert all(weight.kept == weight.zeros > 3000 for weight in verify(model, sparse, data).weights)


def test_small_kernels_that_dynamic_leaves_alone_are_said():
    tiny = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert any("1,024 entries" in note for note in convert(tiny, "dynamic").notes)
    large = keras.Sequential([keras.Input((64,)), layers.Dense(32)])
    assert convert(large, "dynamic").notes == ()


def test_calibration_says_how_much_data_it_used(converted):
    assert converted("convolutional", "int8").notes == ("Calibrated on 40 samples.",)


def test_answers_that_rounding_has_spoilt_are_warned_of():
    values = keras.Input((2,), name="values")
    model = keras.Model(values, layers.Dense(1, name="difference", use_bias=False)(values), name="cancelling")
    model.set_weights([np.array([[1.0], [-1.0]])])
    data = np.random.default_rng(0).uniform(-100, 100, (50, 1)) + np.random.default_rng(1).uniform(0, 0.1, (50, 2))
    with pytest.warns(
        UserWarning, match="Output 'difference' of the int8 file is off by .*% of what 'cancelling' gives"
    ):
        convert(model, "int8", data)


def test_equal_conversions_give_equal_answers(convolutional, converted, images):
    first, second = converted("convolutional", "int8"), convert(convolutional, "int8", images)
    np.testing.assert_array_equal(first(images), second(images))


def test_nothing_is_written_to_the_terminal(tmp_path):
    script = (
        "import keras, logging, sys, warnings\n"
        "import tensorflow as tf\n"
        "from tfprune.lite import convert\n"
        "tf.constant(1)\n"
        "model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])\n"
        "level, filters = logging.getLogger('tensorflow').level, list(warnings.filters)\n"
        "print('BEGIN', file=sys.stderr, flush=True)\n"
        "convert(model)\n"
        "print('END', file=sys.stderr, flush=True)\n"
        "print(level == logging.getLogger('tensorflow').level, filters == warnings.filters)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.split("BEGIN")[1].split("END")[0].strip() == ""
    assert done.stdout.split()[-2:] == ["True", "True"]


class TestRefusals:
    def test_unknown_quantization(self, convolutional):
        with pytest.raises(PruningError, match="quantization='int9' is unknown. Did you mean 'int8'"):
            convert(convolutional, "int9")

    def test_unknown_io(self, convolutional):
        with pytest.raises(PruningError, match="io='uint8' is unknown. Write io='int8'"):
            convert(convolutional, io="uint8")

    @pytest.mark.parametrize("batch_size", [0, -1, 1.5, True])
    def test_impossible_batch(self, convolutional, batch_size):
        with pytest.raises(PruningError, match="batch_size=.* is no number of samples. Give 1 or more, or None"):
            convert(convolutional, batch_size=batch_size)

    @pytest.mark.parametrize("quantization", ["dynamic", "int16x8"])
    def test_sparse_with_integers(self, convolutional, quantization):
        with pytest.raises(
            PruningError, match=f"sparse=True does not go with quantization='{quantization}'.*cannot run"
        ):
            convert(convolutional, quantization, sparse=True)

    def test_no_data_shows_the_line_to_write(self, models):
        with pytest.raises(PruningError, match=r"convert\(model, quantization='int8', representative_data=x_train"):
            convert(models["convolutional"], "int8")
        with pytest.raises(PruningError, match=r"representative_data=\{'zeta': ..., 'alpha': ...\}"):
            convert(models["two_inputs"], "int16x8")

    def test_unbuilt_model(self):
        with pytest.raises(PruningError, match="not built yet"):
            convert(keras.Sequential([layers.Dense(2)]))

    def test_model_of_keras_2(self):
        tf_keras = pytest.importorskip("tf_keras")
        old = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
        with pytest.raises(PruningError, match=r"Keras 2 model .*tfprune.from_tfmot\(model\)"):
            convert(old)

    def test_arguments_whose_shapes_keras_forgot(self):
        class TwoWays(keras.Model):
            def __init__(self):
                super().__init__(name="two_ways")
                self.inner = layers.Dense(3)

            def call(self, left, right):
                return self.inner(left) - right

        model = TwoWays()
        model(np.zeros((2, 5)), np.zeros((2, 3)))
        with pytest.raises(
            PruningError, match=r"takes 'left', 'right', .* Give the model a build\(left_shape, right_shape"
        ):
            convert(model)

    def test_path_in_the_place_of_a_model(self):
        with pytest.raises(PruningError, match="Cannot convert str: give a keras.Model"):
            convert("model.keras")

    def test_strings(self):
        words = keras.Input((1,), dtype="string", name="words")
        vectorize = layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=3)
        model = keras.Model(words, layers.Embedding(4, 2)(vectorize(words)))
        with pytest.raises(PruningError, match="input 'words' takes strings"):
            convert(model)

    def test_layers_quantized_by_keras(self):
        model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="first"), layers.Dense(2, name="second")])
        model.quantize("int8")
        with pytest.raises(PruningError, match=r"quantized by Keras itself \(model.quantize\) in 'first', 'second'"):
            convert(model)

    def test_double_precision(self):
        model = keras.Sequential([keras.Input((8,)), layers.Dense(4, dtype="float64", name="exact")])
        with pytest.raises(PruningError, match="computes in float64 in 'exact', and LiteRT in float32 at most"):
            convert(model)

    def test_operation_unknown_to_litert(self):
        values = keras.Input((4, 4, 4, 2), name="values")
        model = keras.Model(values, layers.AveragePooling3D(2, name="pool_of_three")(values), name="volume")
        with pytest.raises(
            ConversionError, match="'volume'.*no operator for TensorFlow's 'AvgPool3D' in layer 'pool_of_three'"
        ) as caught:
            convert(model)
        assert caught.value.__cause__ is not None
        assert "\n" not in str(caught.value)

    def test_operation_without_integer_form(self):
        values = keras.Input((4, 4, 4, 2), name="values")
        x = layers.Conv3D(2, 2, name="conv_of_three")(values)
        model = keras.Model(values, layers.Dense(2)(layers.Flatten()(x)), name="volume")
        data = np.random.default_rng(0).normal(size=(8, 4, 4, 4, 2))
        with pytest.raises(
            ConversionError, match="no integer form of 'CONV_3D'.*'conv_of_three'.*'dynamic' or 'float16'"
        ):
            convert(model, "int8", data)

    def test_loop_of_unknown_length(self):
        series = keras.Input((None, 2), name="series")
        model = keras.Model(series, layers.LSTM(2, name="cell")(series))
        data = np.random.default_rng(0).normal(size=(8, 3, 2))
        with pytest.raises(
            ConversionError, match=r"loop cannot be quantized to int8, and layer 'cell' .*write sequence_length="
        ):
            convert(model, "int8", data)
        with pytest.raises(ConversionError, match="loop cannot be converted with an open batch"):
            convert(model, batch_size=None)

    def test_loop_of_an_operation(self):
        values = keras.Input((4, 2), name="values")
        model = keras.Model(values, keras.ops.map(lambda row: row * 2, values))
        with pytest.raises(
            ConversionError, match="loop cannot be quantized to int8, and operation '.*while' runs in one"
        ):
            convert(model, "int8", np.random.default_rng(0).normal(size=(8, 4, 2)))

    def test_states_in_integers(self):
        series = keras.Input(batch_shape=(1, 3, 2), name="series")
        model = keras.Model(series, layers.LSTM(2, stateful=True, name="cell")(series))
        with pytest.raises(ConversionError, match="no integer form of .*VARIABLE.*'cell'"):
            convert(model, "int8", np.random.default_rng(0).normal(size=(8, 3, 2)))

    def test_layer_that_fails(self):
        class Failing(layers.Layer):
            works = True

            def call(self, x):
                if not self.works:
                    raise RuntimeError("out of order")
                return x

        values = keras.Input((2,))
        model = keras.Model(values, Failing(name="failing")(values), name="broken")
        model.get_layer("failing").works = False
        with pytest.raises(ConversionError, match="'broken' cannot be converted to float32: .*out of order"):
            convert(model)

    def test_data_that_never_touch_a_layer(self, images):
        image = keras.Input((12, 12, 3), name="image")
        dead = keras.initializers.Constant(-100.0)
        branch = layers.Conv2D(4, 3, activation="relu", bias_initializer=dead, name="never")(image)
        joined = layers.Concatenate()([layers.Conv2D(2, 3)(image), layers.Conv2D(2, 1, name="after")(branch)])
        model = keras.Model(image, layers.Dense(3)(layers.Flatten()(joined)))
        with pytest.raises(
            PruningError, match="never touch 'never': .* more typical samples; .* tfprune.shrink"
        ) as caught:
            convert(model, "int8", images)
        assert isinstance(caught.value.__cause__, ConversionError)

    def test_trained_in_int8_but_asked_for_another(self, convolutional, images):
        from tfprune.lite.quantize import quantize_aware

        quantized = quantize_aware(convolutional, images)
        with pytest.raises(
            PruningError, match="has learned to compute in int8, so quantization='float16' does not suit"
        ):
            convert(quantized, "float16")


def test_learned_ranges_take_the_place_of_data(convolutional, images):
    from tfprune.lite.quantize import quantize_aware

    quantized = quantize_aware(convolutional, images)
    lite = convert(quantized, "int8")
    assert lite.inspect().float_ops == {}
    assert lite.notes == ("Calibrated by quantization-aware training.",)


def test_layers_are_found_under_the_numbers_that_tensorflow_adds():
    values = keras.Input((2,), name="values")
    model = keras.Model(values, layers.Dense(2, name="dense_1")(layers.Dense(2, name="dense")(values)), name="net")
    assert layer_at(model, "net_1/dense_1/MatMul") == "dense"
    assert layer_at(model, "net_1/dense_1_1/MatMul") == "dense_1"
    assert layer_at(model, "net/dense_1/MatMul;net/dense/Relu") == "dense_1"
    assert layer_at(model, "elsewhere/MatMul") is None


def test_the_converters_collection_leaves_out_older_objects(convolutional):
    frozen = []

    def watch(phase, info):
        if phase == "start" and info["generation"] == 2:
            frozen.append(gc.get_freeze_count())

    gc.callbacks.append(watch)
    try:
        convert(convolutional)
    finally:
        gc.callbacks.remove(watch)
    assert max(frozen) > 100_000  # TensorFlow and Keras alone
    assert gc.get_freeze_count() == 0


def test_a_program_that_froze_its_objects_finds_them_frozen(convolutional):
    gc.freeze()
    try:
        convert(convolutional)
        assert gc.get_freeze_count() > 100_000
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("heads", [1, 2])
def test_masked_attention_keeps_its_precision_in_integers(heads):
    """The number that Keras masks with takes the whole range of int8 beside it, and attention was lost."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 6))
    attended = layers.MultiHeadAttention(heads, 4)(inputs, inputs, use_causal_mask=True)
    model = keras.Model(inputs, attended)
    x = np.random.default_rng(0).normal(size=(64, 8, 6)).astype("float32")
    wanted = model.predict(x, verbose=0)
    given = convert(model, "int8", x)(x)
    assert np.sqrt(np.mean((given - wanted) ** 2) / np.mean(wanted**2)) < 0.05
    np.testing.assert_allclose(convert(model)(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 1), (3, 8, 1)])
def test_sums_along_one_axis_are_no_biases_to_the_converter(shape):
    """Keras adds what has one axis longer than 1 by BiasAdd along axis 1, which the converter knows of images only."""
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layers.Dense(3)(keras.activations.tanh(inputs) + inputs))
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    np.testing.assert_allclose(convert(model)(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["int", "multi_hot"])
def test_tables_of_values_are_named_with_the_way_out(mode):
    inputs = keras.Input((2,), dtype="int64")
    looked_up = layers.IntegerLookup(vocabulary=[3, 5, 8], output_mode=mode, name="looked_up")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(keras.ops.cast(looked_up, "float32")))
    with pytest.raises(ConversionError, match=r"no tables of values such as those of 'looked_up'. Convert the part"):
        convert(model)
    behind = keras.Model(model.get_layer("looked_up").output, model.output)
    assert convert(behind).size


def test_places_of_extremes_convert_with_the_zeros_of_either_sign():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, [ops.argmax(inputs, axis=-1), ops.argmin(inputs, axis=-1)])
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    x[0], x[1] = [-0.0, -0.0, 0.0, -0.0, 0.0, 0.0], [1.0, 0.0, -0.0, 2.0, 3.0, 0.0]
    for given, wanted in zip(convert(model)(x), model(x), strict=True):
        np.testing.assert_array_equal(given, wanted)


@pytest.mark.parametrize("options", [{}, {"padding": "same"}, {"strides": 2}, {"dilation_rate": 2}], ids=str)
def test_convolutions_along_sequences_whose_channels_come_first_convert(options):
    convolution = layers.Conv1D(6, 3, data_format="channels_first", **options)
    model = keras.Sequential([keras.Input((4, 32)), convolution, layers.ReLU(), layers.Flatten(), layers.Dense(3)])
    # TensorFlow computes them so on some processors alone: the same with channels last tells what is right.
    inputs = keras.Input((4, 32))
    last = layers.Conv1D(6, 3, **options)(layers.Permute((2, 1))(inputs))
    same = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Permute((2, 1))(layers.ReLU()(last)))))
    same.set_weights(model.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 4, 32)).astype("float32")
    lite = tfprune.convert(model)
    np.testing.assert_allclose(np.asarray(lite(x)), same(x), atol=1e-5)
