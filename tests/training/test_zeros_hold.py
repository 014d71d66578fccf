"""Zeros hold: after every optimizer step, at every epoch end, in every checkpoint, after strip, save, load and more.

Kernels begin without a single zero, so the zeros that are counted in them are the ones that pruning made. At every
moment their number must be exactly what the schedule says for it, in every way of training that Keras has.
"""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from tiny_models import make, numbers

import tfprune
from tfprune.model.prunable import every_weight

SCHEDULE = tfprune.Linear(0.2, 0.8, begin=0.1, end=0.6, every=0.2)  # steps 1 to 7 by 2 of 12, 0 to 3 by 1 of 6
METHOD = tfprune.Percentile(SCHEDULE, allocation="uniform")
EPOCHS, STEPS, BATCH = 2, 6, 2


def small_model():
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(3, name="head"),
        ]
    )


INPUTS, TARGETS = numbers(STEPS * BATCH, 6, 6, 1), numbers(STEPS * BATCH, 3, seed=1)


def value(variable):
    return keras.ops.convert_to_tensor(variable).numpy()


def kernels(model):
    return {weight.key: value(weight.variable) for weight in every_weight(model) if weight.is_kernel}


def zeros(model):
    return {key: np.count_nonzero(kernel == 0) for key, kernel in kernels(model).items()}


def zeros_at(step, total=EPOCHS * STEPS):
    """The zeros that each kernel of `small_model` must have while the training step of this number is done."""
    bound = SCHEDULE.bind(total)
    fired = bound.last_fired(step)
    amount = 0.0 if fired is None else bound(fired)
    return {"conv/kernel": round(amount * 27), "head/kernel": round(amount * 144)}


SHAPES = {(3, 3, 1, 3): "conv/kernel", (48, 3): "head/kernel"}
FINAL = zeros_at(EPOCHS * STEPS - 1)


