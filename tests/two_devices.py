"""Every way of pruning, trained on one device and on two: prints what came of it, for training/test_devices.py.

Devices have to be made before TensorFlow starts, so this is a program of its own. There is one strategy for all of it:
the collectives of a second one in the same process would get in the way of the first's.
"""

import json
from collections import Counter

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from ways import WAYS, X, Y, network

import tfprune
from tfprune.training import run

EPOCHS, BATCH = 3, 4
KINDS = np.eye(3, dtype="float32")[Y.argmax(axis=1)]
OWN = {
    "group lasso": lambda: tfprune.ProximalSparsity(tfprune.Structured(0.5)),
    "quantization": lambda: tfprune.PercentilePruning(0.5),
    "distillation": lambda: tfprune.PercentilePruning(0.5),
}


def classifier(seed):
    keras.utils.set_random_seed(seed)
    hidden = layers.Dense(8, activation="relu", name="hidden")
    model = keras.Sequential([keras.Input((6,)), hidden, layers.Dense(3, activation="softmax", name="head")])
    model.compile(keras.optimizers.SGD(0.05), "categorical_crossentropy")
    return model


def prepared(way, strategy):
    """The model that is pruned, the model that trains, and its targets; what tfprune makes is made out of the scope."""
    with strategy.scope():
        model = classifier(0) if way == "distillation" else network()
        teacher = classifier(1) if way == "distillation" else None
    if way == "wrapper":
        model = tfprune.wrap(model, tfprune.Percentile(0.5))
    if way == "quantization":
        model = tfprune.quantize_aware(model, X, ranges="learned")
    return model, model if teacher is None else tfprune.distill(model, teacher), Y if teacher is None else KINDS


class Collectives(keras.callbacks.Callback):
    """Counts in the graph of a training step what replicas tell each other."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch or hasattr(self, "found"):
            return
        model, strategy = self.model, self.model.distribute_strategy
        targets = KINDS if hasattr(model, "student") else Y
        data = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices((X, targets)).batch(BATCH))
        step = tf.function(lambda sample: strategy.run(model.train_step, args=(sample,)))
        graph = step.get_concrete_function(next(iter(data))).graph
        inner = [node for function in graph.as_graph_def().library.function for node in function.node_def]
        found = Counter(node.op for node in [*graph.as_graph_def().node, *inner])
        self.found = {name: count for name, count in found.items() if "Collective" in name or "Reduce" in name}
        self.found["between devices"] = sum(
            bool(operation.device and given.op.device and operation.device != given.op.device)
            for operation in graph.get_operations()
            for given in operation.inputs
        )


def same(strategy, variables):
    """Whether the replicas of each variable are equal, and that there are as many as replicas."""
    copies = [[part.numpy() for part in strategy.experimental_local_results(each.value)] for each in variables]
    return all(
        len(parts) == strategy.num_replicas_in_sync and all(np.array_equal(parts[0], part) for part in parts)
        for parts in copies
    )


def zeros_of(model):
    return {key: np.flatnonzero(~mask).tolist() for key, mask in tfprune.get_masks(model).items()}


def trained(way, strategy, counted=True):
    """What came of a run, and the values of the weights."""
    model, training, targets = prepared(way, strategy)
    decided = []
    set_mask = run.set_mask
    run.set_mask = lambda variable, kept: (decided.append(variable.name), set_mask(variable, kept))
    count = Collectives()
    try:
        callbacks = [{**WAYS, **OWN}[way](), *([count] if counted else [])]
        history = training.fit(
            X, targets, batch_size=BATCH, epochs=EPOCHS, verbose=0, shuffle=False, callbacks=callbacks
        ).history
    finally:
        run.set_mask = set_mask
    held = [weight.constraint.mask for weight in model.trainable_weights if hasattr(weight.constraint, "mask")]
    masks, stripped = (zeros_of(each) for each in (model, tfprune.strip_masks(model)))
    result = {
        "held": len(held),
        "equal": same(strategy, [*model.trainable_weights, *held]),
        "masks": masks,
        "stripped": stripped == {key: zeros for key, zeros in masks.items() if zeros and key.endswith("kernel")},
        "sparsity": history["sparsity"],
        "decided": len(decided),
    }
    return result, [weight.numpy() for weight in model.trainable_weights], getattr(count, "found", None)


def plain_collectives(strategy, way):
    """The collectives of a step without a callback of tfprune."""
    count = Collectives()
    _, training, targets = prepared(way, strategy)
    training.fit(X[:BATCH], targets[:BATCH], batch_size=BATCH, verbose=0, callbacks=[count])
    return count.found


def error_of(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def compiled_with(strategy, callbacks, steps=1, **optimizer):
    with strategy.scope():
        model = network()
        model.compile(keras.optimizers.SGD(0.05, **optimizer), "mse", steps_per_execution=steps)
    model.fit(X, Y, batch_size=BATCH, verbose=0, callbacks=callbacks)


def ranges_of_replicas(strategy):
    """Names of the variables in which replicas differ after training with ranges that follow the batches."""
    with strategy.scope():
        model = network()
    model = tfprune.quantize_aware(model, X)
    model.fit(X, Y, batch_size=BATCH, verbose=0, callbacks=[tfprune.PercentilePruning(0.5)])
    return sorted({weight.name for weight in model.weights if not same(strategy, [weight])})


def main():
    device = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
    two, one = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), tf.distribute.get_strategy()
    results = {}
    for way in [*WAYS, *OWN]:
        alone, expected, _ = trained(way, one, counted=False)
        result, values, collectives = trained(way, two)
        apart = max(float(np.abs(a - b).max()) for a, b in zip(values, expected, strict=True))
        results[way] = {"one": alone, "two": result, "apart": apart, "collectives": collectives}
    plain = {way: plain_collectives(two, way) for way in ("percentile", "quantization", "distillation")}
    accumulation = {"gradient_accumulation_steps": 2}
    told = {
        "accumulation": error_of(lambda: compiled_with(two, [tfprune.PercentilePruning(0.5)], **accumulation)),
        "accumulation of Keras": error_of(lambda: compiled_with(two, [], **accumulation)),
        "several steps of Keras": error_of(lambda: compiled_with(two, [], steps=2)),
    }
    ranges = ranges_of_replicas(two)
    print(json.dumps({"ways": results, "plain": plain, "told": told, "ranges": ranges}))


if __name__ == "__main__":
    main()
