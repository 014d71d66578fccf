"""A progress bar for work in several stages, on standard error so that results can be piped."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column


class Stages:
    """Shows stages one below the other, each with its bar, the time that is left, and in the end the time it took.

    Args:
        console: Where to. Where it is no terminal, each finished stage is a line instead.
        transient: Whether the bars go away in the end.
    """

    def __init__(self, console: Console, transient: bool = False):
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=40)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(elapsed_when_finished=True, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[figure]}", table_column=Column(no_wrap=True)),
            console=console,
            expand=True,
            transient=transient,
            speed_estimate_period=300,  # seconds; a stage may pause while another one runs
        )

    def __enter__(self) -> "Stages":
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.console.is_terminal:
            self._progress.stop()

    @contextlib.contextmanager
    def stage(self, description: str, total: int = 1) -> Iterator["Stage"]:
        """A stage of `total` steps for the length of a block."""
        stage = Stage(self._progress, self._progress.add_task(description, total=total, figure=""))
        yield stage
        stage.finish()
        if not self.console.is_terminal:
            task = self._progress.tasks[stage.task]
            self.console.print(f"{description}: {task.elapsed or 0:.1f} s {task.fields['figure']}".rstrip())


class Stage:
    """One bar."""

    def __init__(self, progress: Progress, task: TaskID):
        self._progress, self.task = progress, task

    def advance(self, steps: int = 1, figure: str | None = None) -> None:
        """Moves the bar on, and writes a figure behind it."""
        if figure is not None:
            self._progress.update(self.task, figure=figure)
        self._progress.advance(self.task, steps)

    @property
    def completed(self) -> int:
        """How far the bar is."""
        return int(self._progress.tasks[self.task].completed)

    def move(self, completed: int, total: int | None) -> None:
        """Moves the bar to a place, and says where its end is by now."""
        self._progress.update(self.task, completed=completed, total=total)

    def finish(self) -> None:
        """Fills the bar."""
        self._progress.update(self.task, completed=self._progress.tasks[self.task].total)
        self._progress.stop_task(self.task)


class TrainingProgress(keras.callbacks.Callback):
    """Moves bars at every training step, with the accuracy and the share of zeros behind the first."""

    def __init__(self, stage: Stage, *others: Stage):
        super().__init__()
        self.stage, self.others = stage, others

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        for stage in (self.stage, *self.others):
            stage.advance()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        words = {"accuracy": "accuracy", "sparsity": "zeros"}
        figures = [f"{words[name]} {value:.1%}" for name, value in (logs or {}).items() if name in words]
        self.stage.advance(0, " ".join(figures))
