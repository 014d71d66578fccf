"""A bar with the time left while a search evaluates, on standard error where that is a terminal."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

_shown_in: ContextVar[Any] = ContextVar("stage of a longer road that a search is shown in", default=None)


class Progress:
    """Counts evaluations; shows nothing where there is no terminal."""

    def __init__(self, description: str):
        self._description = description
        self._stage: Any = _shown_in.get()
        self._bars = contextlib.ExitStack()
        self._expected: int | None = None
        self._is_shown = self._stage is not None or _is_terminal()

    def expect(self, evaluations: int) -> None:
        """Says how many evaluations there will be at most."""
        self._expected = evaluations

    def evaluated(self, count: int, limit: int | None) -> None:
        """Moves the bar to a number of evaluations."""
        if not self._is_shown:
            return
        if self._stage is None:
            from rich.console import Console

            from tfprune.progress import Stages

            stages = self._bars.enter_context(Stages(Console(stderr=True), transient=True))
            self._stage = self._bars.enter_context(stages.stage(self._description))
        totals = [each for each in (limit, self._expected) if each is not None]
        self._stage.move(count, min(totals) if totals else None)

    def close(self) -> None:
        """Takes the bar away."""
        self._bars.close()


@contextlib.contextmanager
def shown_in(stage: Any) -> Iterator[None]:
    """Searches move the bar of this stage in place of one of their own, for the length of a block."""
    token = _shown_in.set(stage)
    try:
        yield
    finally:
        _shown_in.reset(token)


def _is_terminal() -> bool:
    from rich.console import Console

    return Console(stderr=True).is_terminal
