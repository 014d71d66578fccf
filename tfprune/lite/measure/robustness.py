"""How right two models still are on images that are noisy, blurred, or too bright.

Pruned networks can be as right as before on clean images and less so on worse ones (Hooker et al. 2019, "What Do
Compressed Deep Neural Networks Forget?", arXiv 1911.05248; the disturbances after Hendrycks and Dietterich 2019, arXiv
1903.12261).
"""

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.lite.measure.comparison import Comparison
from tfprune.model.signature import Signature

NOISE, BRIGHTER = 0.1, 0.2  # of the range of the images
Answers = Sequence[np.ndarray]
Shares = dict[str, tuple[float, float]]


class Robustness:
    """Adds up, batch by batch, how right two models are on disturbed images.

    Args:
        model: The first model, which tells how its outputs are read.
        names: The names of its outputs.
        both: Gives what the two models answer to inputs in flat order.
        image: The number of the input that is disturbed.
        strict: Whether labels that fit no decision are an error. Defaults to True.
    """

    def __init__(
        self, model: keras.Model, names: Sequence[str],
        both: Callable[[list[np.ndarray]], tuple[Answers, Answers]], image: int, strict: bool = True,
    ):  # fmt: skip
        self._both, self._image = both, image
        self._comparisons = {kind: [Comparison(model, name, strict) for name in names] for kind in DISTURBANCES}
        self._range: tuple[float, float] | None = None

    def add(self, inputs: Sequence[np.ndarray], truth: Sequence[np.ndarray | None]) -> None:
        """Takes in one batch and the labels of each output."""
        image = inputs[self._image]
        self._range = self._range or (float(image.min()), float(image.max()))
        for kind, disturb in DISTURBANCES.items():
            given = list(inputs)
            given[self._image] = np.clip(disturb(image, *self._range), *self._range).astype(image.dtype)
            for comparison, first, second, labels in zip(self._comparisons[kind], *self._both(given), truth):
                comparison.add(first, second, labels)

    def result(self) -> Shares:
        """Disturbance -> the share of right decisions of both, of the first output that has labels for decisions."""
        found: Shares = {}
        for kind, comparisons in self._comparisons.items():
            for output in (comparison.result() for comparison in comparisons):
                if output.accuracy is not None and output.lite_accuracy is not None:
                    found.setdefault(kind, (output.accuracy, output.lite_accuracy))
        return found


def image_of(signature: Signature) -> int | None:
    """The number of the first input that holds images: floats of (samples, height, width, one or three channels)."""
    for number, given in enumerate(signature.inputs):
        if given.dtype == "float32" and len(given.shape) == 4 and given.shape[-1] in (1, 3):
            return number
    return None


def required_image(signature: Signature) -> int:
    """Like `image_of`; raises where there are none."""
    number = image_of(signature)
    if number is None:
        found = ", ".join(f"'{given.name}' {given.shape} {given.dtype}" for given in signature.inputs)
        raise PruningError(
            "robustness=True disturbs images, float32 inputs of shape (samples, height, width, 1 or 3), and the model "
            f"takes {found}. Leave it out, and verify on disturbed data of your own."
        )
    return number


def robustness_note(shares: Mapping[str, tuple[float, float]], before: str, after: str) -> str:
    """The sentence that a report says about it."""
    told = (f"{kind} {first:.2%} {before}, {second:.2%} {after}" for kind, (first, second) in shares.items())
    return f"Right on disturbed images: {'; '.join(told)}."


def _noisy(image: np.ndarray, low: float, high: float) -> np.ndarray:
    return image + np.random.default_rng(0).normal(0.0, NOISE * (high - low), image.shape)


def _blurred(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """The mean of each pixel and its eight neighbours; the edge goes on outside."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = image.shape[1:3]
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.mean(shifted, axis=0)


def _brighter(image: np.ndarray, low: float, high: float) -> np.ndarray:
    return image + BRIGHTER * (high - low)


DISTURBANCES: dict[str, Callable[[np.ndarray, float, float], np.ndarray]] = {
    "noise": _noisy,
    "blur": _blurred,
    "brightness": _brighter,
}
