"""Networks as people use them, with random weights and small inputs, through the whole way."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune.model.tree import wrapped_layers

pytestmark = pytest.mark.slow

NETWORKS = ["EfficientNetB0", "MobileNetV3Small", "ConvNeXtTiny", "ResNet50"]
SHAPE = (64, 64, 3)


def value(variable):
    return keras.ops.convert_to_tensor(variable).numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_wrapped_trained_stripped_and_converted(name):
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, classes=4, input_shape=SHAPE)
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    images = np.random.default_rng(0).uniform(0, 255, (8, *SHAPE)).astype(np.float32)
    labels = np.arange(8) % 4
    kernels = [variable for variable in model.weights if variable.name == "kernel"]

    wrapped = tfprune.wrap(model, tfprune.Percentile(tfprune.OneShot(0.8), allocation="global"))
    assert len(wrapped_layers(wrapped)) == len(kernels)
    np.testing.assert_array_equal(value(wrapped(images)), value(model(images)))

    wrapped.fit(images, labels, verbose=0, callbacks=[tfprune.UpdateMasks()])
    masks = tfprune.get_masks(wrapped)
    assert len(masks) == len(kernels)
    entries = sum(mask.size for mask in masks.values())
    assert sum(np.count_nonzero(~mask) for mask in masks.values()) == round(0.8 * entries)

    plain = tfprune.strip_masks(wrapped)
    assert not wrapped_layers(plain)
    assert plain.count_params() == model.count_params()
    for key, mask in tfprune.get_masks(plain).items():
        np.testing.assert_array_equal(mask, masks[key], err_msg=key)
    np.testing.assert_array_equal(value(plain(images)), value(wrapped(images)))

    exact, whole = tfprune.convert(plain), tfprune.convert(plain, "int8", images)
    report = tfprune.verify(plain, exact, images)
    # The converter fuses and reorders sums of float32 through dozens of layers.
    assert report.largest_difference < 1e-4
    assert report.zeros_kept == report.zeros == round(0.8 * entries)
    report = tfprune.verify(plain, whole, images)
    assert report.zeros_kept == report.zeros == round(0.8 * entries)
    assert whole.inspect().float_ops == {}
    assert whole.size < 0.4 * exact.size
