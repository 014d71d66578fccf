"""The one way to show progress: bars with the time left in a terminal, plain lines in a log, nothing when told so.

Work that takes its time is a `stage`. Stages begun inside of one another stand in one display, on standard error, so
that results can be piped. A public function that takes `verbose` opens the display with `shown(verbose)`.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import keras

from tfprune.errors import PruningError, printable

LINE_EVERY = 10.0  # seconds between two lines of a log about one stage

T = TypeVar("T")

_open: ContextVar["Stages | None"] = ContextVar("the display that is open", default=None)


def shown(verbose: int = 1, console: Any = None, transient: bool = True) -> contextlib.AbstractContextManager["Stages"]:
    """Shows the stages of a block, in the display that is open already or in one of its own.

    Args:
        verbose: 0 shows nothing; 1 (default) bars in a terminal and lines elsewhere; 2 lines everywhere.
        console: A `rich.console.Console` to show them on. Defaults to None: standard error.
        transient: Whether what is shown is not to stay: bars go away in the end, and in a log only stages longer than
            10 seconds leave lines. Defaults to True.

    Raises:
        PruningError: Another value of `verbose`.

    Example:
        with tfprune.progress.shown(verbose=0):
            plan = tfprune.plan_shrink(model, tfprune.Structured(0.5, criterion="taylor"), data=(x, y))
    """
    if isinstance(verbose, bool) or verbose not in (0, 1, 2):
        raise PruningError(f"verbose={verbose!r} is unknown; write 0 (nothing), 1 (bars) or 2 (lines).")
    display = _open.get()
    if display is None or not verbose:
        return Stages(console, transient, verbose)
    return contextlib.nullcontext(display)


@contextlib.contextmanager
def stage(description: str, total: int | None = 1) -> Iterator["Stage"]:
    """A stage of the display that is open, or of one of its own, for the length of a block.

    Args:
        description: What is done.
        total: Of how many steps; None where nobody knows.
    """
    with shown() as stages, stages.stage(description, total) as begun:
        yield begun


@contextlib.contextmanager
def outermost_stage(description: str, total: int | None = 1) -> Iterator["Stage"]:
    """A stage like `stage`, which is not shown inside of a display: that tells what its work is done for."""
    if _open.get() is not None:
        yield Stage(total, lambda state: None)
        return
    with stage(description, total) as begun:
        yield begun


@contextlib.contextmanager
def _standard_error() -> Iterator[Any]:
    """Standard error as it is now, also while native code's share of it is held back."""
    stream, own = None, sys.__stderr__
    if own is not None and sys.stderr is own:  # not a notebook's, nor a captured one, which have no descriptor
        with contextlib.suppress(OSError):  # closed, as under some servers
            own.flush()
            stream = os.fdopen(os.dup(own.fileno()), "w", encoding=own.encoding, errors="replace")
    if stream is None:
        yield sys.stderr
        return
    with stream:
        yield stream


class Stages:
    """Shows stages one below the other, each with its bar, the time that is left, and in the end the time it took.

    Args:
        console, transient, verbose: See `shown`.
    """

    def __init__(self, console: Any = None, transient: bool = False, verbose: int = 1):
        self._console, self._transient, self._verbose = console, transient, verbose
        self._bars: Any = None  # of rich, in a terminal
        self._streams = contextlib.ExitStack()

    def __enter__(self) -> "Stages":
        self._token = _open.set(self)
        if self._verbose:
            if self._console is None:
                from rich.console import Console

                self._console = Console(file=self._streams.enter_context(_standard_error()))
            if self._console.is_terminal and self._verbose == 1:
                self._bars = _bars(self._console, self._transient)
                self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        _open.reset(self._token)
        if self._bars is not None:
            self._bars.stop()
        self._streams.close()

    @contextlib.contextmanager
    def stage(self, description: str, total: int | None = 1) -> Iterator["Stage"]:
        """A stage of `total` steps for the length of a block; None where nobody knows how many."""
        if self._bars is not None:
            task = self._bars.add_task(printable(description), total=total, figure="")
            begun = Stage(total, lambda state: self._move_bar(task, state))
            yield begun
            begun.move(begun.total or begun.completed, begun.total or begun.completed)
            self._bars.stop_task(task)
        else:
            log = _Log(description, self._print if self._verbose else lambda line: None)
            begun = Stage(total, log.moved)
            yield begun
            if log.spoke or not self._transient:
                self._print(f"{description}: {log.seconds:.1f} s {begun.figure}".rstrip())

    def _move_bar(self, task: Any, state: "Stage") -> None:
        self._bars.update(task, completed=state.completed, total=state.total, figure=state.figure)

    def _print(self, line: str) -> None:
        if self._verbose:
            self._console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


