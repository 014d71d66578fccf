"""EarlyStopping beside pruning: accuracy of the epoch that comes back against the same run without EarlyStopping.

A small CNN on 3,000 images of Fashion-MNIST, 80 % of the weights gone, five seeds, by callback and by wrapper:
    python benchmarks/early_stopping.py
"""

import keras
import numpy as np

import tfprune


def dense(seed, x, y):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"])
    model.fit(x, y, epochs=6, batch_size=64, verbose=0)
    return model


def run(seed, way, stops, data):
    x, y, x_test, y_test = data
    model, pruning = dense(seed, x, y), tfprune.PercentilePruning(0.8)
    if way == "wrapper":
        model, pruning = tfprune.wrap(model, tfprune.Percentile(0.8)), tfprune.UpdateMasks()
    elif way == "structured":
        pruning = tfprune.StructuredPruning(0.5)
    stop = keras.callbacks.EarlyStopping("val_accuracy", patience=3, restore_best_weights=True)
    callbacks = [pruning, stop] if seed % 2 else [stop, pruning]
    model.fit(
        x,
        y,
        epochs=8,
        batch_size=64,
        verbose=0,
        validation_data=(x_test, y_test),
        callbacks=callbacks if stops else [pruning],
    )
    plain = tfprune.strip_masks(model)
    return 100 * plain.evaluate(x_test, y_test, verbose=0)[1], tfprune.summary(plain).sparsity


def main():
    (x, y), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()
    images = [(part[..., None] / 255).astype(np.float32) for part in (x[:3000], x_test[:2000])]
    data = images[0], y[:3000], images[1], y_test[:2000]
    for way in ("callback", "wrapper", "structured"):
        for seed in range(5):
            without, with_it = run(seed, way, False, data), run(seed, way, True, data)
            print(
                f"{way} seed {seed}: without {without[0]:.1f} %, with {with_it[0]:.1f} %, zeros {with_it[1]:.2%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
