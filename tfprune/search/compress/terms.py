"""What a compression is told, checked, as one value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfprune.errors import PruningError, listed, nearest
from tfprune.model.bounds import bound_of
from tfprune.search.compress.goals import MEASURED
from tfprune.search.settings import check_count

COUNTED = ("macs", "parameters", "bytes", "gzip_bytes")
TARGETS = (*COUNTED, *MEASURED)


@dataclass(frozen=True)
class Terms:
    """All that a compression is told but for model, data and folder; see `compress`.

    Raises:
        PruningError: One of them is wrong.
    """

    max_drop: float | str | Mapping[str, float | str]
    target: Any
    epochs: int
    sparsities: Sequence[float] | None
    distill: bool
    batch_size: int
    seed: int
    metric: Any = None
    mode: Any = None
    workers: int = 1

    def __post_init__(self) -> None:
        for bound in self.max_drop.values() if isinstance(self.max_drop, Mapping) else [self.max_drop]:
            bound_of(bound)
        for sparsity in () if self.sparsities is None else listed("sparsities", self.sparsities, "(0.8, 0.6)"):
            if not _is_number(sparsity) or not 0.0 < sparsity < 1.0:
                raise PruningError(f"sparsities: {sparsity!r} is no share of zeros in (0, 1); write (0.8, 0.6).")
        self._check_target()
        check_count("epochs", self.epochs, 1)
        check_count("batch_size", self.batch_size, 1)
        check_count("workers", self.workers, 1)

    @property
    def goal(self) -> dict[str, float]:
        """The cost and the share to reach; empty for the smallest."""
        return {} if self.target == "smallest" else {name: float(share) for name, share in self.target.items()}

    def header(self) -> list[Any]:
        """The terms as plain values for the folder; who evaluates is no matter."""
        told = {name: value for name, value in vars(self).items() if name not in ("metric", "mode", "workers")}
        return [list(value) if isinstance(value, tuple) else value for value in told.values()]

    def _check_target(self) -> None:
        target = self.target
        if target == "smallest":
            return
        if not isinstance(target, Mapping) or len(target) != 1:
            raise PruningError(
                f"target={target!r} is unknown; write 'smallest', or one share such as {{'latency': 0.5}}."
            )
        name, share = next(iter(target.items()))
        if name not in TARGETS:
            raise PruningError(f"target names {name!r}. {nearest(str(name), TARGETS)}")
        if not _is_number(share) or not 0.0 < share < 1.0:
            raise PruningError(f"target: {share!r} is no share of the unpruned model's {name} in (0, 1); write 0.5.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
