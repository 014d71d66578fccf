"""What TensorFlow Model Optimization gets wrong, or finds worth testing, and the test that holds tfprune to it.

Known defects of tfmot's pruning; the test is in this file where no other is named:

    a short run prunes nothing, silently
        test_the_shortest_run_is_pruned_with_tfmots_own_schedules
    ties break the target
        test_methods.py::test_ties_do_not_break_the_target
    earlier zeros grow back
        test_prune.py::test_pruning_further_keeps_what_is_gone
    predict() rewrites weights
        test_callbacks.py::test_evaluating_and_predicting_change_no_weight
    weights are dense between steps
        test_zeros_hold.py::test_every_step_and_epoch_ends_with_the_zeros_of_the_schedule
    checkpoints are dense
        test_zeros_hold.py::test_every_checkpoint_has_the_zeros_wherever_its_callback_is_listed
    Rescaling, EfficientNet are rejected
        test_layers_without_kernels_are_left_alone
    one unknown layer stops everything
        test_layers_without_kernels_are_left_alone
    a subclass of Dense is not known
        test_a_subclass_of_a_known_layer_is_pruned_like_it
    N:M is lost on reload
        test_callbacks.py::test_a_pattern_of_n_of_m_ramps_in_fit_and_is_reloaded_with_the_model
    custom schedules do not round-trip
        test_callbacks.py::test_a_schedule_of_the_users_own_goes_through_the_saved_model
    N:M ignores the schedule
        test_callbacks.py::test_a_pattern_of_n_of_m_ramps_in_fit_and_is_reloaded_with_the_model
    N:M on the wrong axis, or not at all
        test_n_of_m_in_fit_on_every_kind_of_kernel
    blocks on matrices only
        test_blocks_in_fit_on_kernels_of_every_rank
    a shared layer counts its steps twice
        test_wrapper.py::test_a_shared_layer_is_wrapped_once_and_counts_each_step_once
    a forgotten callback fails deep in fit
        test_wrapper.py::test_a_forgotten_callback_is_an_error_before_any_weight_changes
    wrappers inside layers are not seen
        test_wrapper.py::test_a_layer_is_wrapped_by_hand_whatever_it_is_called_on
    every weight is averaged over replicas
        test_no_mask_travels_between_replicas
    masks are floats, thresholds are kept
        test_masks_take_one_byte_for_each_weight
    the baseline is pruned along
        test_the_baseline_stays_as_it_was
    nothing holds after strip
        test_strip.py::test_a_stripped_model_trains_freely_until_its_masks_are_applied
    the last epoch's sparsity is not logged
        test_tensorboard.py::test_the_sparsity_of_each_epoch_is_written_and_read_back
    importing it changes tf.keras
        test_importing_changes_neither_keras_nor_the_environment
    only one share for all layers
        test_the_first_and_last_layers_are_spared_by_default

The most telling tests of tfmot, by their names there, and their counterparts:

    PrunesZeroSparsity_IsNoOp
        test_pruning_nothing_trains_as_without
    PruneWithHighSparsity
        test_methods.py::test_one_weight_is_left_at_a_hundredth_less_than_all
    PrunePretrainedModel_RemovesOptimizer
        test_strip.py::test_the_compilation_is_kept_with_a_fresh_optimizer
    PrunePretrainedModel_PreservesWeightObjects
        test_the_baseline_stays_as_it_was
    PrunePretrainedModel_SameInferenceWithoutTraining
        test_wrapper.py::test_a_wrapped_model_answers_the_same_trains_and_is_saved_with_its_masks
    PruneThenLoadTFWeights_DifferentInference
        test_weights_are_loaded_before_wrapping_and_a_plain_file_is_refused_after
    PruneThenLoadsKerasWeights_Fails
        test_weights_are_loaded_before_wrapping_and_a_plain_file_is_refused_after
    PrunesSingleLayer_ReachesTargetSparsity
        test_wrapper.py::test_a_wrapped_model_answers_the_same_trains_and_is_saved_with_its_masks
    MbyNSparsityPruning_SupportedLayers
        test_n_of_m_in_fit_on_every_kind_of_kernel
    RNNLayersSingleCell_ReachesTargetSparsity
        test_wrapper.py::test_kernels_carry_masks_and_nothing_else_does
    RNNLayersWithRNNCellParams
        test_wrapper.py::test_a_wrapped_model_answers_the_same_trains_and_is_saved_with_its_masks
    PrunesEmbedding
        test_zeros_hold.py::test_sparse_gradients_of_an_embedding_keep_the_zeros
    MHALayerReachesTargetSparsity
        test_wrapper.py::test_a_wrapped_layer_takes_the_arguments_of_the_layer_inside
    PrunesMnist
        test_digits_are_still_told_apart_at_eighty_per_cent
    PruneCheckpoints_CheckpointsNotSparse
        test_zeros_hold.py::test_every_checkpoint_has_the_zeros_wherever_its_callback_is_listed
    PruneStopAndRestart_PreservesSparsity
        test_callbacks.py::test_a_second_run_goes_up_from_the_masks_that_are_held
    PruneWithPolynomialDecayPastEndStep
        test_callbacks.py::test_amounts_rise_with_the_schedule_and_stay_to_the_end
    PrunesModel_CustomTrainingLoop
        test_zeros_hold.py::test_a_loop_of_the_users_own_drives_the_callback
    PruneFunctionalModelWithLayerReused
        test_wrapper.py::test_a_shared_layer_is_wrapped_once_and_counts_each_step_once
    PruneScope_NeededForKerasModel
        test_a_wrapped_model_is_loaded_by_keras_alone_once_tfprune_is_imported
    ConstructsMaskAndThresholdCorrectly
        test_selection.py::test_ties_go_to_the_first_array_then_to_the_lowest_index
    ConditionalMaskUpdate
        test_a_hundred_weights_go_by_the_steps_of_the_schedule
    SparsityMbyNMaskingSimple
        test_patterns.py::test_two_of_four_by_hand
    PruneTrainingRaisesError_PruningStepCallbackMissing
        test_wrapper.py::test_a_forgotten_callback_is_an_error_before_any_weight_changes
    PrunesSimpleDenseModel (distributed)
        test_zeros_hold.py::test_zeros_hold_on_every_replica_of_a_mirrored_model
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from tiny_models import make, numbers

import tfprune
from tfprune.model.tree import wrapped_layers

HERE = Path(__file__)


def value(variable):
    return keras.ops.convert_to_tensor(variable).numpy()


def zeros(model):
    return {
        weight.key: np.count_nonzero(value(weight.variable) == 0)
        for weight in tfprune.model.prunable.every_weight(model)
        if weight.is_kernel
    }


def test_every_test_that_the_tables_name_exists():
    named = re.findall(r"(?:(test_\w+\.py)::)?(test_\w+)$", __doc__, flags=re.MULTILINE)
    assert len(named) == 24 + 25
    for file, test in named:
        (path,) = HERE.parent.rglob(file or HERE.name)
        assert f"\ndef {test}(" in path.read_text(), f"{file}::{test}"


class PruningSchedule:
    """Stands for tfmot's class of this name, whose import would switch this process to Keras 2."""


