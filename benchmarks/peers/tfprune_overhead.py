"""tfprune's side of overhead.py."""

import time

import keras
import networks
import numpy as np

import tfprune
from peers.conversation import answer
from peers.step_times import step_times
from tfprune.training.masks import set_mask


def steps(kind: str, every: int, network: str, batch: int, count: int, warm_up: int) -> list[float]:
    """Step times of a fresh network; `kind` is dense, callback or wrapper."""
    keras.utils.set_random_seed(0)
    keras.backend.clear_session()
    model = networks.compiled(keras, getattr(networks, network)(keras), 1e-3)
    method = tfprune.Percentile(tfprune.Polynomial(0.0, 0.9, begin=0, end=count, every=every))
    callbacks: list[keras.callbacks.Callback] = []
    if kind == "wrapper":
        model, callbacks = tfprune.wrap(model, method), [tfprune.UpdateMasks()]
    elif kind == "callback":
        callbacks = [tfprune.PruningCallback(method)]
    return step_times(keras, model, callbacks, batch, count, warm_up)


class Updates:
    """Mask updates of dense layers of the given shape: the hook that `fit` calls before a training step.

    With `fresh` every update is a first one, from dense weights to 80 % zeros. Without, they follow each other on the
    way from 50 to 90 %, and the weights move in between while their zeros stay.
    """

    def __init__(self, shape: tuple[int, int], layers: int, allocation: str, count: int, fresh: bool):
        kernels = [keras.layers.Dense(shape[1], use_bias=False) for _ in range(layers)]
        model = keras.Sequential([keras.Input((shape[0],)), *kernels])
        model.compile("sgd", "mse")
        self.kernels = [layer.kernel for layer in kernels]
        self.fresh = fresh
        low, high = (0.8, 0.8) if fresh else (0.5, 0.9)
        schedule = tfprune.Linear(low, high, begin=0, end=count, every=1)
        self.callback = tfprune.PercentilePruning(schedule, allocation=allocation)
        self.callback.set_model(model)
        self.callback.set_params({"epochs": 1, "steps": count + 1})
        self.generator = np.random.default_rng(0)
        self.callback.on_train_begin()
        self.callback.on_epoch_begin(0)
        self.step = 0

    def __call__(self) -> float:
        """Seconds of the next update."""
        for kernel in self.kernels:
            kept = np.ones(kernel.shape, bool) if self.fresh or self.step == 0 else kernel.numpy() != 0
            set_mask(kernel, kept)
            kernel.assign(np.where(kept, self.generator.standard_normal(kernel.shape, dtype=np.float32), np.float32(0)))
        begin = time.process_time()
        self.callback.on_train_batch_begin(self.step)
        taken = time.process_time() - begin
        self.step += 1
        return taken


prepared: dict[str, Updates] = {}


def prepare(count: int, shape: tuple[int, int], layers: int, fresh: bool) -> None:
    prepared.clear()
    for allocation in ("uniform", "global", "lamp"):
        prepared[allocation] = Updates(shape, layers, allocation, count, fresh)


def update(allocation: str) -> float:
    return prepared[allocation]()


def read() -> float:
    """Seconds of one reading of all weights, which no update can do without."""
    arrays = [kernel.numpy() for kernel in prepared["uniform"].kernels]
    begin = time.process_time()
    for array in arrays:
        array.sum()
    return time.process_time() - begin


if __name__ == "__main__":
    answer({"steps": steps, "prepare": prepare, "update": update, "read": read})
