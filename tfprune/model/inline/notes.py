"""What a user has to know of an opened model, in sentences."""

from collections import defaultdict
from collections.abc import Iterator

from tfprune.errors import listing
from tfprune.model.inline.opening import Opened
from tfprune.model.inline.reasons import is_about_sizes


def notes_of(found: Opened) -> Iterator[str]:
    """All of it: what stays closed and why, for which sizes it holds, what it does not do."""
    yield from closed_of(found)
    if found.length:
        yield f"The model takes sequences of {found.length} alone, and the opened one says so of its inputs."
    for spec in found.fixed:
        yield f"The opened model takes '{spec.name}' of shape {spec.shape} alone, that of the example."
    yield from losses_of(found)
    if found.training:
        yield (
            f"{listing(found.training)} asked whether the model is in training; the opened model goes their way of "
            "inference in training too."
        )


def losses_of(found: Opened) -> Iterator[str]:
    """Of losses that the graph does not take as the model does, in sentences."""
    if found.losses:
        yield (
            f"{listing(found.losses)} adds a loss in its call (add_loss), which the opened model does not. Train your "
            "own model, with a pruning callback, and open or shrink it afterwards; or give compile() that loss."
        )
    if found.methods:
        yield (
            f"Your class trains by {listing(found.methods)} of its own, and the opened model is a plain one, which fit "
            "trains by Keras' own. Train your own model, with a pruning callback, and open or shrink it afterwards."
        )
    if found.unmasked:
        yield (
            "fit leaves padded steps of your model's outputs out of the loss, by the mask that they carry; those of "
            "the opened model carry none. Give sample_weight, 0 for padded steps, where you train it further."
        )


def closed_of(found: Opened) -> Iterator[str]:
    """What was not opened, and why; those of one reason in one sentence."""
    if found.unopened:
        yield found.unopened
    by_reason: dict[str, list[str]] = defaultdict(list)
    for path, reason in found.closed.items():
        by_reason[reason].append(path)
    for reason, paths in by_reason.items():
        yield f"{listing(paths)} {'stays' if len(paths) == 1 else 'stay'} closed: {reason}."
    by_sizes = [path for path, reason in found.closed.items() if is_about_sizes(reason)]
    if by_sizes and not found.fixed and not found.inputs.are_fixed:
        yield (
            f"{listing(by_sizes)} may open for fixed sizes, and the model for those alone: give an example, "
            "tfprune.inline(model, data=inputs)."
        )
