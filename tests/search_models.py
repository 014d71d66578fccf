"""A small trained classifier with channels to remove, and its data, for the tests of the searches."""

import keras
import numpy as np

L = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(300, 6, 6, 1)).astype("float32")
Y = (X[:, :3].mean(axis=(1, 2, 3)) > X[:, 3:].mean(axis=(1, 2, 3))).astype("int32")
X_VAL = np.random.default_rng(1).normal(size=(400, 6, 6, 1)).astype("float32")
Y_VAL = (X_VAL[:, :3].mean(axis=(1, 2, 3)) > X_VAL[:, 3:].mean(axis=(1, 2, 3))).astype("int32")


class Batches(keras.utils.PyDataset):
    """The training data in batches; a run can be interrupted after so many of them."""

    def __init__(self, left=None):
        super().__init__()
        self.left = left

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("interrupted")
        return X[30 * index : 30 * index + 30], Y[30 * index : 30 * index + 30]


def classifier():
    """Two convolutions, a batch norm and a dense layer; 20 channels can go."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            L.Conv2D(8, 3, padding="same", use_bias=False, name="conv1"),
            L.BatchNormalization(name="norm"),
            L.ReLU(),
            L.Conv2D(6, 3, activation="relu", name="conv2"),
            L.Flatten(),
            L.Dense(6, activation="relu", name="hidden"),
            L.Dense(2, name="logits"),
        ],
        name="small",
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # compiled code for so small a network takes longer to make than to run
    )
    model.fit(X, Y, epochs=6, verbose=0)
    return model
