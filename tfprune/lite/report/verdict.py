"""Whether a smaller model is safe to ship, from what was measured of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tfprune.lite.measure.verify import Verification
from tfprune.lite.report.judged import Judged

AGREEMENT = 0.98  # the least share of equal answers of a file and its Keras model


@dataclass(frozen=True)
class Verdict:
    """What a model saves, what it costs, and whether it is safe to ship.

    Args:
        answer: `"yes"`, `"no"` or `"not shown"`.
        reasons: Why, a sentence each.
    """

    answer: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"Safe to ship: {self.answer}. " + " ".join(self.reasons)


def verdict_of(judged: Judged | None, last: str, file: Verification | None, max_drop: float) -> Verdict:
    """The verdict on the last step of the way to a device.

    Args:
        judged: The decisions of all models; None where there were none to judge.
        last: The name of the model that would be shipped.
        file: How the file compares with its Keras model; None without a file.
        max_drop: The loss of accuracy that is bearable, in [0, 1).
    """
    broken = [] if file is None else file.broken(min_agreement=AGREEMENT if file.agreement is not None else None)
    against = [f"In the file {sentence}." for sentence in broken]
    if judged is None:
        return _verdict(against, ["No labelled data came, so nothing is known of the accuracy."])
    if len(judged.names) == 1 or judged.names[0] == last:
        return _verdict(against, ["There is no baseline to compare with."])
    mean, low, high = judged.change(last)
    measured = (
        f"Accuracy changes by {100 * mean:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f} with 95 % confidence, "
        f"{judged.decisions:,} decisions)"
    )
    bound = f"{100 * max_drop:g} point{'s' * (max_drop != 0.01)}"
    if high < -max_drop:
        return _verdict([*against, f"{measured}: more than {bound} are lost."], [])
    if low < -max_drop:
        return _verdict(against, [f"{measured}: whether less than {bound} are lost takes more samples to tell."])
    return _verdict(against, [], f"{measured}: less than {bound} are lost.")


def _verdict(against: Sequence[str], open_questions: Sequence[str], good: str = "") -> Verdict:
    if against:
        return Verdict("no", tuple(against))
    if open_questions:
        return Verdict("not shown", tuple(open_questions))
    return Verdict("yes", (good,))
