"""Structured pruning: which channels to remove, by a score summed over each channel group."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from tfprune.channels import UNITS, ChannelGroup, ChannelGroups, Member, Role, channel_groups, units
from tfprune.deciding import criteria
from tfprune.deciding.amounts import OutOfReachError, is_count, is_share
from tfprune.deciding.costs import Costs
from tfprune.deciding.criterion import Context
from tfprune.deciding.method import BoundMethod, Masks, Method
from tfprune.deciding.selection import smallest
from tfprune.errors import PruningError, listing, nearest
from tfprune.model.copying import unwrapped
from tfprune.model.prunable import PrunableWeight, every_weight, prunable_weights
from tfprune.model.selectors import amount_for
from tfprune.model.tree import check_model, snapshot, wrapped_layers

Keep = dict[str, np.ndarray]

BUDGETS = ("channels", "parameters", "macs", "threshold")
ALLOCATIONS = ("global", "uniform", "hierarchical", "outputs")


class Structured(Method):
    """Removes whole channels, each together with everything that only it uses.

    In `fit` the channels fade out on a schedule: masks lie on every weight of a channel group (kernels, biases, batch
    norms, and the next layers' inputs), so that `shrink(strip_masks(model))` afterwards is the same function.

    Args:
        amount: Share to remove, in [0, 1), of what `budget` counts; number or schedule. For `budget="threshold"`
            the score that a channel must exceed to stay.
        criterion: Score of a channel, summed over the kernels that make it: `"l2"` (default), `"l1"`, `"random"`,
            `"geometric_median"`, `"batch_norm"` (gamma); one that reads data (`"taylor"`, `"fisher"`, `"wanda"`,
            `"activation"`, ...), in `prune` and `plan_shrink`; an object, or a function of the weight.
        allocation: `"global"` (default): the lowest scores of all groups, each relative to the mean of its group;
            `"uniform"`: the same share of every group; `"hierarchical"`: from the last group towards the first, each
            down to `min_channels` before the one before it loses any; `"outputs"`: each group what the model's outputs
            miss least, measured and made up for by `prune(model, method, data, reconstruct=True)` alone, where a count
            of channels holds for heads, widths and channels each; or a mapping of layer or group name to its final
            share (groups not named take the overall amount).
        budget: What the amount counts: `"channels"` (default) of the groups that may lose some, `"parameters"` or
            `"macs"` of the whole model (at least the amount is removed), or `"threshold"`.
        round_to: Channels kept are a multiple of it wherever the group has as many, as SIMD kernels like
            (8, 16). Defaults to `1`.
        min_channels: Channels that every group keeps at least. Defaults to `1`.
        layers: Which layers may lose output channels. Defaults to None: all. A mapping `{layer: share}` prunes those
            alone, each to its own final share.
        unit: What may go: `"head"`, whole attention heads (key and value heads with all query heads that they serve);
            `"width"`, what a block has for itself: hidden units of dense and recurrent layers (those of a gated pair
            together), and the width inside heads; `"channel"`, what flows between blocks: channels of convolutions and
            embeddings, and the width of a residual stream; or several of them, `("head", "width")`. In attention
            written by hand, with heads and their width along one axis of a kernel, only one of them can go: `"head"`
            and `"width"` alone say which. Defaults to None: all.

    Raises:
        PruningError: An amount outside its range or an unknown word; when bound, an amount that `min_channels` and the
            groups that must stay do not allow.

    Example:
        model.fit(x, y, epochs=3, callbacks=[tfprune.StructuredPruning(0.5)])
        small = tfprune.shrink(tfprune.strip_masks(model))
    """

    def __init__(
        self,
        amount: Any,
        criterion: Any = "l2",
        allocation: Any = "global",
        budget: str = "channels",
        round_to: int = 1,
        min_channels: int = 1,
        layers: Any = None,
        unit: Any = None,
    ):
        super().__init__(amount, criterion, layers)
        if budget not in BUDGETS:
            raise PruningError(f"Structured: there is no budget {budget!r}. {nearest(str(budget), BUDGETS)}")
        if not isinstance(allocation, Mapping) and allocation not in ALLOCATIONS:
            raise PruningError(
                f"Structured: there is no allocation {allocation!r}; give one of {listing(ALLOCATIONS)}, or a mapping "
                "of layer name to share."
            )
        for name, value in (("round_to", round_to), ("min_channels", min_channels)):
            if not is_count(value):
                raise PruningError(f"Structured: {name}={value!r} is no number of channels; write {name}=1 or more.")
        self.budget = budget
        self.allocation = dict(allocation) if isinstance(allocation, Mapping) else allocation
        self.round_to = round_to
        self.min_channels = min_channels
        names = units(unit)
        self.unit = unit if names is None or isinstance(unit, str) else list(names)
        if self.amounts_by_layer is not None and budget != "channels":
            raise PruningError(
                f"Structured: shares by layer count channels, so they do not go with budget={budget!r}; "
                'leave the budget at "channels", or give one overall amount.'
            )
        self.check_amounts()

    def check_amount(self, amount: float) -> None:
        if not self.by_share and not 0.0 <= amount < math.inf:
            raise PruningError(f"Structured: {amount} is no threshold; give a number of at least 0.")
        if self.by_share and not is_share(amount):
            raise PruningError(f"Structured: {amount} is no share of {self.budget} in [0, 1); write 0.5 for half.")

    @property
    def by_share(self) -> bool:
        return self.budget != "threshold"

    @property
    def asks_outputs(self) -> bool:
        """Whether the amounts of the groups are those that the model's outputs miss least."""
        return self.allocation == "outputs" and self.by_share and self.amounts_by_layer is None

    def bind(self, model: keras.Model) -> "BoundStructured":
        check_model(model, "prune")
        plain = unwrapped(model) if wrapped_layers(model) else model
        return BoundStructured(self, model, plain, channel_groups(plain, unit=self.unit))

    def channels_to_keep(self, model: keras.Model, groups: ChannelGroups, data: Any = None) -> Keep:
        """The channels of each group that stay at the final amount, for `plan_shrink(model, method)`."""
        check_model(model, "prune")
        bound = BoundStructured(self, model, model, groups)
        bound.inform(model, data)
        return bound.keep(self.final)


class BoundStructured(BoundMethod):
    """A structured method tied to the channel groups of a model.

    Args:
        method: The method.
        model: The model whose weights are scored and masked.
        plain: The same model without wrappers, which was traced.
        groups: Its channel groups.
    """

    method: Structured

    def __init__(self, method: Structured, model: keras.Model, plain: keras.Model, groups: ChannelGroups):
        self.groups = groups
        self.chosen = _chosen_groups(method, model, groups)
        self._weights = {weight.key: weight for weight in every_weight(model)}
        super().__init__(method, self._covered())
        self._costs = Costs(groups, plain)
        self._increases: dict[str, np.ndarray] = {}

    def rank_by(self, increases: Mapping[str, np.ndarray]) -> None:
        """Takes in by how much the error of the model's outputs grows with each further channel that a group loses.

        Args:
            increases: For each group that may lose channels, a rising array with an entry for each of its channels.
        """
        self._increases = dict(increases)

    def check_measured(self) -> None:
        if self.method.asks_outputs and not self._increases:
            raise PruningError(
                'Structured: allocation="outputs" goes by what the outputs of the repaired model lose, which '
                "prune(model, method, data, reconstruct=True) alone measures. Write so, or allocation='global'."
            )

    def _covered(self) -> list[PrunableWeight]:
        """The weights of the chosen groups that masks lie on."""
        members = [member for group in self.chosen.values() for member in group.members]
        covered = {member.key for member in members if member.role is not Role.STATISTIC}
        return [weight for key, weight in self._weights.items() if key in covered]

    def leave(self, keys: set[str]) -> None:
        """Leaves alone every group of channels that one of these weights makes."""
        self.chosen = {
            name: group
            for name, group in self.chosen.items()
            if not any(member.key in keys for member in group.members if member.role is Role.OUTPUT)
        }
        self.weights = self._covered()

    @property
    def scored(self) -> list[PrunableWeight]:
        reads = self.method.criterion.reads
        keys = {member.key for group in self.chosen.values() for member in _read_members(group, reads)}
        return [weight for weight in self.weights if weight.key in keys]

    def decide(self, amount: float, kept: Mapping[str, np.ndarray] | None = None) -> Masks:
        self.method.check_amount(amount)
        return self.masks(self.keep(amount, kept))

    def keep(self, amount: float, kept: Mapping[str, np.ndarray] | None = None) -> Keep:
        """For each group that may lose channels, which of them stay at an amount."""
        scores = self.scores(kept)
        if not self.method.by_share:
            removed = {name: int(np.count_nonzero(values <= amount)) for name, values in scores.items()}
            counts = {name: self._allowed(group, removed[name]) for name, group in self.chosen.items()}
        else:
            counts = self._counts(scores, amount)
        return {name: ~smallest([scores[name]], counts[name])[0] for name in scores}

    def scores(self, kept: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """The score of every channel of each group that may lose some."""
        return {name: self._scores(group, kept) for name, group in self.chosen.items()}

    def masks(self, keep: Keep) -> Masks:
        """The masks that remove the channels of each group that are not to be kept."""
        masks = self.groups.masks(keep)
        return {weight.key: masks.get(weight.key, np.ones(weight.shape, bool)) for weight in self.weights}

    def _scores(self, group: ChannelGroup, kept: Mapping[str, np.ndarray] | None) -> np.ndarray:
        """The score of every channel of a group; minus infinity for those that are removed already."""
        criterion = self.method.criterion
        summed = np.zeros(group.size)
        for member in _read_members(group, criterion.reads):
            weight = snapshot(self._weights[member.key].variable)
            context = Context(member.key, self.extras.get(member.key, {}))
            summed += criteria.channel_scores(criterion, weight, context, member)
        scores = np.asarray(criterion.total(summed), float)
        return scores if kept is None else np.where(removed(group, kept), -np.inf, scores)

    def _counts(self, scores: Mapping[str, np.ndarray], amount: float) -> dict[str, int]:
        """How many channels each group loses."""
        if self.method.amounts_by_layer is not None:
            return self._by_layer(amount, self.method.amounts_by_layer)
        self.check_measured()
        if not self.method.asks_outputs:
            return self._enough(self.chosen, self._ranking(scores), amount)
        if self.method.budget != "channels":
            prices = {name: self._costs.of_channel(self.method.budget, name) for name in self.chosen}
            increases = {name: values / prices[name] for name, values in self._increases.items()}
            return self._enough(self.chosen, self._ranked(increases), amount)
        counts: dict[str, int] = {}
        for unit in UNITS:  # a head is not worth a hidden unit, so each has its own share
            own = [name for name, group in self.chosen.items() if group.unit == unit]
            if own:
                ranked = self._ranked({name: self._increases[name] for name in own})
                counts.update(self._enough(own, ranked, amount))
        return {name: counts[name] for name in self.chosen}

    def _enough(self, names: Iterable[str], ranked: Callable[[int], dict[str, int]], amount: float) -> dict[str, int]:
        """The fewest channels of these groups, in the order of a ranking, whose removal meets the budget."""
        total = sum(self.chosen[name].size for name in names)
        unit = self.method.budget
        whole = float(total) if unit == "channels" else self._costs.total(unit)
        wanted: float = round(amount * total) if unit == "channels" else amount * whole

        def spent(counts: dict[str, int]) -> float:
            return sum(counts.values()) if unit == "channels" else whole - self._costs.left(unit, counts)

        if spent(ranked(total)) < wanted * (1 - 1e-9):
            raise OutOfReachError(
                f"{self.method!r} asks to remove {wanted:,.0f} {unit}, but with min_channels="
                f"{self.method.min_channels} and round_to={self.method.round_to} at most "
                f"{spent(ranked(total)):,.0f} can go. Ask for less, or let more layers lose channels."
            )
        low, high = 0, total
        while low < high:
            middle = (low + high) // 2
            if spent(ranked(middle)) >= wanted * (1 - 1e-9):
                high = middle
            else:
                low = middle + 1
        return ranked(low)

    def _ranking(self, scores: Mapping[str, np.ndarray]) -> Callable[[int], dict[str, int]]:
        """A function from a number of channels to go, overall, to a number for each group."""
        total = sum(group.size for group in self.chosen.values())
        if self.method.allocation == "uniform":
            return lambda number: {
                name: self._allowed(group, round(number / total * group.size)) for name, group in self.chosen.items()
            }
        if self.method.allocation == "hierarchical":
            return self._from_the_last
        return self._ranked({name: relative_scores(scores[name]) for name in self.chosen})

    def _ranked(self, values: Mapping[str, np.ndarray]) -> Callable[[int], dict[str, int]]:
        """The counts of these groups where the channels of the lowest values go, whichever group they are of."""
        names, groups = list(values), [self.chosen[name] for name in values]
        relative = [np.array(each) for each in values.values()]
        for each, group in zip(relative, groups):
            # What a group keeps in any case stands at the end of the ranking.
            each[np.argsort(each, kind="stable")[group.size - self.least(group) :]] = np.inf
        owner = np.repeat(np.arange(len(names)), [group.size for group in groups])
        order = owner[np.argsort(np.concatenate(relative), kind="stable")]

        def counts(number: int) -> dict[str, int]:
            removed = np.bincount(order[:number], minlength=len(names))
            return {name: self._allowed(group, int(removed[i])) for i, (name, group) in enumerate(zip(names, groups))}

        return counts

    def _from_the_last(self, number: int) -> dict[str, int]:
        """The counts where the last groups give all they may before those before them."""
        counts = {}
        for name, group in reversed(self.chosen.items()):
            gone = min(number, group.size - self.least(group))
            counts[name] = self._allowed(group, gone)
            number -= gone
        return {name: counts[name] for name in self.chosen}

    def _by_layer(self, amount: float, amounts: Mapping[str, float]) -> dict[str, int]:
        """The counts where a mapping gives shares by layer or group."""
        counts = {}
        for name, group in self.chosen.items():
            makers = [self._weights[member.key] for member in _read_members(group, "kernels")]
            named = [amounts.get(name), *(amount_for(weight, amounts) for weight in makers)]
            own = max((share for share in named if share is not None), default=None)
            share = amount if own is None else own * self.method.progress(amount)
            counts[name] = self._allowed(group, round(share * group.size))
        return counts

    def least(self, group: ChannelGroup) -> int:
        """How many of its channels a group keeps in any case."""
        return min(group.size, max(self.method.min_channels, 1))

    def _allowed(self, group: ChannelGroup, removed: int) -> int:
        """A number of channels to remove brought to what `min_channels` and `round_to` allow."""
        left, step = group.size - removed, self.method.round_to
        if step > 1 and removed:
            # To the nearest multiple, a half upwards; a group without one below its size stays whole.
            left = min(group.size, max(step, step * math.floor(left / step + 0.5)))
        return group.size - max(left, self.least(group))


def _chosen_groups(method: Structured, model: keras.Model, groups: ChannelGroups) -> dict[str, ChannelGroup]:
    """The groups that may lose channels.

    Raises:
        PruningError: There is none; says why.
    """
    wanted = units(method.unit) or UNITS
    free = {name: group for name, group in groups.free.items() if group.unit in wanted}
    if groups.free and not free:
        others = [unit for unit in UNITS if any(group.unit == unit for group in groups.free.values())]
        raise PruningError(
            f"'{model.name}' has no channels of unit {listing(wanted)} that may go; "
            f"there are some of {listing(others)}."
        )
    names = set(method.layers) if isinstance(method.layers, (list, Mapping)) else set()
    if method.layers is not None and not names <= set(groups):
        chosen = {weight.key for weight in prunable_weights(model, method.layers)}
        free = {
            name: group
            for name, group in free.items()
            if name in names or any(m.key in chosen for m in group.members if m.role is Role.OUTPUT)
        }
    elif names:
        free = {name: group for name, group in free.items() if name in names}
    if isinstance(method.allocation, Mapping):
        unknown = [name for name in method.allocation if name not in groups and not groups.of_layer(name)]
        if unknown:
            raise PruningError(f"Structured: allocation names {unknown[0]!r}. {groups.unknown(unknown[0])}")
    readable = {name: group for name, group in free.items() if _read_members(group, method.criterion.reads)}
    if not readable:
        told = f"; {method.criterion!r} reads the gamma of a batch norm, and they have none" if free else ""
        reasons = sorted({str(group.frozen) for group in groups.values() if group.frozen})
        raise PruningError(
            f"'{model.name}' has no channels that {method!r} may remove{told}. Groups: {listing(groups)}. "
            f"Kept as they are because of: {'; '.join(reasons) or 'nothing'}."
        )
    return readable


def _read_members(group: ChannelGroup, reads: str) -> list[Member]:
    """The members of a group in which a criterion reads a channel's importance."""
    if reads == "gamma":
        return [m for m in group.members if m.role is Role.SCALE and m.key.endswith("/gamma")]
    return [m for m in group.members if m.role is Role.OUTPUT]


def removed(group: ChannelGroup, kept: Mapping[str, np.ndarray]) -> np.ndarray:
    """True for the channels of which masks have removed all that makes them."""
    gone = np.ones(group.size, bool)
    for member in _read_members(group, "kernels"):
        if member.key not in kept:
            return np.zeros(group.size, bool)
        rows = kept[member.key].reshape(member.variable.shape)
        alive = np.asarray(np.moveaxis(rows, member.axis, 0).any(axis=tuple(range(1, rows.ndim))))
        gone &= ~alive[member.positions].reshape(group.size, -1).any(axis=1)
    return gone


def relative_scores(scores: np.ndarray) -> np.ndarray:
    """Scores over the mean of those that are still there, so that groups of any size and scale compare."""
    present = scores[np.isfinite(scores)]
    mean = float(np.mean(present)) if present.size else 0.0
    return scores / mean if mean > 0 else scores.copy()
