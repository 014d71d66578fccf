"""Walks over the workflow: random small networks pruned, saved, stripped, shrunk, quantized and converted in any order.

`Walk` is a state machine of hypothesis: each rule is a stage, and after each the laws of the design are looked at.
tests/test_walks.py takes some walks, `python benchmarks/faults.py walks` many, with compiled steps and real kills.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
from battery import units_of
from channel_checks import TOLERANCE
from hypothesis import Phase, seed, settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from random_graphs import Graph
from tiny_models import MODELS, make

import tfprune
from tfprune.deciding.patterns import Element
from tfprune.model.prunable import every_weight
from tfprune.model.tree import every_layer, wrapped_layers

SETTINGS = settings(derandomize=True, database=None, deadline=None, phases=[Phase.generate], stateful_step_count=3)
QUICK = ["dense", "convolutional", "one_dimensional", "stacked_cells", "contracted", "nested", "siamese", "own_layers"]
NAMED = [name for name in MODELS if name != "subclassed"]
SAMPLES = 4
AMOUNTS = some.sampled_from([0.3, 0.5, 0.7, 0.85])
METHODS = some.one_of(
    some.builds(
        tfprune.Percentile,
        AMOUNTS,
        pattern=some.sampled_from(["element", "2x2"]),
        allocation=some.sampled_from(["uniform", "global", "lamp", "erk"]),
    ),
    some.builds(tfprune.Percentile, pattern=some.sampled_from(["2:4", "1:2"])),
    some.builds(tfprune.Threshold, some.sampled_from([0.05, 0.2])),
    some.builds(tfprune.Structured, AMOUNTS.filter(lambda amount: amount < 0.8)),
)
LIVING = {
    "movement": lambda amount: tfprune.PercentilePruning(amount, criterion="movement"),
    "iterative": lambda amount: tfprune.IterativePruning(amount, rounds=2, rewind=0.0),
    "surgery": tfprune.DynamicSurgery,
    "rigl": tfprune.RigL,
    "proximal": tfprune.ProximalSparsity,
}
KILLED = """
import os, pickle, signal, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
import keras
import walks
with open(os.path.join(sys.argv[2], "run.pickle"), "rb") as file:
    run = pickle.load(file)

