"""Representative data: every form that is accepted, and what is said of data that would calibrate wrongly."""

import gc
import warnings
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfprune
from tfprune.errors import PruningError
from tfprune.lite.quantize.representative import calibration, checked_batches, single_samples
from tfprune.model.signature import Input, Signature, signature_of

IMAGE = Input("image", (None, 4, 4, 1), "float32")
PAIR = (Input("zeta", (None, 3), "float32"), Input("alpha", (None, 2), "float32"))
IMAGES = np.random.default_rng(0).normal(size=(12, 4, 4, 1)).astype(np.float32)
LABELS = np.arange(12)
ZETA = np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32)
ALPHA = np.random.default_rng(2).normal(size=(12, 2)).astype(np.float32)


def takes(*inputs):
    return Signature(inputs, 0 if len(inputs) == 1 else [0, 1])


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return IMAGES[4 * index : 4 * index + 4], LABELS[4 * index : 4 * index + 4]


def generator():
    yield from IMAGES


ONE_INPUT = {
    "array": lambda: IMAGES,
    "float64 array": lambda: IMAGES.astype(np.float64),
    "tensor": lambda: tf.constant(IMAGES),
    "list of one array": lambda: [IMAGES],
    "list of samples": lambda: list(IMAGES),
    "tuple of data and labels": lambda: (IMAGES, LABELS),
    "dict": lambda: {"image": IMAGES},
    "dict with more": lambda: {"image": IMAGES, "label": LABELS},
    "dataset of samples": lambda: tf.data.Dataset.from_tensor_slices(IMAGES),
    "dataset of batches": lambda: tf.data.Dataset.from_tensor_slices(IMAGES).batch(5),
    "dataset with labels": lambda: tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(5),
    "dataset of dicts": lambda: tf.data.Dataset.from_tensor_slices({"image": IMAGES, "label": LABELS}).batch(4),
    "dataset of dicts with labels": lambda: tf.data.Dataset.from_tensor_slices(({"image": IMAGES}, LABELS)).batch(4),
    "keras dataset": Batches,
    "generator": generator,
    "generator function": lambda: generator,
    "generator of lists": lambda: ([image[None]] for image in IMAGES),
    "generator of batches with labels": lambda: ((IMAGES[i : i + 6], LABELS[i : i + 6]) for i in (0, 6)),
}


@pytest.mark.parametrize("form", ONE_INPUT)
def test_every_form_of_data_gives_the_same_samples(form):
    read = np.concatenate([batch.inputs[0] for batch in checked_batches(ONE_INPUT[form](), takes(IMAGE), "verify()")])
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, IMAGES)


@pytest.mark.parametrize("form", ["tuple of data and labels", "dataset with labels", "keras dataset"])
def test_labels_come_with_their_samples(form):
    read = list(checked_batches(ONE_INPUT[form](), takes(IMAGE), "verify()"))
    np.testing.assert_array_equal(np.concatenate([np.asarray(batch.targets) for batch in read]), LABELS)


TWO_INPUTS = {
    "list": lambda: [ZETA, ALPHA],
    "tuple": lambda: (ZETA, ALPHA),
    "dict": lambda: {"alpha": ALPHA, "zeta": ZETA},
    "dataset of dicts": lambda: tf.data.Dataset.from_tensor_slices({"alpha": ALPHA, "zeta": ZETA}).batch(5),
    "dataset of tuples": lambda: tf.data.Dataset.from_tensor_slices((ZETA, ALPHA)),
    "dataset of tuples with labels": lambda: tf.data.Dataset.from_tensor_slices(((ZETA, ALPHA), LABELS)).batch(3),
    "generator of dicts": lambda: ({"alpha": a, "zeta": z} for a, z in zip(ALPHA, ZETA, strict=True)),
    "generator of lists": lambda: ([z[None], a[None]] for a, z in zip(ALPHA, ZETA, strict=True)),
}


@pytest.mark.parametrize("form", TWO_INPUTS)
def test_several_inputs_come_by_name_or_in_order(form):
    read = list(checked_batches(TWO_INPUTS[form](), takes(*PAIR), "verify()"))
    np.testing.assert_array_equal(np.concatenate([batch.inputs[0] for batch in read]), ZETA)
    np.testing.assert_array_equal(np.concatenate([batch.inputs[1] for batch in read]), ALPHA)