def averages(model):
    """The optimizer's moving averages of the kernels, in the order of the kernels."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return [value(slot) for slot in optimizer.variables if slot.name.endswith("kernel_average")]


class CountZeros(keras.callbacks.Callback):
    """Holds at the end of every batch and epoch what the schedule says."""

    def __init__(self, accumulation=1, averaged=False):
        super().__init__()
        self.accumulation, self.averaged = accumulation, averaged
        self.batches = self.epochs = self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        # Versions of Keras differ in the number that they give to the end of several steps at once.
        self.last = min(batch + self.model.steps_per_execution, STEPS) - 1

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        step = (self.epoch * STEPS + self.last) // self.accumulation
        expected = zeros_at(step, EPOCHS * STEPS // self.accumulation)
        assert zeros(self.model) == expected, f"batch {batch} of epoch {self.epoch}"
        if self.averaged:
            for average, kernel in zip(averages(self.model), kernels(self.model).values(), strict=True):
                assert not average[kernel == 0].any()

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1
        step = (epoch * STEPS + STEPS - 1) // self.accumulation
        assert zeros(self.model) == zeros_at(step, EPOCHS * STEPS // self.accumulation)


WAYS = {
    "adam": {},
    "several steps per call": {"steps_per_execution": 4},
    "XLA": {"jit_compile": True},
    "XLA, several steps per call": {"jit_compile": True, "steps_per_execution": 3},
    "eagerly": {"run_eagerly": True},
    "mixed float16": {"policy": "mixed_float16"},
    "mixed bfloat16": {"policy": "mixed_bfloat16"},
    "gradient accumulation": {"optimizer": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)},
    "gradient accumulation in mixed float16": {
        "optimizer": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
        "policy": "mixed_float16",
    },
    "weight decay": {"optimizer": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1)},
    "momentum": {"optimizer": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)},
    "moving average": {"optimizer": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5)},
    "moving average written over": {
        "optimizer": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3)
    },
    "moving average in mixed float16": {
        "optimizer": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5),
        "policy": "mixed_float16",
    },
    "moving average, eagerly": {
        "optimizer": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5),
        "run_eagerly": True,
    },
    "moving average under XLA": {
        "optimizer": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5),
        "jit_compile": True,
    },
}


def prepared(route, policy=None, optimizer=lambda: keras.optimizers.Adam(0.01), set_policy=None, **settings):
    """A compiled model on its way to be pruned by a route, with the callback that does it."""
    keras.utils.set_random_seed(0)
    if policy is not None:
        set_policy(policy)
    model = small_model()
    model.compile(optimizer(), "mse", **{"jit_compile": False, **settings})
    if route == "callback":
        return model, tfprune.PruningCallback(METHOD)
    return tfprune.wrap(model, METHOD), tfprune.UpdateMasks()


@pytest.fixture(params=["callback", "wrapper"])
def route(request):
    return request.param


@pytest.mark.parametrize("way", WAYS)
def test_every_step_and_epoch_ends_with_the_zeros_of_the_schedule(way, route, policy):
    model, pruning = prepared(route, set_policy=policy, **WAYS[way])
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    accumulation = optimizer.gradient_accumulation_steps or 1
    count = CountZeros(accumulation, optimizer.use_ema)
    model.fit(INPUTS, TARGETS, batch_size=BATCH, epochs=EPOCHS, verbose=0, shuffle=False, callbacks=[pruning, count])
    assert count.epochs == EPOCHS
    assert count.batches == EPOCHS * -(-STEPS // model.steps_per_execution)
    assert zeros(model) == FINAL
    assert optimizer.use_ema is False or averages(model)
    kept = tfprune.get_masks(model)
    model.fit(INPUTS, TARGETS, batch_size=BATCH, verbose=0)  # further training, without the callback
    for key, kernel in kernels(model).items():
        np.testing.assert_array_equal(kernel == 0, ~kept[key], err_msg=key)
    plain = tfprune.strip_masks(model)
    for key, kernel in kernels(plain).items():
        assert np.signbit(kernel[~kept[key]]).sum() == 0  # +0.0, never -0.0
        np.testing.assert_array_equal(kernel, kernels(model)[key])


def test_averaged_weights_that_are_swapped_in_have_the_zeros_too(route):
    model, pruning = prepared(route, optimizer=lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5))
    seen = []
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(zeros(model)))
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    callbacks = [pruning, CountZeros(), swap, look]
    model.fit(INPUTS, TARGETS, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    assert seen == [zeros_at(STEPS - 1), FINAL]
    assert zeros(model) == FINAL


def test_zeros_hold_in_weights_of_half_precision(route, policy):
    model, pruning = prepared(route, policy="bfloat16", set_policy=policy)
    model.fit(INPUTS, TARGETS, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[pruning])
    masks = tfprune.get_masks(model)
    assert {key: np.count_nonzero(~mask) for key, mask in masks.items()} == FINAL
    for key, kernel in kernels(model).items():  # with so few digits a weight may also come to zero by itself
        assert not kernel[~masks[key]].any()


def test_a_model_that_was_loaded_holds_its_zeros_under_a_new_optimizer_with_a_moving_average(tmp_path):
    model, pruning = prepared("wrapper")
    model.fit(INPUTS, TARGETS, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[pruning])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.compile(keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.9), "mse", jit_compile=False)
    loaded.fit(INPUTS, TARGETS, batch_size=BATCH, verbose=0)
    assert zeros(loaded) == FINAL


def zeros_in_file(path):
    """The zeros of the two kernels as they lie in a `.keras` file."""
    found = {}

    def visit(name, data):
        if isinstance(data, h5py.Dataset) and data.dtype != bool and data.shape in SHAPES and "optimizer" not in name:
            found[SHAPES[data.shape]] = np.count_nonzero(data[()] == 0)

    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
        weights.visititems(visit)
    return found


def test_every_checkpoint_has_the_zeros_wherever_its_callback_is_listed(route, tmp_path):
    model, pruning = prepared(route)

    def checkpoint(name, **arguments):
        return keras.callbacks.ModelCheckpoint(str(tmp_path / name), save_best_only=False, **arguments)

    model.fit(
        INPUTS,
        TARGETS,
        batch_size=BATCH,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[
            checkpoint("before-{epoch}.keras"),
            checkpoint("batch-before-{epoch}-{batch}.keras", save_freq=1),
            pruning,
            checkpoint("batch-after-{epoch}-{batch}.keras", save_freq=5),
            checkpoint("after-{epoch}.keras"),
        ],
    )
    expected = {}
    for epoch in (1, 2):
        expected |= {f"{when}-{epoch}.keras": zeros_at(epoch * STEPS - 1) for when in ("before", "after")}
        for batch in range(1, STEPS + 1):
            expected[f"batch-before-{epoch}-{batch}.keras"] = zeros_at((epoch - 1) * STEPS + batch - 1)
    expected |= {"batch-after-1-5.keras": zeros_at(4), "batch-after-2-4.keras": zeros_at(9)}
    found = {path.name: zeros_in_file(path) for path in tmp_path.iterdir()}
    assert found == expected


def test_a_stripped_model_keeps_its_zeros_through_saving_in_every_format(route, tmp_path):
    model, pruning = prepared(route)
    model.fit(INPUTS, TARGETS, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[pruning])
    plain = tfprune.strip_masks(model)
    plain.save(tmp_path / "plain.keras")
    plain.save(tmp_path / "plain.h5")
    plain.save_weights(tmp_path / "plain.weights.h5")
    assert zeros(keras.models.load_model(tmp_path / "plain.keras")) == FINAL
    assert zeros(keras.models.load_model(tmp_path / "plain.h5", compile=False)) == FINAL
    other = small_model()
    other.load_weights(tmp_path / "plain.weights.h5")
    assert zeros(other) == FINAL


def test_single_batches_and_loops_of_the_users_own_keep_the_zeros(route):
    import tensorflow as tf

    model, pruning = prepared(route)
    model.fit(INPUTS, TARGETS, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[pruning])
    for _ in range(3):
        model.train_on_batch(INPUTS[:2], TARGETS[:2])
        assert zeros(model) == FINAL
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)

    def step(inputs, targets):
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(keras.ops.square(model(inputs, training=True) - targets))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    before = value(model.trainable_variables[-1])
    for run in (step, tf.function(step)):
        run(INPUTS, TARGETS)
        assert zeros(model) == FINAL
    assert np.abs(value(model.trainable_variables[-1]) - before).max() > 0


def test_a_loop_of_the_users_own_drives_the_callback(route):
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    model = small_model()
    pruning = tfprune.PruningCallback(METHOD)
    if route == "wrapper":
        model, pruning = tfprune.wrap(model, METHOD), tfprune.UpdateMasks()
    optimizer = keras.optimizers.Adam(0.01)
    count = CountZeros()
    callbacks = keras.callbacks.CallbackList([pruning, count], model=model, epochs=EPOCHS, steps=STEPS)
    callbacks.on_train_begin()
    for epoch in range(EPOCHS):
        callbacks.on_epoch_begin(epoch)
        for batch in range(STEPS):
            callbacks.on_train_batch_begin(batch)
            part = slice(batch * BATCH, (batch + 1) * BATCH)
            with tf.GradientTape() as tape:
                loss = keras.ops.mean(keras.ops.square(model(INPUTS[part], training=True) - TARGETS[part]))
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
            callbacks.on_train_batch_end(batch)
        callbacks.on_epoch_end(epoch)
    callbacks.on_train_end()
    assert count.batches == EPOCHS * STEPS
    assert zeros(model) == FINAL


def test_sparse_gradients_of_an_embedding_keep_the_zeros():
    model, inputs, targets = make("attention", optimizer=keras.optimizers.Adam(0.01))
    pruning = tfprune.PercentilePruning(tfprune.OneShot(0.5), allocation="uniform")
    zeros_of_table = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: zeros_of_table.append(zeros(model)["embedding/embeddings"])
    )
    model.fit(inputs, targets, batch_size=1, verbose=0, callbacks=[pruning, look])
    assert zeros_of_table == [40] * 4


def test_the_users_own_constraint_goes_on_working_with_the_zeros(route, tmp_path):
    inputs, targets = numbers(16, 6), numbers(16, 4, seed=1)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, kernel_constraint=keras.constraints.UnitNorm(axis=0), name="dense")]
    )
    model.compile("adam", "mse", jit_compile=False)
    method, pruning = tfprune.Percentile(tfprune.OneShot(0.5)), None
    if route == "wrapper":
        model, pruning = tfprune.wrap(model, method), tfprune.UpdateMasks()
    model.fit(inputs, targets, batch_size=4, verbose=0, callbacks=[pruning or tfprune.PruningCallback(method)])
    kernel = kernels(model)["dense/kernel"]
    assert np.count_nonzero(kernel == 0) == 12
    norms = np.linalg.norm(kernel, axis=0)
    np.testing.assert_allclose(norms[norms > 0], 1.0, rtol=1e-5)  # float32 norms
    plain = tfprune.strip_masks(model)
    assert isinstance(plain.layers[-1].kernel_constraint, keras.constraints.UnitNorm)
    plain.save(tmp_path / "plain.keras")
    loaded = keras.models.load_model(tmp_path / "plain.keras")
    assert isinstance(loaded.layers[-1].kernel.constraint, keras.constraints.UnitNorm)


def test_a_callback_model_is_saved_without_a_trace_of_the_masks(tmp_path):
    model, pruning = prepared("callback")
    config = json.dumps(small_model().get_config()["layers"][1]["config"])
    model.fit(INPUTS, TARGETS, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[pruning])
    assert json.dumps(model.get_config()["layers"][1]["config"]) == config
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert zeros(loaded) == FINAL
    assert loaded.get_layer("conv").kernel.constraint is None


DISTRIBUTED = """
import json, sys
sys.path.insert(0, {tests!r})
import keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import tfprune
from test_zeros_hold import BATCH, EPOCHS, FINAL, INPUTS, METHOD, TARGETS, CountZeros, kernels, small_model, zeros