class Die(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        run["dies"] -= 1
        if run["dies"] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

walks.resumable(sys.argv[2], run, [Die()])
"""


def value(variable):
    return keras.ops.convert_to_numpy(variable)


def state(model):
    return [value(weight) for weight in model.weights]


def same(first, second):
    return len(first) == len(second) and all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second))


def resumable(folder, run, callbacks=(), backup=True):
    """A run of `fit` that a kill may interrupt, from the files in a folder; its masks."""
    keras.utils.set_random_seed(run["seed"])  # of dropout, which draws one when it is made: no file holds it
    model = keras.models.load_model(Path(folder) / "model.keras")
    data = np.load(Path(folder) / "data.npz")
    inputs = [data[key] for key in sorted(data) if key[0] == "x"]
    targets = [data[key] for key in sorted(data) if key[0] == "y"]
    if backup:
        callbacks = [keras.callbacks.BackupAndRestore(str(Path(folder) / "backup")), *callbacks]
    pruning = tfprune.PruningCallback(keras.saving.deserialize_keras_object(run["method"]))
    model.fit(
        inputs if len(inputs) > 1 else inputs[0],
        targets if len(targets) > 1 else targets[0],
        epochs=3,
        batch_size=2,
        shuffle=False,
        verbose=0,
        callbacks=[pruning, *callbacks],
    )
    return tfprune.get_masks(model)


class Network(Graph):
    """Without grouped convolutions, for which Keras compiles for seconds on a CPU."""

    IMAGE = tuple(step for step in Graph.IMAGE if step != "grouped")


class Walk(RuleBasedStateMachine):
    """One model on its way; `masks` are those that it must have, `held` says whether training must keep them."""

    networks: ClassVar[list[str]] = QUICK
    compiled: ClassVar[bool] = False
    killing: ClassVar[bool] = False  # whether a stage may be a real process that is killed
    kills: ClassVar[int] = 0  # how many are still to be made
    taken: ClassVar[Counter] = Counter()  # stages that were gone through, and what was refused
    walks: ClassVar[int] = 0

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.masks, self.held, self.model = {}, False, None
        warnings.simplefilter("ignore")

    def teardown(self):
        self.folder.cleanup()
        Walk.walks += 1
        if Walk.walks % 10 == 0:
            keras.backend.clear_session()

    # The stages

    @initialize(seed=some.integers(0, 10**6), choice=some.integers(0, 10**6))
    def build(self, seed, choice):
        name = self.networks[choice % len(self.networks)]
        keras.utils.set_random_seed(seed)
        if name == "graph":
            self.model, generator = Network(seed).model(), np.random.default_rng(seed)
            shapes = [(SAMPLES, *end.shape[1:]) for end in self.model.inputs]
            self.inputs = [
                generator.integers(0, 4, shape).astype("int32")
                if "int" in end.dtype
                else generator.normal(size=shape).astype("float32")
                for end, shape in zip(self.model.inputs, shapes)
            ]
            self.inputs = self.inputs if len(self.inputs) > 1 else self.inputs[0]
        else:
            self.model, inputs, _ = make(name, seed)
            self.inputs = [each[:SAMPLES] for each in inputs] if isinstance(inputs, list) else inputs[:SAMPLES]
        self.generator = np.random.default_rng(seed)
        outputs = keras.tree.flatten(self.model(self.inputs))
        targets = [self.generator.normal(size=output.shape).astype("float32") for output in outputs]
        self.targets = targets if len(targets) > 1 else targets[0]
        # TensorFlow ends the process in the compiled steps of some random graphs, pruned or not.
        self.eager = not self.compiled or name == "graph"
        self.compile()

    def compile(self):
        settings = {"jit_compile": False, "run_eagerly": self.eager}
        self.model.compile(keras.optimizers.Adam(0.01, clipnorm=1.0), "mse", **settings)

    def fit(self, callbacks=(), epochs=1):
        data = (self.inputs, self.targets)
        self.model.fit(*data, batch_size=2, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))

    def has_dead_kernel(self):
        """Whether a layer is zero throughout."""
        return not all(value(weight.variable).any() for weight in every_weight(self.model) if weight.is_kernel)

    def stage(self, name, work, *refused):
        """Does something that leaves the model alone; None where it is refused with one of these words."""
        before = state(self.model)
        try:
            result = work()
        except tfprune.PruningError as error:
            assert any(words in str(error) for words in refused), f"{name} refused: {error}"
            self.taken[f"{name}: refused"] += 1
            result = None
        else:
            self.taken[name] += 1
        assert same(before, state(self.model)), f"{name} changed the model that it was given"
        return result

    @property
    def wrapped(self):
        return bool(wrapped_layers(self.model))

    @precondition(lambda self: not self.wrapped)
    @rule(method=METHODS, epochs=some.integers(1, 2))
    def train_with_a_callback(self, method, epochs):
        if not self.possible(method):
            return
        self.taken["train with a callback"] += 1
        self.fit([tfprune.PruningCallback(method)], epochs)
        self.decided(method)

    @precondition(lambda self: not self.wrapped)
    @rule(name=some.sampled_from(list(LIVING)), amount=AMOUNTS, epochs=some.integers(2, 3))
    def train_with_masks_that_live(self, name, amount, epochs):
        self.taken[f"train with {name}"] += 1
        pruning = LIVING[name](amount)
        self.fit([pruning], epochs)
        self.masks, self.held = tfprune.get_masks(self.model), True
        kernels = [self.masks[weight.key] for weight in every_weight(self.model) if weight.is_kernel]
        entries = sum(mask.size for mask in kernels)
        zeros = sum(int(np.count_nonzero(~mask)) for mask in kernels)
        assert zeros == round(amount * entries), f"{name}: {zeros} of {entries} at {amount}"

    @precondition(lambda self: not self.wrapped)
    @rule(method=METHODS, epochs=some.integers(1, 2))
    def wrap_and_train(self, method, epochs):
        if not self.possible(method):
            return
        wrapped = self.stage("wrap", lambda: tfprune.wrap(self.model, method))
        assert same(self.answers(), self.answers(wrapped))
        self.model = wrapped
        self.compile()
        self.fit([tfprune.UpdateMasks()], epochs)
        self.decided(method)

    @precondition(lambda self: self.wrapped)
    @rule(epochs=some.integers(1, 2))
    def train_the_wrapped_model_further(self, epochs):
        self.taken["train the wrapped model further"] += 1
        self.fit([tfprune.UpdateMasks()], epochs)
        self.decided(wrapped_layers(self.model)[0].method)

    @rule()
    def train_without_a_callback(self):
        self.taken["train without a callback"] += 1
        if not self.held:
            self.masks = {}  # nothing holds the zeros of a plain model
        self.fit()

    @rule(method=METHODS)
    def prune_at_once(self, method):
        if self.wrapped or not self.possible(method):
            return
        self.model = self.stage("prune at once", lambda: tfprune.prune(self.model, method, verbose=0))
        self.decided(method)
        self.compile()

    @rule()
    def save_and_load(self):
        path = Path(self.folder.name) / "model.keras"
        loaded = self.stage("save and load", lambda: (self.model.save(path), keras.models.load_model(path))[1])
        assert same(state(self.model), state(loaded))
        assert self.wrapped == bool(wrapped_layers(loaded))
        self.held = self.held and self.wrapped
        self.model = loaded
        self.compile()

    @precondition(lambda self: self.masks and not self.held)
    @rule()
    def hold_the_zeros_again(self):
        self.taken["hold the zeros again"] += 1
        tfprune.apply_masks(self.model, tfprune.get_masks(self.model))
        self.masks, self.held = tfprune.get_masks(self.model), True

    @rule()
    def strip(self):
        plain = self.stage("strip", lambda: tfprune.strip_masks(self.model))
        assert same(self.answers(), self.answers(plain))
        assert not wrapped_layers(plain)
        for weight in every_weight(plain):
            if weight.key in self.masks:
                gone = value(weight.variable)[~self.masks[weight.key]]
                assert not gone.any()
                assert not np.signbit(gone).any()
        self.model, self.held = plain, False
        self.compile()

    @rule()
    def shrink(self):
        plain = tfprune.strip_masks(self.model)
        small = self.stage("shrink", lambda: tfprune.shrink(plain))
        certificate = tfprune.certify(plain, small, self.inputs)
        assert certificate.largest <= TOLERANCE, str(certificate)
        assert small.count_params() <= plain.count_params()
        if small.count_params() < plain.count_params():
            self.taken["shrink: smaller"] += 1
            self.model, self.held = small, False
            self.masks = tfprune.get_masks(small)
            self.compile()

    @precondition(lambda self: self.masks)
    @rule(trained=some.booleans(), integers=some.booleans())
    def quantize(self, trained, integers):
        quantized = self.stage("quantize", lambda: tfprune.quantize_aware(self.model, self.inputs))
        if trained:
            quantized.compile("sgd", "mse", jit_compile=False, run_eagerly=self.eager)
            quantized.fit(self.inputs, self.targets, batch_size=2, verbose=0)
        masks = tfprune.get_masks(quantized)
        for key, mask in masks.items():
            gone = ~self.masks.get(key, np.ones_like(mask))
            if gone.shape == mask.shape and 0.01 <= gone.mean() < 1:
                assert not (mask & gone).any(), f"{key} of the quantized model gave zeros back"
        if integers:
            # LiteRT cannot always prepare what the converter makes of a layer that is zero throughout.
            try:
                lite = tfprune.convert(quantized, "int8")
            except tfprune.ConversionError as error:
                assert "LiteRT cannot prepare" in str(error) and self.has_dead_kernel(), str(error)
                self.taken["convert to int8: refused"] += 1
                return
            self.compared(quantized, lite, "int8")

    @rule(quantization=some.sampled_from(["float32", "float32", "float16", "dynamic", "int8"]))
    def convert(self, quantization):
        data = self.inputs if quantization == "int8" else None
        refused = ["The representative data never touch"] if data is not None and self.has_dead_kernel() else []
        try:
            lite = self.stage(
                f"convert to {quantization}", lambda: tfprune.convert(self.model, quantization, data), *refused
            )
        except tfprune.ConversionError as error:
            assert quantization == "int8" and "no integer form of 'CONV_3D'" in str(error), str(error)
            self.taken["convert to int8: refused"] += 1
            return
        if lite is not None:
            self.compared(self.model, lite, quantization)

    @precondition(lambda self: self.killing and not self.wrapped)
    @rule(method=METHODS, dies=some.integers(1, 5))
    def be_killed(self, method, dies):
        if Walk.kills < 1 or not self.possible(method):
            return
        Walk.kills -= 1
        self.taken["be killed and go on"] += 1
        with tempfile.TemporaryDirectory() as folder:
            self.model.save(Path(folder) / "model.keras")
            data = {f"x{place}": array for place, array in enumerate(keras.tree.flatten(self.inputs))}
            data |= {f"y{place}": array for place, array in enumerate(keras.tree.flatten(self.targets))}
            np.savez(Path(folder) / "data.npz", **data)
            run = {"method": keras.saving.serialize_keras_object(method), "seed": 0, "dies": dies}
            (Path(folder) / "run.pickle").write_bytes(pickle.dumps(run))
            command = [sys.executable, "-c", KILLED, os.pathsep.join(sys.path), folder]
            ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
            assert ended.returncode == -signal.SIGKILL, ended.stderr[-2000:]
            begun = (Path(folder) / "backup").exists()
            expected, found = resumable(folder, run, backup=False), resumable(folder, run)
        assert expected.keys() == found.keys()
        if begun and any(hasattr(layer, "seed_generator") for layer in every_layer(self.model)):
            return  # Keras' backup does not hold where dropout stands in what it draws
        for key, mask in expected.items():
            assert np.array_equal(mask, found[key]), f"after a kill the mask of {key} is another"

    def compared(self, model, lite, quantization):
        found = tfprune.verify(model, lite, self.inputs)
        assert not found.broken(), found.broken()  # zeros that were lost
        if quantization == "float32":
            assert max(output.relative_error for output in found.outputs) <= 1e-4, str(found)

    # The laws

    def answers(self, model=None):
        model = self.model if model is None else model
        return [value(output) for output in keras.tree.flatten(model(self.inputs, training=False))]

    def possible(self, method):
        """Whether a method has something to prune, and can reach its amount; it says so before anything changes."""
        try:
            bound = method.bind(self.model)
            bound.decide(method.final, None)
        except tfprune.PruningError as error:
            assert isinstance(method, tfprune.Structured), str(error)
            self.taken["structured: refused"] += 1
            return False
        return True

    def decided(self, method):
        """Notes the masks that a method has just decided, which hold what it promises."""
        self.masks, self.held = tfprune.get_masks(self.model), True
        if not isinstance(method, tfprune.Percentile):
            return
        weights = [weight for weight in every_weight(self.model) if weight.key in self.masks and weight.is_kernel]
        units = {weight.key: units_of(weight.shape, method.pattern, weight.input_axis) for weight in weights}
        gone = {
            weight.key: [int(np.count_nonzero(~self.masks[weight.key].reshape(-1)[unit])) for unit in units[weight.key]]
            for weight in weights
        }
        if method.pattern.full < 1.0:
            for key, counts in gone.items():
                assert counts == [max(0, len(unit) - method.pattern.keep) for unit in units[key]], key
            return
        if not isinstance(method.pattern, Element):
            for key, counts in gone.items():
                assert all(count in (0, len(unit)) for count, unit in zip(counts, units[key])), key
        lost = {key: sum(count > 0 for count in counts) for key, counts in gone.items()}
        if method.allocation == "uniform":
            assert lost == {key: round(method.final * len(units[key])) for key in lost}
        assert sum(lost.values()) == round(method.final * sum(map(len, units.values()))) or (
            method.allocation == "uniform"
        )

    @invariant()
    def zeros_hold(self):
        if self.model is None or not self.masks:
            return
        found = tfprune.get_masks(self.model)
        values = {weight.key: value(weight.variable) for weight in every_weight(self.model)}
        for key, mask in self.masks.items():
            assert not values[key][~mask].any(), f"{key} lost zeros"
            if self.held:
                assert np.array_equal(found[key], mask), f"the mask of {key} changed"


def take(first, count):
    """Takes walks over every kind of network, and prints as JSON what they went through; for a process of its own."""
    Walk.networks = [*NAMED, *["graph"] * len(NAMED)]
    Walk.compiled, Walk.killing, Walk.kills, error = first % 2 == 1, True, 2, ""
    longer = settings(SETTINGS, derandomize=False, max_examples=count, stateful_step_count=7)
    try:
        run_state_machine_as_test(seed(first)(type("Seeded", (Walk,), {})), settings=longer)
    except BaseException as failure:  # a failed assertion, with the steps that led to it
        error = "".join(traceback.format_exception(failure))
    print(json.dumps({"walks": Walk.walks, "stages": Walk.taken, "error": error}))