class PolynomialDecay(PruningSchedule):
    def __init__(self, **config):
        self.config = config

    def get_config(self):
        return {"class_name": "PolynomialDecay", "config": self.config}


@pytest.mark.parametrize("end", [7, 99, 150])
def test_the_shortest_run_is_pruned_with_tfmots_own_schedules(end):
    """tfmot looks at every 100th step only: it never prunes with end_step=7 or 99, and stops short at 150."""
    schedule = PolynomialDecay(
        initial_sparsity=0.0, final_sparsity=0.75, begin_step=0, end_step=end, power=3, frequency=100
    )
    model, inputs, targets = make("dense")
    pruning = tfprune.PercentilePruning(schedule, allocation="uniform")
    model.fit(inputs, targets, batch_size=1, epochs=-(-(end + 1) // 8), verbose=0, callbacks=[pruning])
    assert zeros(model) == {"hidden/kernel": 36, "head/kernel": 18}


def test_layers_without_kernels_are_left_alone():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Normalization(mean=0.5, variance=1.0),
            layers.RandomFlip(),
            layers.Conv2D(4, 3, name="conv"),
            layers.GroupNormalization(2),
            layers.PReLU(),
            layers.UnitNormalization(),
            layers.SpatialDropout2D(0.1),
            layers.Flatten(),
            layers.Dense(3, name="head"),
        ]
    )
    wrapped = tfprune.wrap(model, 0.5)
    assert [layer.name for layer in wrapped_layers(wrapped)] == ["conv", "head"]


