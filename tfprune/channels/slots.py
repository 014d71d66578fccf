"""The optimizer's state after shrinking: every slot loses the entries that its weight lost."""

from collections.abc import Collection, Sequence
from typing import Any

import keras

from tfprune.channels.sizes import Sizes
from tfprune.errors import PruningError


def carry_slots(old: Any, new: Any, sizes: Sizes, gone: Collection[int] = ()) -> None:
    """Copies the state of the old model's optimizer to the new one's, cut as the weights were.

    Args:
        old: Compiled model whose optimizer has state.
        new: Its shrunk copy, compiled alike.
        sizes: What is left of every weight.
        gone: Ids of the weights that the new model does not have.

    Raises:
        PruningError: the model is not compiled, or a slot cannot be told to belong to one weight (Adafactor keeps sums
            over rows and columns).
    """
    if not (old.compiled and new.compiled) or old.optimizer is None:
        raise PruningError(
            f"optimizer=True needs a compiled model; '{old.name}' is not compiled. Call compile(), or leave it out."
        )
    source, target = old.optimizer, new.optimizer
    if not source.built:
        return  # no step was taken, so there is no state
    if not target.built:
        target.build(new.trainable_variables)
    owned = zip(source.variables, _owners(list(source.variables), old.trainable_variables))
    slots = [(slot, owner) for slot, owner in owned if id(owner) not in gone]
    fresh = list(target.variables)
    if len(slots) != len(fresh):
        raise PruningError(
            f"The optimizer of '{old.name}' holds {len(slots)} variables, that of its smaller copy {len(fresh)}; "
            "was it built for other weights? Leave out optimizer=True."
        )
    for (slot, owner), copy in zip(slots, fresh):
        value = sizes.cut(owner, keras.ops.convert_to_numpy(slot))
        if tuple(value.shape) != tuple(copy.shape):
            raise PruningError(
                f"Slot '{slot.path}' of {type(source).__name__} has shape {tuple(slot.shape)} and cannot be cut like "
                "the weight it belongs to. Leave out optimizer=True to start the optimizer afresh."
            )
        copy.assign(value)


def _owners(slots: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
    """For each optimizer variable the weight it belongs to, None for counters and rates.

    Keras names a slot after the path of its weight. Weights of one path (in nested models) come in the same order
    in every kind of slot.
    """
    owners: list[Any] = []
    used: dict[tuple[str, int], bool] = {}
    for slot in slots:
        name = slot.path.split("/")[-1]
        found = None
        candidates = [v for v in variables if name.startswith(v.path.replace("/", "_") + "_")]
        if candidates:
            longest = max(len(v.path) for v in candidates)
            for variable in candidates:
                kind = name[len(variable.path) :]
                if len(variable.path) == longest and not used.get((kind, id(variable))):
                    found = variable
                    used[kind, id(variable)] = True
                    break
        owners.append(found)
    return owners
