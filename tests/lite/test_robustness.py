"""Disturbed images: what is done to them is worked by hand, and both models are judged on the same ones."""

import keras
import lite_models
import numpy as np
import pytest

from tfprune.errors import PruningError
from tfprune.lite import convert, verify
from tfprune.lite.measure.robustness import DISTURBANCES, image_of
from tfprune.model.signature import signature_of

IMAGES = np.random.default_rng(3).random((70, 12, 12, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return lite_models.convolutional()


def test_what_is_done_to_an_image():
    image = np.zeros((1, 3, 3, 1), np.float32)
    image[0, 1, 1, 0], image[0, 0, 0, 0] = 0.9, 0.45
    low, high = 0.0, 1.0
    blurred = DISTURBANCES["blur"](image, low, high)[0, :, :, 0]
    corner = (4 * 0.45 + 0.9) / 9  # the edge goes on outside, so a corner counts four times
    np.testing.assert_allclose(blurred[0, 0], corner, rtol=1e-6)
    np.testing.assert_allclose(blurred[1, 1], (0.9 + 0.45) / 9, rtol=1e-6)
    np.testing.assert_allclose(DISTURBANCES["brightness"](image, low, 2.0), image + 0.4, rtol=1e-6)
    noise = DISTURBANCES["noise"](np.zeros((4, 50, 50, 1)), low, 2.0)
    assert abs(noise.std() - 0.2) < 0.01 and abs(noise.mean()) < 0.01


def test_both_are_judged_on_the_same_disturbed_images(model):
    labels = np.asarray(model(IMAGES)).argmax(axis=-1)
    lite = convert(model, "int8", IMAGES)
    report = verify(model, lite, IMAGES, labels, robustness=True)
    assert report.accuracy == 1.0  # the labels are what the model says of the images as they are
    assert list(report.robustness) == ["noise", "blur", "brightness"]
    low, high = IMAGES[:64].min(), IMAGES[:64].max()  # of the first batch
    brighter = np.clip(IMAGES + np.float32(0.2) * (high - low), low, high)
    for answers, found in zip((np.asarray(model(brighter)), lite(brighter)), report.robustness["brightness"]):
        assert found == pytest.approx(np.mean(answers.argmax(axis=-1) == labels), abs=0.02)
    assert "Right on disturbed images: noise" in report.to_text(400)
    assert report.to_dict()["robustness"]["blur"] == list(report.robustness["blur"])


def test_nothing_is_disturbed_unasked_and_nothing_told_without_labels(model):
    lite = convert(model)
    assert verify(model, lite, IMAGES[:8], np.zeros(8, int)).robustness == {}
    assert verify(model, lite, IMAGES[:8], robustness=True).robustness == {}


def test_a_model_of_no_images_is_refused():
    model = keras.Sequential([keras.Input((4,), name="row"), keras.layers.Dense(2)], name="rows")
    assert image_of(signature_of(model)) is None
    with pytest.raises(PruningError, match=r"robustness=True disturbs images.*takes 'row' \(None, 4\) float32"):
        verify(model, convert(model), np.zeros((4, 4), np.float32), robustness=True)
