"""A line of progress with the time left, on standard error where that is a terminal."""

from typing import Any


class Progress:
    """Counts evaluations; shows nothing where there is no terminal."""

    def __init__(self, description: str):
        from rich.console import Console

        self._bar: Any = None
        self._task: Any = None
        self._description = description
        self._console = Console(stderr=True)
        self._expected: int | None = None

    def expect(self, evaluations: int) -> None:
        """Says how many evaluations there will be at most."""
        self._expected = evaluations

    def evaluated(self, count: int, limit: int | None) -> None:
        """Moves the bar to a number of evaluations."""
        if not self._console.is_terminal:
            return
        if self._bar is None:
            from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(self._description)
            self._bar.start()
        totals = [each for each in (limit, self._expected) if each is not None]
        self._bar.update(self._task, completed=count, total=min(totals) if totals else None)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