results = {{}}
for route in ("callback", "wrapper"):
    for use_ema in (False, True):
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            keras.utils.set_random_seed(0)
            model = small_model()
            optimizer = keras.optimizers.Adam(0.01, use_ema=use_ema, ema_momentum=0.5)
            model.compile(optimizer, "mse", jit_compile=False)
        pruning = tfprune.PruningCallback(METHOD)
        if route == "wrapper":
            model, pruning = tfprune.wrap(model, METHOD), tfprune.UpdateMasks()
        count = CountZeros()
        callbacks = [pruning, count]
        model.fit(INPUTS, TARGETS, batch_size=BATCH, epochs=EPOCHS, verbose=0, shuffle=False, callbacks=callbacks)
        variable = next(weight.variable for weight in tfprune.model.prunable.every_weight(model) if weight.is_kernel)
        replicas = [replica.numpy() for replica in strategy.experimental_local_results(variable.value)]
        plain = tfprune.strip_masks(model)
        results[f"{{route}}, ema={{use_ema}}"] = {{
            "replicas": len(replicas),
            "equal": bool(np.array_equal(*replicas)),
            "batches": count.batches,
            "zeros": zeros(model) == FINAL,
            "stripped": zeros(plain) == FINAL,
            "masks": [int(np.flatnonzero(kernel == 0).sum()) for kernel in kernels(plain).values()],
        }}
print(json.dumps(results))
"""


def run_script(source, tmp_path, **environment):
    script = tmp_path / "script.py"
    script.write_text(source.format(tests=str(Path(__file__).parent)))
    folder = Path(__file__).parent
    search = os.pathsep.join([str(folder.parents[1]), str(folder.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": search, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def test_zeros_hold_on_every_replica_of_a_mirrored_model(tmp_path):
    done = run_script(DISTRIBUTED, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    assert len(results) == 4
    for name, result in results.items():
        masks = result.pop("masks")
        assert result == {
            "replicas": 2,
            "equal": True,
            "batches": EPOCHS * STEPS,
            "zeros": True,
            "stripped": True,
        }, name
        assert masks == results[name.replace("wrapper", "callback")].get("masks", masks)
