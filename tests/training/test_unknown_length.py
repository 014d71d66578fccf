"""Data that do not say how many batches an epoch has: schedules in steps work, others are refused with the line."""

import numpy as np
import pytest
import tensorflow as tf
from ways import X, Y, every_way, network, prepared

import tfprune
from tfprune.errors import PruningError


def of_unknown_length(batches=4):
    signature = (tf.TensorSpec((None, 6)), tf.TensorSpec((None, 3)))
    parts = [(X[i::batches], Y[i::batches]) for i in range(batches)]
    return tf.data.Dataset.from_generator(lambda: iter(parts), output_signature=signature)


@every_way
def test_data_of_unknown_length_are_refused_with_the_line(way):
    model, pruning = prepared(way)
    with pytest.raises(PruningError, match=r"steps_per_epoch=n.*a schedule in steps"):
        model.fit(of_unknown_length(), verbose=0, callbacks=[pruning])


STEPS = tfprune.Polynomial(0.0, 0.5, begin=0, end=6, every=2)
IN_STEPS = {
    "percentile": lambda: tfprune.PercentilePruning(STEPS),
    "threshold": lambda: tfprune.ThresholdPruning(tfprune.Linear(0.0, 0.3, end=6)),
    "structured": lambda: tfprune.StructuredPruning(STEPS),
    "surgery": lambda: tfprune.DynamicSurgery(STEPS),
    "rigl": lambda: tfprune.RigL(0.5, begin=0, end=6, every=2),
    "proximal": lambda: tfprune.ProximalSparsity(0.5, end=6),
    "movement": lambda: tfprune.PercentilePruning(STEPS, criterion="movement"),
    "wrapper": tfprune.UpdateMasks,
}


@pytest.mark.parametrize("way", IN_STEPS)
def test_a_schedule_in_steps_needs_no_length_and_gives_the_masks_of_one_that_is_known(way):
    found = []
    for data in (of_unknown_length(), of_unknown_length().apply(tf.data.experimental.assert_cardinality(4))):
        model = network()
        model = tfprune.wrap(model, tfprune.Percentile(STEPS)) if way == "wrapper" else model
        history = model.fit(data, epochs=2, verbose=0, callbacks=[IN_STEPS[way]()]).history["sparsity"]
        found.append((history, tfprune.get_masks(model)))
    (unknown, masks), (known, expected) = found
    assert unknown[-1] == known[-1] > 0.2
    for key, mask in expected.items():
        np.testing.assert_array_equal(masks[key], mask)


def test_a_run_of_unknown_length_that_goes_on_or_ends_too_soon():
    with pytest.raises(PruningError, match="A run that goes on from epoch 1 .*steps_per_epoch=n"):
        network().fit(of_unknown_length(), initial_epoch=1, epochs=2, verbose=0, callbacks=[IN_STEPS["percentile"]()])
    with pytest.warns(UserWarning, match=r"its end at step 6 with 0\.5 was not reached"):
        network().fit(of_unknown_length(), verbose=0, callbacks=[IN_STEPS["percentile"]()])
