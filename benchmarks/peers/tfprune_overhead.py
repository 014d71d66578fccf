"""tfprune's side of overhead.py."""

import time

import keras
import networks
import numpy as np

import tfprune
from peers.conversation import answer
from peers.step_times import step_times


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
    """Mask updates of dense layers of the given shape, in the middle of a training run: the hook that `fit` calls."""

    def __init__(self, shape: tuple[int, int], layers: int, allocation: str, count: int):
        kernels = [keras.layers.Dense(shape[1], use_bias=False) for _ in range(layers)]
        model = keras.Sequential([keras.Input((shape[0],)), *kernels])
        model.compile("sgd", "mse")
        self.kernels = [layer.kernel for layer in kernels]
        schedule = tfprune.Linear(0.5, 0.9, begin=0, end=count, every=1)
        self.callback = tfprune.PercentilePruning(schedule, allocation=allocation)
        self.callback.set_model(model)
        self.callback.set_params({"epochs": 1, "steps": count + 1})
        self.generator = np.random.default_rng(0)
        self.callback.on_train_begin()
        self.callback.on_epoch_begin(0)
        self.step = 0

    def __call__(self) -> float:
        """Seconds of the next update; the weights have moved since the last, and their zeros have not."""
        for kernel in self.kernels:
            moved = self.generator.standard_normal(kernel.shape, dtype=np.float32)
            kernel.assign(moved if self.step == 0 else np.where(kernel.numpy() != 0, moved, np.float32(0)))
        begin = time.perf_counter()
        self.callback.on_train_batch_begin(self.step)
        taken = time.perf_counter() - begin
        self.step += 1
        return taken


prepared: dict[str, Updates] = {}


def prepare(count: int, shape: tuple[int, int], layers: int) -> None:
    prepared.clear()
    for allocation in ("uniform", "global", "lamp"):
        prepared[allocation] = Updates(shape, layers, allocation, count)


def update(allocation: str) -> float:
    return prepared[allocation]()


if __name__ == "__main__":
    answer({"steps": steps, "prepare": prepare, "update": update})