@keras.saving.register_keras_serializable(package="tfprune_tests")
class Scaled(layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


def test_a_subclass_of_a_known_layer_is_pruned_like_it():
    model = keras.Sequential([keras.Input((6,)), Scaled(4, name="scaled")])
    assert list(tfprune.get_masks(tfprune.wrap(model, 0.5))) == ["scaled/kernel"]


KERNELS = {
    "dense": (layers.Dense(6), (10,), 0),
    "conv1d": (layers.Conv1D(6, 2), (5, 10), 1),
    "conv2d": (layers.Conv2D(6, 2), (4, 4, 10), 2),
    "conv3d": (layers.Conv3D(6, 2), (3, 3, 3, 10), 3),
    "conv2d transposed": (layers.Conv2DTranspose(6, 2), (4, 4, 10), 3),
    "dense over positions": (layers.Dense(6), (3, 10), 0),
    "einsum": (layers.EinsumDense("abc,cd->abd", (3, 6)), (3, 10), 0),
}


@pytest.mark.parametrize(("keep", "group"), [(2, 4), (1, 2), (1, 4)])
@pytest.mark.parametrize("name", KERNELS)
def test_n_of_m_in_fit_on_every_kind_of_kernel(name, keep, group):
    prototype, shape, axis = KERNELS[name]
    model = keras.Sequential(
        [keras.Input(shape), type(prototype).from_config(prototype.get_config()), layers.Flatten()]
    )
    model.compile("sgd", "mse", run_eagerly=True)
    targets = numbers(4, model.output_shape[-1])
    pruning = tfprune.PercentilePruning(pattern=tfprune.NofM(keep, group))
    model.fit(numbers(4, *shape), targets, batch_size=2, verbose=0, callbacks=[pruning])
    kernel = np.moveaxis(value(model.layers[0].kernel), axis, 0)
    assert kernel.shape[0] == 10  # which neither 4 divides; the last group is shorter and keeps as many
    for start in range(0, 10, group):
        rows = kernel[start : start + group]
        assert (np.count_nonzero(rows, axis=0) == min(keep, len(rows))).all()


@pytest.mark.parametrize("name", ["dense", "conv1d", "conv2d", "conv3d", "conv2d transposed"])
def test_blocks_in_fit_on_kernels_of_every_rank(name):
    prototype, shape, _ = KERNELS[name]
    model = keras.Sequential(
        [keras.Input(shape), type(prototype).from_config(prototype.get_config()), layers.Flatten()]
    )
    model.compile("sgd", "mse", run_eagerly=True)
    targets = numbers(4, model.output_shape[-1])
    pruning = tfprune.PercentilePruning(0.5, pattern=tfprune.Block(2, 2))
    model.fit(numbers(4, *shape), targets, batch_size=2, verbose=0, callbacks=[pruning])
    kernel = value(model.layers[0].kernel)
    blocks = kernel.reshape(*kernel.shape[:-2], kernel.shape[-2] // 2, 2, kernel.shape[-1] // 2, 2)
    gone = (blocks == 0).all(axis=(-3, -1))
    assert np.count_nonzero(gone) == round(0.5 * gone.size)
    assert np.count_nonzero(kernel == 0) == 4 * np.count_nonzero(gone)


def test_no_mask_travels_between_replicas():
    import tensorflow as tf

    model = tfprune.prune(make("dense")[0], 0.5)
    _, inputs, targets = make("dense")
    model.train_on_batch(inputs, targets)
    data = tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(8)
    step = tf.function(model.train_step).get_concrete_function(next(iter(data)))
    kinds = {operation.type for operation in step.graph.get_operations()}
    assert not {kind for kind in kinds if "Collective" in kind or "AllReduce" in kind}
    assert not kinds & {"TopKV2", "Sort", "OneHot"}  # nor is anything decided in the step


def test_masks_take_one_byte_for_each_weight():
    model, _, _ = make("dense")
    wrapped = tfprune.wrap(model, 0.5)
    added = [variable for layer in wrapped_layers(wrapped) for variable in layer.own_state]
    assert len(wrapped.weights) == len(model.weights) + len(added)
    assert {value(variable).dtype for variable in added} == {np.dtype(bool)}
    assert sum(value(variable).nbytes for variable in added) == 48 + 24 + 2  # and one for each layer: decided or not


def test_the_baseline_stays_as_it_was():
    model, inputs, targets = make("dense")
    before = [value(variable) for variable in model.weights]
    wrapped = tfprune.wrap(model, 0.5)
    wrapped.fit(inputs, targets, batch_size=2, verbose=0, callbacks=[tfprune.UpdateMasks()])
    plain = tfprune.strip_masks(wrapped)
    plain.fit(inputs, targets, batch_size=2, verbose=0)
    for variable, then in zip(model.weights, before):
        np.testing.assert_array_equal(value(variable), then)
    assert model.layers[0].kernel.constraint is None
    families = [{id(variable) for variable in other.variables} for other in (model, wrapped, plain)]
    assert not families[0] & families[1] and not families[1] & families[2] and not families[0] & families[2]


def test_importing_changes_neither_keras_nor_the_environment():
    source = (
        "import os, sys; before = dict(os.environ)\n"
        "import keras; policy = keras.config.dtype_policy().name; floatx = keras.config.floatx()\n"
        "modules = set(sys.modules); import tfprune\n"
        "assert (policy, floatx) == (keras.config.dtype_policy().name, keras.config.floatx())\n"
        "changed = {name for name in os.environ if os.environ[name] != before.get(name)} - {'TF2_BEHAVIOR'}\n"
        "changed = {name for name in changed if name.startswith(('TF_USE', 'KERAS', 'PYTHON'))}\n"
        "assert not changed, changed\n"
        "import tensorflow as tf; assert tf.keras.__version__.startswith('3.'), tf.keras.__version__\n"
        "heavy = {'tensorflow_model_optimization', 'tf_keras', 'matplotlib', 'sklearn', 'ai_edge_litert'}\n"
        "new = heavy & (set(sys.modules) - modules); assert not new, new\n"
    )
    search = os.pathsep.join([str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_first_and_last_layers_are_spared_by_default():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, name="first"),
            layers.Dense(64, name="middle"),
            layers.Dense(4, name="last"),
        ]
    )
    shares = {key: 1 - mask.mean() for key, mask in tfprune.get_masks(tfprune.prune(model, 0.9)).items()}
    assert shares["middle/kernel"] > 0.9 > max(shares["first/kernel"], shares["last/kernel"])
    uniform = tfprune.get_masks(tfprune.prune(model, tfprune.Percentile(0.9, allocation="uniform")))
    assert {key: round(1 - float(mask.mean()), 2) for key, mask in uniform.items()} == dict.fromkeys(shares, 0.9)


@pytest.mark.parametrize("route", ["callback", "wrapper"])
def test_pruning_nothing_trains_as_without(route):
    dense, inputs, targets = make("dense")
    dense.fit(inputs, targets, batch_size=2, shuffle=False, verbose=0)
    model, _, _ = make("dense")
    pruning = tfprune.PercentilePruning(0.0)
    if route == "wrapper":
        model, pruning = tfprune.wrap(model, tfprune.Percentile(0.0)), tfprune.UpdateMasks()
    model.fit(inputs, targets, batch_size=2, shuffle=False, verbose=0, callbacks=[pruning])
    for found, expected in zip(tfprune.strip_masks(model).weights, dense.weights, strict=True):
        np.testing.assert_array_equal(value(found), value(expected))
    assert tfprune.get_masks(tfprune.strip_masks(model)) == {}


def test_weights_are_loaded_before_wrapping_and_a_plain_file_is_refused_after(tmp_path):
    trained, inputs, targets = make("dense", seed=1)
    trained.save_weights(tmp_path / "plain.weights.h5")
    fresh, _, _ = make("dense")
    fresh.load_weights(tmp_path / "plain.weights.h5")
    wrapped = tfprune.wrap(fresh, 0.5)
    np.testing.assert_array_equal(value(wrapped(inputs)), value(trained(inputs)))

    other = tfprune.wrap(make("dense")[0], 0.5)
    with pytest.raises(ValueError, match="expected 2 variables|weights"):
        other.load_weights(tmp_path / "plain.weights.h5")
    wrapped.fit(inputs, targets, batch_size=2, verbose=0, callbacks=[tfprune.UpdateMasks()])
    wrapped.save_weights(tmp_path / "wrapped.weights.h5")
    other.load_weights(tmp_path / "wrapped.weights.h5")  # while one of a wrapped model brings its masks along
    assert zeros(other) == zeros(wrapped)
    for key, mask in tfprune.get_masks(wrapped).items():
        np.testing.assert_array_equal(tfprune.get_masks(other)[key], mask)


def test_digits_are_still_told_apart_at_eighty_per_cent(digits):
    images, labels = digits
    train, test = slice(0, 1500), slice(1500, None)

    def sequential():
        return keras.Sequential([keras.Input((8, 8, 1)), *parts()])

    def functional():
        inputs = outputs = keras.Input((8, 8, 1))
        for layer in parts():
            outputs = layer(outputs)
        return keras.Model(inputs, outputs)

    def by_hand():
        method = tfprune.Percentile(0.8)
        return keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                *(tfprune.PrunedLayer(layer, method) if layer.name in ("conv", "head") else layer for layer in parts()),
            ]
        )

    def parts():
        return [
            layers.Conv2D(16, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, name="head"),
        ]

    ways = {
        "sequential": (sequential, lambda model: (tfprune.wrap(model, tfprune.Percentile(0.8)), tfprune.UpdateMasks())),
        "functional": (functional, lambda model: (model, tfprune.PercentilePruning(0.8))),
        "some layers": (sequential, lambda model: (model, tfprune.PercentilePruning(0.8, layers=layers.Dense))),
        "by hand": (by_hand, lambda model: (model, tfprune.UpdateMasks())),
    }
    for way, (build, prune) in ways.items():
        keras.utils.set_random_seed(0)
        model, pruning = prune(build())
        model.compile(
            keras.optimizers.Adam(0.01),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=False,
        )
        model.fit(images[train], labels[train], batch_size=50, epochs=8, verbose=0, callbacks=[pruning])
        plain = tfprune.strip_masks(model)
        found = zeros(plain)
        entries = {"head/kernel": 1440} if way == "some layers" else {"conv/kernel": 144, "head/kernel": 1440}
        assert sum(found[key] for key in entries) == round(0.8 * sum(entries.values())), way
        assert plain.evaluate(images[test], labels[test], verbose=0)[1] > 0.85, way


def test_a_wrapped_model_is_loaded_by_keras_alone_once_tfprune_is_imported(tmp_path):
    model = tfprune.wrap(make("dense")[0], tfprune.Percentile(0.5, criterion="l2", pattern="2x1", allocation="erk"))
    model.save(tmp_path / "wrapped.keras")
    loaded = keras.models.load_model(tmp_path / "wrapped.keras")
    assert [layer.method for layer in wrapped_layers(loaded)] == [layer.method for layer in wrapped_layers(model)]


def test_a_hundred_weights_go_by_the_steps_of_the_schedule():
    """The counts of tfmot's own test: 100, 90, 70 and 50 weights are left."""
    model = keras.Sequential([keras.Input((10,)), layers.Dense(10, name="dense")])
    model.compile("sgd", "mse", jit_compile=False)
    left = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: left.append(100 - zeros(model)["dense/kernel"])
    )
    pruning = tfprune.PercentilePruning(tfprune.Piecewise({1: 0.1, 2: 0.3, 3: 0.5}))
    model.fit(numbers(4, 10), numbers(4, 10), batch_size=1, verbose=0, callbacks=[pruning, look])
    assert left == [100, 90, 70, 50]
