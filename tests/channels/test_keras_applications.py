"""One network of every family of keras.applications; benchmarks/applications_table.py runs all of them."""

import keras
import numpy as np
import pytest
from channel_checks import check_shrinks, randomise

from tfprune.channels import channel_groups

SMALL = {"MobileNet": {"alpha": 0.25}, "MobileNetV2": {"alpha": 0.35}, "MobileNetV3Small": {"minimalistic": True}}
OTHERS = (
    *("ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionResNetV2", "InceptionV3"),
    *("NASNetMobile", "ResNet50", "ResNet50V2", "VGG16", "Xception"),
)
LARGER_INPUT = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
NETWORKS = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_shrinks_to_an_equal_one_and_only_its_outputs_stay(name):
    size = LARGER_INPUT.get(name, 32)
    make = getattr(keras.applications, name)
    model = make(
        weights=None, classes=10, input_shape=(size, size, 3), classifier_activation=None, **SMALL.get(name, {})
    )
    images = inputs(model)
    measure_batch_norms(randomise(model), images)
    groups = channel_groups(model)
    reasons = {group.frozen.reason.name for group in groups.values() if group.frozen}
    assert reasons == {"MODEL_OUTPUT"}
    check_shrinks(model, data=images)


def inputs(model):
    """Images in the range that the network expects: pixels where it rescales them itself."""
    generator = np.random.default_rng(0)
    shape = (8, *model.input_shape[1:])
    rescaled = any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers)
    return (generator.uniform(0.0, 255.0, shape) if rescaled else generator.normal(size=shape)).astype("float32")


def measure_batch_norms(model, images):
    """Takes over the statistics of one batch, so that depth does not swallow the differences between inputs."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(images, training=True)
    for layer, momentum in zip(norms, momenta):
        layer.momentum = momentum
