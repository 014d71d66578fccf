"""Which entries of a linear layer to keep, and the values that make up best for the rest.

All that is needed of the data are second moments: of the features with one another and with the wanted outputs. Their
size depends on the layer alone, so any number of samples takes the same memory.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

# Of the mean second moment: how strongly weights are held to their old values where the data say little about them.
RIDGE = 0.01
# The share of zeros grows over these rounds, with a few steps of repair in between; the last repair goes further.
ROUNDS, ROUND_STEPS, LAST_STEPS = 8, 20, 100
# Rows per feature from which on a choice by the moments holds for other data too; with fewer it fits these alone.
ENOUGH_ROWS = 4

Choice = Callable[[np.ndarray, float], np.ndarray]


class LeastSquares:
    """Least squares for independent groups: `features @ matrix` shall be close to the wanted outputs.

    Args:
        moment: Mean of features times features, `(groups, features, features)`.
        wanted: Mean of features times wanted outputs, `(groups, features, outputs)`.
        matrix: The values before, of the same shape; a ridge holds the solution to them.
        rows: How many rows the means were taken over.
        ridge: Strength of that hold, as a share of the mean second moment. Defaults to `0.01`.
    """

    def __init__(self, moment: np.ndarray, wanted: np.ndarray, matrix: np.ndarray, rows: int, ridge: float = RIDGE):
        self.rows = rows
        diagonal = np.einsum("gii->gi", moment)
        hold = ridge * diagonal.mean(axis=1, keepdims=True) + np.finfo(np.float32).tiny
        # In units in which every feature has a second moment of 1, a weight's size is its effect.
        scale = np.sqrt(diagonal + hold)
        self.scale = scale[:, :, None]
        self.moment = (moment / (self.scale * scale[:, None, :])).astype(np.float32)
        np.einsum("gii->gi", self.moment)[...] = 1.0
        self.wanted = ((wanted + hold[:, :, None] * matrix) / self.scale).astype(np.float32)
        self.start = (matrix * self.scale).astype(np.float32)

    @property
    def supports_choice(self) -> bool:
        """Whether the moments come from enough rows to choose by."""
        return self.rows >= ENOUGH_ROWS * self.moment.shape[-1]

    def fit(self, kept: np.ndarray) -> np.ndarray:
        """The best matrix whose entries are zero where `kept` is False."""
        return self._repaired(self.start, kept, LAST_STEPS) / self.scale

    def loss(self, matrix: np.ndarray) -> float:
        """How far a matrix is from solving the problem, up to a constant."""
        values = matrix * self.scale
        return float(np.sum(values * (self.moment @ values)) - 2 * np.sum(values * self.wanted))

    def choose(self, choice: Choice) -> np.ndarray:
        """Where the best matrix keeps its entries: the least useful go in rounds, the others making up for them.

        Removing an entry leaves an error of its square when no other changes, and of its square over the diagonal of
        the inverse moments when all others make up for it (Hassibi and Stork, "Second order derivatives for network
        pruning: optimal brain surgeon", 1993). Many of the others go too, so its use is taken as the geometric mean.

        Args:
            choice: Takes the use of every entry and a share in (0, 1] of the entries to remove; gives what is kept.
        """
        curvature = np.sqrt(np.einsum("gii->gi", np.linalg.inv(self.moment)))[:, :, None]
        values, kept = self.start, np.ones(self.start.shape, bool)
        for number in range(1, ROUNDS + 1):
            # The last zeros cost most, so they come in small shares.
            kept = choice(values * values / curvature, (number / ROUNDS) ** (1 / 3))
            if number < ROUNDS:
                values = self._repaired(values, kept, ROUND_STEPS)
        return kept

    def _repaired(self, values: np.ndarray, kept: np.ndarray, steps: int) -> np.ndarray:
        mask = kept.astype(np.float32)
        return np.asarray(_conjugate_gradients()(self.moment, self.wanted, mask, values.astype(np.float32), steps))


@cache
def _conjugate_gradients() -> Any:
    """Compiled steps of conjugate gradients over the kept entries, all outputs at once."""
    import tensorflow as tf

    @tf.function(reduce_retracing=True, autograph=False)
    def run(moment: Any, wanted: Any, mask: Any, values: Any, steps: Any) -> Any:
        def step(number: Any, values: Any, residual: Any, direction: Any, square: Any) -> Any:
            image = tf.matmul(moment, direction) * mask
            along = tf.reduce_sum(direction * image, axis=1, keepdims=True)
            # A column that is solved stands still: further steps would follow rounding errors only.
            length = tf.where(square > enough, tf.math.divide_no_nan(square, along), 0.0)
            values += length * direction
            residual -= length * image
            after = tf.reduce_sum(residual * residual, axis=1, keepdims=True)
            direction = residual + tf.math.divide_no_nan(after, square) * direction
            return number + 1, values, residual, direction, after

        values *= mask
        residual = (wanted - tf.matmul(moment, values)) * mask
        square = tf.reduce_sum(residual * residual, axis=1, keepdims=True)
        enough = 1e-12 * tf.reduce_sum(wanted * wanted, axis=1, keepdims=True)
        return tf.while_loop(lambda number, *_: number < steps, step, (0, values, residual, residual, square))[1]

    signature = [tf.TensorSpec((None, None, None), tf.float32)] * 4 + [tf.TensorSpec((), tf.int32)]
    return run.get_concrete_function(*signature)
