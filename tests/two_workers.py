"""One of two workers under MultiWorkerMirroredStrategy, for training/test_devices.py: prints the masks that it has.

The loop is the one of docs/devices.md, for `fit` of Keras 3 does not run there.
"""

import json
import os
import sys

import keras
import numpy as np
import tensorflow as tf
from ways import WAYS, X, Y, network

import tfprune

EPOCHS, BATCH = 3, 4
LOOPS = ("percentile", "rigl")


def looped(strategy, way):
    """Prunes by a loop over the batches that all workers share."""
    with strategy.scope():
        model = network()
        model.optimizer.build(model.trainable_variables)
    loss = keras.losses.MeanSquaredError()
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH).with_options(options)
    data = strategy.experimental_distribute_dataset(data)

    def step(x, y):
        with tf.GradientTape() as tape:
            error = loss(y, model(x, training=True))
        model.optimizer.apply(tape.gradient(error, model.trainable_variables), model.trainable_variables)

    @tf.function
    def train(sample):
        strategy.run(step, args=sample)

    callbacks = keras.callbacks.CallbackList([WAYS[way]()], model=model, epochs=EPOCHS, steps=len(X) // BATCH)
    callbacks.on_train_begin()
    for epoch in range(EPOCHS):
        callbacks.on_epoch_begin(epoch)
        for number, sample in enumerate(data):
            callbacks.on_train_batch_begin(number)
            train(sample)
            callbacks.on_train_batch_end(number)
        callbacks.on_epoch_end(epoch, {})
    callbacks.on_train_end()
    plain = tfprune.strip_masks(model)
    return {key: np.flatnonzero(~mask).tolist() for key, mask in tfprune.get_masks(plain).items()}


def main(number, *addresses):
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": int(number)}}
    os.environ["TF_CONFIG"] = json.dumps(cluster)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    masks = {way: looped(strategy, way) for way in LOOPS}
    with strategy.scope():
        model = network()
    try:
        model.fit(X, Y, batch_size=BATCH, verbose=0)
        error = None
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    print(json.dumps({"replicas": strategy.num_replicas_in_sync, "masks": masks, "fit": error}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