class Stage:
    """How far a stage is.

    Attributes:
        completed, total: Steps done, and all; None where nobody knows how many.
        figure: What is written behind it.
    """

    def __init__(self, total: int | None, moved: Callable[["Stage"], None]):
        self.completed, self.total, self.figure = 0, total, ""
        self._moved = moved

    def advance(self, steps: int = 1, figure: str | None = None) -> None:
        """Goes on by some steps, and writes a figure behind them."""
        self.figure = self.figure if figure is None else figure
        self.move(self.completed + steps, self.total)

    def counting(self, items: Iterable[T]) -> Iterator[T]:
        """These items, each a step that is done when the next one is asked for."""
        for item in items:
            yield item
            self.advance()

    def move(self, completed: int, total: int | None) -> None:
        """Goes to a place, and says where the end is by now."""
        self.completed, self.total = completed, total
        self._moved(self)


class _Log:
    """Tells from time to time in a line how far a stage is."""

    def __init__(self, description: str, write: Callable[[str], None]):
        self._description, self._write, self._began = description, write, time.monotonic()
        self._due, self.spoke = self._began + LINE_EVERY, False
        self._first: tuple[int, float] | None = None  # steps and seconds of the first move, in which much is compiled

    @property
    def seconds(self) -> float:
        """How long the stage has lasted."""
        return time.monotonic() - self._began

    def moved(self, state: Stage) -> None:
        """Writes a line where the last one is long ago."""
        if self._first is None and state.completed:
            self._first = (state.completed, self.seconds)
        if time.monotonic() < self._due:
            return
        self._due, self.spoke = time.monotonic() + LINE_EVERY, True
        words = f"{self._description}: {state.completed}"
        if state.total and state.completed:
            words += f" of {state.total}{self._left(state)}"
        self._write(f"{words} {state.figure}".rstrip())

    def _left(self, state: Stage) -> str:
        """The time left by the pace behind the first move; by that move alone only where it went a tenth of it."""
        steps, seconds = self._first or (0, 0.0)
        if state.completed == steps:
            if 10 * steps < (state.total or 0):
                return ""
            steps, seconds = 0, 0.0
        rest = max(0, (state.total or 0) - state.completed)
        left = round((self.seconds - seconds) * rest / (state.completed - steps))
        return f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"


def _bars(console: Any, transient: bool) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    narrow = Column(no_wrap=True)
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=narrow),
        BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=40)),
        MofNCompleteColumn(table_column=narrow),
        TimeRemainingColumn(elapsed_when_finished=True, table_column=narrow),
        TextColumn("{task.fields[figure]}", markup=False, table_column=narrow),
        console=console,
        expand=True,
        transient=transient,
        speed_estimate_period=300,  # seconds; a stage may pause while another one runs
    )


class TrainingProgress(keras.callbacks.Callback):
    """Moves stages at every training step, with the accuracy and the share of zeros behind the first."""

    def __init__(self, stage: Stage, *others: Stage):
        super().__init__()
        self.stage, self.others = stage, others

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        for stage in (self.stage, *self.others):
            stage.advance()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        words = {"accuracy": "training accuracy", "sparsity": "zeros"}
        figures = [f"{words[name]} {value:.1%}" for name, value in (logs or {}).items() if name in words]
        self.stage.advance(0, " ".join(figures))
