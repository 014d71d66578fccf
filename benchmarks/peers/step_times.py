"""How long each training step takes, everything included: data, callbacks, the step itself."""

import time
from typing import Any

import numpy as np


def timer(keras: Any) -> Any:
    """A callback that notes when each step ends; list it last."""

    class Timer(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.ends: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.ends.append(time.perf_counter())

    return Timer()


def step_times(keras: Any, model: Any, callbacks: list[Any], batch: int, steps: int, warm_up: int) -> list[float]:
    """Milliseconds of each step of a fresh run on random images, the first `warm_up` left out."""
    generator = np.random.default_rng(0)
    images = generator.random((batch * (steps + warm_up), 28, 28, 1), dtype=np.float32)
    labels = generator.integers(0, 10, len(images))
    clock = timer(keras)
    model.fit(images, labels, batch_size=batch, epochs=1, shuffle=False, verbose=0, callbacks=[*callbacks, clock])
    return [1000.0 * float(step) for step in np.diff(clock.ends[warm_up - 1 :])]
