"""Which way a metric is better: asked of Keras, told by names, and never guessed."""

import keras
import pytest

from tfprune import PruningError
from tfprune.model.direction import chosen_mode, mode_of

M = keras.metrics


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        (M.AUC(), "max"), (M.MeanIoU(3), "max"), (M.Precision(), "max"), (M.F1Score(), "max"), (M.R2Score(), "max"),
        (M.SparseCategoricalAccuracy(), "max"), (M.MeanAbsoluteError(), "min"), (M.RootMeanSquaredError(), "min"),
        (M.KLDivergence(), "min"), (M.LogCoshError(), "min"), (M.BinaryCrossentropy(), "min"), (M.Mean(name="x"), None),
    ],
)  # fmt: skip
def test_keras_metrics_are_asked_and_their_names_agree(metric, mode):
    assert mode_of("anything", metric) == mode
    if mode is not None:
        assert mode_of(metric.name) in (mode, None) and mode_of(type(metric).__name__) in (mode, None)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("loss", "min"), ("box_loss", "min"), ("mae", "min"), ("wer", "min"), ("edit_distance", "min"),
        ("mean_io_u", "max"), ("hit_rate", "max"), ("dice_coefficient", "max"), ("acc", "max"), ("ndcg_at_10", "max"),
        ("latitude", None), ("precision_error", None),
    ],
)  # fmt: skip
def test_names_tell_or_say_nothing(name, mode):
    assert mode_of(name) == mode


def test_a_mode_may_settle_what_is_open_but_not_contradict():
    assert chosen_mode("latitude", "min", None) == "min" and chosen_mode("mae", None, "min") == "min"
    assert chosen_mode("my_score", "min", "max", certain=False) == "min"
    with pytest.raises(PruningError, match="mode='max' contradicts the metric 'mae', of which a small value is better"):
        chosen_mode("mae", "max", "min")
