import keras
import numpy as np
import pytest
from keras import layers
from tiny_models import MODELS, make

import tfprune
from tfprune.errors import PruningError
from tfprune.training.masks import constraint_of


def value(variable):
    return keras.ops.convert_to_tensor(variable).numpy()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_pruned_at_once_and_the_first_is_left_alone(name):
    model, inputs, targets = make(name)
    before = [value(variable) for variable in model.weights]
    pruned = tfprune.prune(model, tfprune.Percentile(0.5, allocation="uniform"))
    masks = tfprune.get_masks(pruned)
    assert masks
    for key, mask in masks.items():
        assert np.count_nonzero(~mask) == round(0.5 * mask.size), key
    for variable, then in zip(model.weights, before):
        np.testing.assert_array_equal(value(variable), then)
        assert constraint_of(variable) is None
    pruned.fit(inputs, targets, batch_size=4, verbose=0)  # fine-tuning keeps the zeros
    for key, mask in tfprune.get_masks(tfprune.strip_masks(pruned)).items():
        np.testing.assert_array_equal(mask, masks[key], err_msg=key)


def test_a_number_prunes_exactly_it_and_a_schedule_to_its_end():
    model, _, _ = make("dense")
    by_number = tfprune.get_masks(tfprune.prune(model, 0.75))
    by_schedule = tfprune.get_masks(tfprune.prune(model, tfprune.Percentile(tfprune.Linear(0.1, 0.75))))
    assert sum(np.count_nonzero(~mask) for mask in by_number.values()) == round(0.75 * (48 + 24))
    for key, mask in by_number.items():
        np.testing.assert_array_equal(by_schedule[key], mask)


def test_pruning_further_keeps_what_is_gone():
    model, _, _ = make("dense")
    half = tfprune.prune(model, tfprune.Percentile(0.5, allocation="uniform"))
    for begin in (half, tfprune.strip_masks(half)):  # by its masks, and by its zeros alone
        more = tfprune.get_masks(tfprune.prune(begin, tfprune.Percentile(0.8, allocation="uniform")))
        for key, mask in tfprune.get_masks(half).items():
            assert not more[key][~mask].any()
            assert np.count_nonzero(~more[key]) == round(0.8 * mask.size)


def test_a_kernel_of_zeros_is_pruned_like_any_other():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a"), layers.Dense(4, kernel_initializer="zeros")]
    )
    masks = tfprune.get_masks(tfprune.prune(model, tfprune.Percentile(0.5, allocation="uniform")))
    assert [np.count_nonzero(~mask) for mask in masks.values()] == [8, 8]


@pytest.mark.parametrize(
    ("pruning", "message"),
    [
        (lambda: tfprune.prune(keras.Sequential([layers.Dense(2)]), 0.5), "it is not built yet"),
        (lambda: tfprune.prune("model.keras", 0.5), r"Cannot prune str: give a keras\.Model"),
        (lambda: tfprune.prune(make("dense")[0], 1.0), r"1\.0 is no sparsity in \[0, 1\)"),
        (lambda: tfprune.prune(make("dense")[0], "percentile"), r"not the name 'percentile' alone: Percentile\(0\.8\)"),
        (
            lambda: tfprune.prune(keras.Sequential([keras.Input((2,)), layers.ReLU()], name="empty"), 0.5),
            "'empty' has no prunable weight",
        ),
        (lambda: tfprune.prune(make("dense")[0], tfprune.Percentile(0.5, layers="hiden")), "Did you mean 'hidden'"),
    ],
)
def test_what_cannot_be_pruned_is_said(pruning, message):
    with pytest.raises(PruningError, match=message):
        pruning()


def test_weights_that_are_not_finite_are_named():
    model, _, _ = make("dense")
    model.get_layer("hidden").kernel.assign(np.full((6, 8), np.nan))
    with pytest.raises(PruningError, match="'hidden/kernel' has 48 NaN or infinite entries"):
        tfprune.prune(model, 0.5)
    assert np.isnan(value(model.get_layer("hidden").kernel)).all()


def test_half_precision_weights_are_pruned_exactly(policy):
    policy("float16")
    model = keras.Sequential([keras.Input((16,)), layers.Dense(32, name="dense")])
    mask = tfprune.get_masks(tfprune.prune(model, 0.5))["dense/kernel"]
    assert np.count_nonzero(~mask) == 256
    magnitudes = np.abs(value(model.layers[0].kernel))
    assert magnitudes[~mask].max() <= magnitudes[mask].min()


def test_the_report_tells_what_went_and_how_much_data_were_read():
    model, inputs, targets = make("dense")
    method = tfprune.Percentile(0.5, criterion="taylor", allocation="uniform")
    data = [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]
    pruned, report = tfprune.prune(model, method, data, reconstruct="least_squares", return_report=True)
    assert {row["weight"]: row["zeros"] for row in report.rows()} == {"hidden/kernel": 24, "head/kernel": 12}
    assert report.sparsity == 0.5
    assert "The criterion read 8 samples in 2 batches." in report.notes()
    assert "Repair: Read 8 samples in 2 batches." in report.notes()
    assert all(row["after"] <= row["before"] + 1e-6 for row in report.rows())
    assert isinstance(pruned, keras.Model)
    assert "error after" in str(report)
