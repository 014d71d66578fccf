"""Iterative pruning: train, remove a part, retrain, and again, with the weights wound back where wanted."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tfprune.deciding import methods
from tfprune.deciding.method import BoundMethod, Method
from tfprune.deciding.schedules import Constant, Moment, Piecewise
from tfprune.errors import PruningError
from tfprune.training.callbacks import PruningCallback


class IterativePruning(PruningCallback):
    """Prunes in rounds while `fit` trains: each removes the same share of what is left, and is followed by retraining.

    The run is cut into `rounds + 1` equal parts: the first trains the dense model, each other begins with a round of
    pruning. So `fit(epochs=rounds + 1)` retrains one epoch in each round. The last round reaches the amount exactly.

    With `rewind`, every round takes what is kept back to its values at that moment of the run, with the state of the
    optimizer: the search for a lottery ticket.

    Args:
        method: `Percentile(0.9)`, `Structured(0.5)`, ..., with a number as amount; its config, or a sparsity.
        rounds: How many, at least 1. Defaults to `5`.
        rewind: None (default): weights go on from where they are. An int (optimizer step) or a float in [0, 1] (share
            of the run), not after the first round of pruning: `0.0` winds back to the beginning, as Frankle and Carbin
            do; somewhat later is better for large networks.
        learning_rate: None (default): the optimizer's own. A function or a Keras `LearningRateSchedule` that takes the
            number of steps since the last round, so that every round has a warm start or a decay of its own.

    Raises:
        PruningError: A method whose amount is no share or no number, `rounds` below 1; when `fit` begins, a rewind that
            comes after the first round, or an optimizer whose learning rate cannot be set.

    Frankle and Carbin, "The lottery ticket hypothesis", 2019 (https://arxiv.org/abs/1803.03635); Renda et al.,
    "Comparing rewinding and fine-tuning in neural network pruning", 2020 (https://arxiv.org/abs/2003.02389).

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    >>> model.compile("sgd", "mse")
    >>> callback = IterativePruning(0.75, rounds=2, rewind=0.0)
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 8)), epochs=3, verbose=0, callbacks=[callback])
    >>> history.history["sparsity"]
    [0.0, 0.5, 0.75]
    """

    def __init__(
        self,
        method: Any,
        rounds: int = 5,
        rewind: Moment | None = None,
        learning_rate: Callable[[int], Any] | None = None,
    ):
        method = methods.get(method)
        if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
            raise PruningError(f"IterativePruning: rounds={rounds!r} is no number of rounds; write rounds=5.")
        if learning_rate is not None and not callable(learning_rate):
            raise PruningError(
                f"IterativePruning: learning_rate={learning_rate!r} is no function of the step; a fixed rate belongs "
                "to the optimizer, a policy is written like keras.optimizers.schedules.CosineDecay(1e-3, 500)."
            )
        share = isinstance(rewind, float) and 0.0 <= rewind <= 1.0
        step = isinstance(rewind, int) and not isinstance(rewind, bool) and rewind >= 0
        if rewind is not None and not share and not step:
            raise PruningError(
                f"IterativePruning: rewind={rewind!r} is no moment; give an int (step) or a float in [0, 1] (share of "
                "the run)."
            )
        _check_share(method)
        super().__init__(method)
        self.rounds, self.rewind, self.learning_rate = rounds, rewind, learning_rate
        self._rewind_step: int | None = None
        self._state: list[np.ndarray] | None = None
        self._round_began = 0

    def bound_methods(self) -> list[BoundMethod]:
        (bound,) = super().bound_methods()
        bound.method = self._in_rounds(self._total_steps())
        return [bound]

    def _in_rounds(self, steps: int) -> Method:
        """The method with a schedule of rounds over a run of so many steps."""
        if steps <= self.rounds:
            raise PruningError(
                f"IterativePruning: a run of {steps} steps has no room for {self.rounds} rounds of retraining; train "
                f"for at least {self.rounds + 1} steps."
            )
        final = self.method.amount
        amounts: dict[Moment, float] = {
            number * steps // (self.rounds + 1): 1.0 - (1.0 - final) ** (number / self.rounds)
            for number in range(1, self.rounds)
        }
        return self.method.with_amount(Piecewise({**amounts, self.rounds * steps // (self.rounds + 1): final}))

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        self._state, self._round_began = None, 0
        if self.learning_rate is not None and not isinstance(self.model.optimizer.learning_rate, keras.Variable):
            raise PruningError(
                f"IterativePruning: the optimizer of '{self.model.name}' has a learning-rate schedule of its own, "
                "beside which learning_rate= has no place; compile with a number."
            )
        if self.rewind is not None:
            run = self._runs[0]
            total = run.schedule.total_steps
            self._rewind_step = Constant(0.0, begin=self.rewind, end=self.rewind).bind(total).begin
            if self._rewind_step > run.schedule.begin:
                raise PruningError(
                    f"IterativePruning: rewind={self.rewind} is step {self._rewind_step} of this run, after the first "
                    f"round of pruning at step {run.schedule.begin}; write an earlier moment, such as 0.0."
                )

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        step = (self._epoch * self.params["steps"] + batch) // self._accumulation()
        if self._rewind_step is not None and self._state is None and step >= self._rewind_step:
            if self._runs[0].done >= 0 or step >= self._runs[0].schedule.begin > self._rewind_step:
                raise PruningError(
                    f"IterativePruning: this run goes on at step {step}, so the weights of step {self._rewind_step} to "
                    "rewind to are not known. Begin the run anew."
                )
            self._state = [np.array(keras.ops.convert_to_numpy(variable)) for variable in self._variables()]
        before = [run.done for run in self._runs]
        super().on_train_batch_begin(batch, logs)
        if [run.done for run in self._runs] != before:
            self._begin_round(step)
        if self.learning_rate is not None:
            self.model.optimizer.learning_rate = float(self.learning_rate(step - self._round_began))

    def _begin_round(self, step: int) -> None:
        self._round_began = step
        if self._state is not None:
            for variable, value in zip(self._variables(), self._state):
                variable.assign(value)
            for run in self._runs:
                run.apply()

    def _variables(self) -> list[keras.Variable]:
        return [*self.model.weights, *self.model.optimizer.variables]


def _check_share(method: Method) -> None:
    if not method.by_share or not isinstance(method.amount, float):
        raise PruningError(
            f"IterativePruning: {method!r} has no share to divide into rounds; write Percentile(0.9) or "
            "Structured(0.5), with a number."
        )
