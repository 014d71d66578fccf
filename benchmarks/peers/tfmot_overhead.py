"""tfmot's side of overhead.py."""

import time

import networks
import numpy as np
import tensorflow_model_optimization as tfmot  # first: it decides that tf.keras is Keras 2

import tensorflow as tf  # isort: skip
import tf_keras

from peers.conversation import answer
from peers.step_times import step_times

sparsity = tfmot.sparsity.keras


def steps(kind: str, every: int, network: str, batch: int, count: int, warm_up: int) -> list[float]:
    """Step times of a fresh network; `kind` is dense or pruned."""
    tf_keras.utils.set_random_seed(0)
    tf_keras.backend.clear_session()
    model = getattr(networks, network)(tf_keras)
    callbacks = []
    if kind == "pruned":
        schedule = sparsity.PolynomialDecay(0.0, 0.9, begin_step=0, end_step=count, frequency=every)
        model = sparsity.prune_low_magnitude(model, pruning_schedule=schedule)
        callbacks = [sparsity.UpdatePruningStep()]
    model = networks.compiled(tf_keras, model, 1e-3)
    return step_times(tf_keras, model, callbacks, batch, count, warm_up)


class Updates:
    """Mask updates of dense layers of the given shape: what the wrappers do in a training step in which they prune.

    The choice of the mask and the product of weight and mask, compiled as in the training step. With `fresh` every
    update is a first one, from dense weights to 80 % zeros. Without, they follow each other on the way from 50 to 90 %,
    and the weights move in between while their zeros stay.
    """

    def __init__(self, shape: tuple[int, int], layers: int, count: int, fresh: bool):
        kernels = [tf_keras.layers.Dense(shape[1], use_bias=False) for _ in range(layers)]
        model = tf_keras.Sequential([tf_keras.Input((shape[0],)), *kernels])
        low, high = (0.8, 0.8) if fresh else (0.5, 0.9)
        schedule = sparsity.PolynomialDecay(low, high, begin_step=0, end_step=count, power=1, frequency=1)
        pruned = sparsity.prune_low_magnitude(model, pruning_schedule=schedule)
        self.fresh = fresh
        self.wrappers = [layer for layer in pruned.layers if hasattr(layer, "pruning_obj")]
        self.generator = np.random.default_rng(0)
        self.step = 0

        @tf.function
        def compiled() -> None:
            for wrapper in self.wrappers:
                wrapper.pruning_obj.conditional_mask_update()
                wrapper.pruning_obj.weight_mask_op()

        self.compiled = compiled
        compiled()  # traces; at step -1 nothing fires

    def __call__(self) -> float:
        """Seconds of the next update."""
        for wrapper in self.wrappers:
            kernel = wrapper.layer.kernel
            kept = self.fresh or self.step == 0 or kernel.numpy() != 0
            kernel.assign(np.where(kept, self.generator.standard_normal(kernel.shape, dtype=np.float32), np.float32(0)))
            wrapper.pruning_step.assign(self.step)
        begin = time.process_time()
        self.compiled()
        taken = time.process_time() - begin
        self.step += 1
        return taken


prepared: list[Updates] = []


def prepare(count: int, shape: tuple[int, int], layers: int, fresh: bool) -> None:
    prepared[:] = [Updates(shape, layers, count, fresh)]


def update() -> float:
    return prepared[0]()


def version() -> dict[str, str]:
    return {"tfmot": tfmot.__version__, "tf_keras": tf_keras.__version__}


if __name__ == "__main__":
    answer({"steps": steps, "prepare": prepare, "update": update, "version": version})