@pytest.fixture(scope="module")
def model():
    image = keras.Input((4, 4, 1), name="image")
    return keras.Model(image, layers.Dense(2)(layers.Flatten()(image)), name="net")


def calibrate(model, data):
    return calibration(data, signature_of(model), model)


def test_calibration_keeps_whole_arrays(model):
    read = calibrate(model, IMAGES)
    assert [[array.shape for array in arrays] for arrays in read.samples] == [[(12, 4, 4, 1)]]
    assert [sample[0].shape for sample in single_samples(read.samples)] == [(1, 4, 4, 1)] * 12
    assert read.notes == ["Calibrated on 12 samples."]


def test_long_arrays_are_thinned_evenly(model):
    data = np.arange(1000 * 16, dtype=np.float32).reshape(1000, 4, 4, 1)
    read = calibrate(model, data)
    first = [int(sample[0].flat[0]) // 16 for sample in single_samples(read.samples)]
    assert len(first) == 500
    assert first[0] == 0
    assert first[-1] == 999
    assert max(np.diff(first)) == 3
    assert read.notes == ["Calibrated on 500 samples of 1,000."]


def test_endless_streams_are_read_only_as_far_as_needed(model):
    read = calibrate(model, tf.data.Dataset.from_tensor_slices(IMAGES).repeat().batch(7))
    assert len(read.samples[0][0]) == 500
    assert read.notes == ["Calibrated on 500 samples, the first of more."]


def test_whole_numbers_are_taken_for_any_input():
    tokens = Input("tokens", (None, 3), "int32")
    for dtype in (np.int64, np.float32, np.uint8):
        (batch,) = checked_batches(np.ones((5, 3), dtype), takes(tokens), "verify()")
        assert batch.inputs[0].dtype == np.int32


WRONG = {
    "nothing": (None, "representative_data is None"),
    "a path": ("images.npy", "representative_data is str. Give an array"),
    "a number": (3, "representative_data is int. Give an array"),
    "no sample": (IMAGES[:0], "representative_data is empty"),
    "an empty list": ([], "representative_data is empty"),
    "an empty generator function": (lambda: iter(()), "representative_data is empty"),
    "two samples": (IMAGES[:2], "holds 2 samples, too few .* at least 4 are needed"),
    "one sample without a batch": (IMAGES[0], "holds 1 sample, too few"),
    "equal samples": (np.repeat(IMAGES[:1], 9, axis=0), "The 9 samples of representative_data are all equal"),
    "NaN": (
        np.where(np.arange(12).reshape(12, 1, 1, 1) == 5, np.nan, IMAGES),
        "NaN or infinite values in 1 of the 12 .*sample 5",
    ),
    "infinity": (np.where(IMAGES > 1, np.inf, IMAGES), "NaN or infinite values"),
    "words": (np.full((9, 4, 4, 1), "a"), "has dtype <U1, which holds no numbers; float32 is wanted"),
    "another size": (
        np.ones((9, 5, 5, 1)),
        r"shape \(9, 5, 5, 1\), but a sample .* shape \(4, 4, 1\), and a batch \(any, 4, 4, 1\)",
    ),
    "no channel axis": (np.ones((9, 4, 4)), r"Add the channel axis: x\[..., None\]"),
    "channels first": (np.ones((9, 1, 4, 4)), r"Its channels come first; move them last: np.moveaxis\(x, -3, -1\)"),
    "batched twice": ([np.ones((2, 9, 4, 4, 1))], "one axis too many: is it batched twice"),
    "another name": ({"images": IMAGES}, "lacks the input 'image'; it has 'images'. .*Is it called 'images'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_are_refused_with_the_reason(model, case):
    data, message = WRONG[case]
    with pytest.raises(PruningError, match=message):
        calibrate(model, data)


def test_a_used_up_generator_is_refused(model):
    once = generator()
    calibrate(model, once)
    with pytest.raises(PruningError, match="is empty. The generator is used up: give the function that makes it"):
        calibrate(model, once)


WRONG_PAIR = {
    "one array": (ZETA, "holds one array, but the model takes 2 inputs: 'zeta', 'alpha'"),
    "three arrays": (((ZETA, ALPHA, ALPHA) for _ in range(1)), "holds 3 arrays, but the model takes 2 inputs"),
    "another order": ([ALPHA, ZETA], r"for input 'zeta' has shape \(12, 2\)"),
    "one missing": ({"zeta": ZETA}, "lacks the input 'alpha'; it has 'zeta'"),
    "one misspelt": ({"zeta": ZETA, "alfa": ALPHA}, "lacks the input 'alpha'.* Is it called 'alfa'"),
    "unequal counts": ([ZETA, ALPHA[:5]], r"different numbers of samples: \{'zeta': 12, 'alpha': 5\}"),
}


@pytest.mark.parametrize("case", WRONG_PAIR)
def test_wrong_data_for_several_inputs_are_refused(case):
    data, message = WRONG_PAIR[case]
    with pytest.raises(PruningError, match=message):
        list(checked_batches(data, takes(*PAIR), "verify()"))


def test_fractions_are_refused_where_whole_numbers_are_due():
    with pytest.raises(PruningError, match="input 'tokens' holds fractions .as 0.5., but the input takes int32"):
        list(checked_batches(np.full((5, 3), 0.5), takes(Input("tokens", (None, 3), "int32")), "verify()"))


def test_flat_inputs_are_told_to_flatten():
    with pytest.raises(PruningError, match=r"Flatten it: x.reshape\(len\(x\), 16\)"):
        list(checked_batches(IMAGES, takes(Input("pixels", (None, 16), "float32")), "verify()"))


def test_data_that_the_model_cannot_take_are_refused():
    tokens = keras.Input((3,), dtype="int32", name="tokens")
    model = keras.Model(tokens, layers.Embedding(10, 2)(tokens), name="table")
    data = np.random.default_rng(0).integers(0, 50, (9, 3))
    with pytest.raises(
        PruningError, match="'table' cannot run on representative_data: .*not in .0, 10.*model.predict takes"
    ):
        calibrate(model, data)


def test_outputs_that_are_not_finite_are_refused(model):
    values = keras.Input((2,), name="values")
    bad = keras.Model(values, keras.ops.log(values), name="logarithm")
    with pytest.raises(PruningError, match="'logarithm' gives NaN or infinite outputs"):
        calibrate(bad, np.random.default_rng(0).normal(size=(9, 2)))


def test_pixels_for_a_model_without_scaling_are_warned_of(model):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 1)).astype(np.uint8)
    with pytest.warns(UserWarning, match=r"lies in .*255 and 'net' has no Rescaling .* x / 255, divide"):
        calibrate(model, pixels)


def test_a_model_inside_the_model_that_scales_is_seen():
    image = keras.Input((4, 4, 1), name="image")
    inner = keras.Input((4, 4, 1))
    backbone = keras.Model(inner, layers.Flatten()(layers.Rescaling(1 / 255, name="to_one")(inner)), name="backbone")
    model = keras.Model(image, layers.Dense(2)(backbone(image)), name="net")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrate(model, np.random.default_rng(0).integers(0, 256, (9, 4, 4, 1)).astype(np.uint8))
    with pytest.warns(UserWarning, match=r"divides its input itself \(layer 'to_one'\)"):
        calibrate(model, np.random.default_rng(0).uniform(0, 1, (9, 4, 4, 1)))


def test_scaled_pixels_for_a_model_that_scales_are_warned_of():
    image = keras.Input((4, 4, 1), name="image")
    x = layers.Rescaling(1 / 255, name="to_one")(image)
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(x)), name="net")
    with pytest.warns(UserWarning, match=r"divides its input itself \(layer 'to_one'\)"):
        calibrate(model, np.random.default_rng(0).uniform(0, 1, (9, 4, 4, 1)))


@pytest.mark.parametrize("quantization", ["float32", "dynamic", "int8", "int16x8"])
def test_nothing_holds_the_data_once_the_file_is_there(quantization):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2)])
    data = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    gone = weakref.ref(data)
    gc.collect()
    gc.disable()
    try:
        lite = tfprune.convert(model, quantization, representative_data=data)
        del data
        assert gone() is None and lite.size > 0
    finally:
        gc.enable()
