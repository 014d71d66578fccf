"""Targets in other words than a share: how much to prune for so many parameters, multiplications or bytes."""

from collections.abc import Callable
from typing import Any

import keras

from tfprune.channels import shrink
from tfprune.deciding import methods
from tfprune.deciding.amounts import OutOfReachError
from tfprune.deciding.method import Method
from tfprune.deciding.methods import Percentile
from tfprune.deciding.structured import Structured
from tfprune.errors import PruningError, listing
from tfprune.lite.convert.convert import convert
from tfprune.model.summary import summary
from tfprune.model.tree import check_model
from tfprune.oneshot.prune import prune
from tfprune.training.strip import strip_masks

MEASURES = ("parameters", "macs", "gzip_bytes", "sparse_bytes")
# Shares are tried on this grid, by halving: 12 prunings, and 12 conversions for a target in bytes.
STEPS = 4096


def method_for(
    model: keras.Model,
    method: Any,
    *,
    parameters: int | None = None,
    macs: int | None = None,
    gzip_bytes: int | None = None,
    sparse_bytes: int | None = None,
    data: Any = None,
    **conversion: Any,
) -> Method:
    """The method with the smallest amount that brings a model within a target; for `prune` and for `fit`.

    The amount is found by pruning at once; training changes weights but not the count of zeros or channels, so a target
    in parameters or multiply-accumulates is met by `fit` too, and one in bytes but for what compression makes of other
    values.

    Args:
        model: A built Keras 3 model; it is left as it is.
        method: `Percentile(0.5)` or `Structured(0.5)` with all but the amount as wanted; the amount is not looked at.
        parameters: At most so many: not zero for `Percentile`, left after `shrink` for `Structured`.
        macs: At most so many multiply-accumulates for one sample; for `Structured`, after `shrink`.
        gzip_bytes: At most so many bytes of the `.tflite` file compressed by gzip, as app stores send it.
        sparse_bytes: At most so many bytes of the `.tflite` file with zeros stored sparsely (`convert(sparse=True)`),
            in float32 or float16.
        data: For a criterion that needs data.
        **conversion: Arguments of `convert` for a target in bytes: `quantization`, `representative_data`, `io`.

    Returns:
        A copy of the method with its amount, a multiple of 1 / 4096.

    Raises:
        PruningError: Not exactly one target, one that is out of reach (told with the smallest reachable), multiply-
            accumulates for a method that leaves them as they are, or a method without a share.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, use_bias=False)])
    >>> round(method_for(model, Percentile(0.5), parameters=16).final, 2)
    0.74
    """
    check_model(model, "prune")
    method = methods.get(method)
    targets = dict(zip(MEASURES, (parameters, macs, gzip_bytes, sparse_bytes)))
    given = {name: target for name, target in targets.items() if target is not None}
    if len(given) != 1:
        raise PruningError(f"method_for takes one target, not {listing(given)}; give one of {listing(MEASURES)}.")
    ((name, target),) = given.items()
    _check(method, name)

    def measured(step: int) -> float:
        return _measure(model, method.with_amount(step / STEPS), name, data, conversion)

    return method.with_amount(_smallest(measured, target, name, method) / STEPS)


def _check(method: Method, name: str) -> None:
    if not method.by_share or getattr(getattr(method, "pattern", None), "full", 1.0) < 1.0:
        raise PruningError(
            f"method_for: {method!r} has no share that could be varied; write Percentile(0.5) or Structured(0.5)."
        )
    if name == "macs" and isinstance(method, Percentile):
        raise PruningError(
            "method_for: zeros among weights leave the multiply-accumulates of a dense kernel as they are; write "
            "Structured(0.5), which removes channels."
        )


def _measure(model: keras.Model, method: Method, name: str, data: Any, conversion: dict[str, Any]) -> float:
    plain = strip_masks(prune(model, method, data))
    if isinstance(method, Structured) and method.final > 0:
        plain = shrink(plain)
    if name in ("parameters", "macs"):
        found = summary(plain)
        if name == "macs" and found.macs is None:
            raise PruningError(f"method_for: the multiply-accumulates of '{model.name}' are not known.")
        return float(found.macs or 0) if name == "macs" else float(found.parameters - found.zeros)
    lite = convert(plain, sparse=name == "sparse_bytes", **conversion)
    return float(lite.size if name == "sparse_bytes" else lite.gzip_size)


def _smallest(measured: Callable[[int], float], target: float, name: str, method: Method) -> int:
    """The fewest steps of the grid that meet the target."""
    low, high, best = 0, STEPS - 1, None
    reached: dict[int, float] = {}
    while low <= high:
        middle = (low + high) // 2
        try:
            reached[middle] = measured(middle)
        except OutOfReachError:  # of less there may be enough; any other error is the same for all amounts
            high = middle - 1
            continue
        if reached[middle] <= target:
            best, high = middle, middle - 1
        else:
            low = middle + 1
    if best is None:
        smallest = min(reached.values(), default=float("nan"))
        raise PruningError(
            f"method_for: {target:,} {name.replace('_', ' ')} are out of reach of {method!r}; the smallest that it "
            f"reached is {smallest:,.0f}."
        )
    return best
