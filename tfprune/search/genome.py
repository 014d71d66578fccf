"""What a candidate of a search is made of: a bit per channel, a bit per weight or block, or an amount per layer.

A genome turns its genes into masks, and counts what is left of the model without building it.
"""

import contextlib
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.channels import channel_groups, has_rule, kernel_macs
from tfprune.deciding import criteria, patterns
from tfprune.deciding.costs import Costs
from tfprune.deciding.criterion import Context
from tfprune.deciding.structured import BoundStructured, Structured, relative_scores
from tfprune.errors import PruningError, nearest
from tfprune.model.inline import opened
from tfprune.model.prunable import PrunableWeight, every_weight, prunable_weights
from tfprune.model.tree import as_array, weight_keys

Genes = tuple[float, ...]
Keep = dict[str, np.ndarray]
KINDS = ("channels", "layers", "weights")
# More genes than this are more than a search of some thousand evaluations can say anything about.
MOST_WEIGHT_GENES = 20_000
SEEDED_AMOUNTS = (0.5, 0.25, 0.75, 0.1, 0.4, 0.6, 0.9, 0.3, 0.7, 0.2, 0.8)


class Genome:
    """The genes of a model's candidates.

    Attributes:
        kind: `"channels"`, `"layers"` or `"weights"`.
        size: The number of genes.
        is_bits: Whether a gene is 0 (removed) or 1 (kept); else it is the share that is removed.
        ranks: For bits, the score of each gene's channel or unit over the mean of its group or weight.
    """

    ranks: np.ndarray

    kind = ""
    size = 0
    is_bits = True

    @property
    def dense(self) -> Genes:
        """The genes of the model with nothing removed."""
        return (1,) * self.size if self.is_bits else (0.0,) * self.size

    def guided(self, generator: random.Random) -> Genes:
        """Genes that remove a random share of each part, what scores lowest first."""
        return self.at({name: generator.random() for name in self.parts})

    def drawn(self, generator: random.Random) -> Genes:
        """Random genes: first how much is removed, evenly from nothing to nearly all, then which."""
        share = generator.random()
        if self.is_bits:
            return self.repaired([int(generator.random() >= share) for _ in range(self.size)])
        return self.repaired([generator.random() for _ in range(self.size)])

    def seeds(self) -> list[Genes]:
        """Genes that a criterion alone would choose, at several amounts."""
        raise NotImplementedError

    @property
    def parts(self) -> dict[str, int]:
        """What can be thinned by itself, channel groups or weights, with the number of its channels or units."""
        raise NotImplementedError

    def at(self, shares: Mapping[str, float]) -> Genes:
        """The genes that remove a share of each part, what scores lowest first.

        Args:
            shares: Name of a part -> share in [0, 1]; parts that are not named stay whole.
        """
        raise NotImplementedError

    def thinner(self, genes: Genes, generator: random.Random) -> Genes:
        """The genes with a little more removed, rather what scores low than what scores high."""
        if self.is_bits:
            kept = [index for index, bit in enumerate(genes) if bit]
            count = min(len(kept), max(1, self.size // 50))
            drawn = generator.sample(kept, min(len(kept), 4 * count))
            gone = set(sorted(drawn, key=self.ranks.__getitem__)[:count])
            return self.repaired([0 if index in gone else bit for index, bit in enumerate(genes)])
        index = generator.randrange(self.size)
        return self.repaired([gene + 0.05 * (number == index) for number, gene in enumerate(genes)])

    def repaired(self, genes: Sequence[float]) -> Genes:
        """The nearest genes that leave a network, in the one form that all genes of this meaning have."""
        raise NotImplementedError

    def masks(self, genes: Genes) -> dict[str, np.ndarray]:
        """The masks of the weights that lose something."""
        raise NotImplementedError

    def shares(self, genes: Genes) -> dict[tuple[str, int], float]:
        """The share that is left of each axis of a weight that loses channels, by weight and axis."""
        return {}

    def parameters(self, genes: Genes) -> float:
        """The weights that are left; zeros do not count."""
        raise NotImplementedError

    def macs(self, genes: Genes) -> float:
        """The multiply-accumulates that are left for one sample; those with zeros do not count."""
        raise NotImplementedError

    def bytes(self, genes: Genes) -> float:
        """The bytes of the weights in an int8 file; compressed, where the genome leaves zeros in it."""
        raise NotImplementedError

    def text(self, genes: Genes) -> str:
        """The genes as a word for the journal."""
        if self.is_bits:
            return np.packbits(np.asarray(genes, bool)).tobytes().hex()
        return " ".join(f"{gene:.6g}" for gene in genes)

    def parsed(self, text: str) -> Genes:
        """The genes of a word that `text` wrote."""
        if self.is_bits:
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=self.size)
            return tuple(int(bit) for bit in bits)
        return self.repaired([float(word) for word in text.split()])


class ChannelGenome(Genome):
    """Base of the genomes that remove channels."""

    def __init__(self, model: keras.Model, criterion: Any, layers: Any, data: Any):
        self.groups = channel_groups(model)
        self._bound = BoundStructured(Structured(0.5, criterion, layers=layers), model, model, self.groups)
        self._bound.inform(model, data)
        self.chosen = self._bound.chosen
        self.scores = self._bound.scores()
        self._costs = Costs(self.groups, model)
        self._stored = _stored_bytes(model)

    def keep(self, genes: Genes) -> Keep:
        """For each channel group that may lose some, which channels stay."""
        raise NotImplementedError

    @property
    def parts(self) -> dict[str, int]:
        return {name: group.size for name, group in self.chosen.items()}

    def masks(self, genes: Genes) -> dict[str, np.ndarray]:
        return self.groups.masks(self.keep(genes))

    def removed(self, genes: Genes) -> dict[str, int]:
        """For each channel group, how many channels go."""
        return {name: int(np.count_nonzero(~kept)) for name, kept in self.keep(genes).items()}

    def shares(self, genes: Genes) -> dict[tuple[str, int], float]:
        return self._costs.axis_shares(self.removed(genes))

    def parameters(self, genes: Genes) -> float:
        return round(self._costs.left("parameters", self.removed(genes)))

    def macs(self, genes: Genes) -> float:
        return round(self._costs.left("macs", self.removed(genes)))

    def bytes(self, genes: Genes) -> float:
        left = self._costs.shares(self.removed(genes))
        return round(sum(size * left.get(key, 1.0) for key, size in self._stored.items()))


class ChannelBits(ChannelGenome):
    """A bit for each channel, in the order of the channel groups."""

    kind = "channels"

    def __init__(self, model: keras.Model, criterion: Any, layers: Any, data: Any):
        super().__init__(model, criterion, layers, data)
        self.size = sum(group.size for group in self.chosen.values())
        self.ranks = np.concatenate([relative_scores(scores) for scores in self.scores.values()])

    def keep(self, genes: Genes) -> Keep:
        parts = np.split(np.asarray(genes, bool), np.cumsum([group.size for group in self.chosen.values()])[:-1])
        return dict(zip(self.chosen, parts))

    def repaired(self, genes: Sequence[float]) -> Genes:
        keep = {name: kept.copy() for name, kept in self.keep(tuple(genes)).items()}
        for name, kept in keep.items():
            if not kept.any():  # a group without channels would cut the network in two
                kept[int(np.argmax(self.scores[name]))] = True
        return self._joined(keep)

    def at(self, shares: Mapping[str, float]) -> Genes:
        keep = {}
        for name, group in self.chosen.items():
            keep[name] = np.ones(group.size, bool)
            lowest = np.argsort(self.scores[name], kind="stable")
            keep[name][lowest[: round(shares.get(name, 0.0) * group.size)]] = False
        return self.repaired(self._joined(keep))

    def seeds(self) -> list[Genes]:
        found = []
        for amount in SEEDED_AMOUNTS:
            with contextlib.suppress(PruningError):  # narrow groups cannot give as much
                found.append(self._joined(self._bound.keep(amount)))
            found.append(self.at(dict.fromkeys(self.chosen, amount)))
        return list(dict.fromkeys(found))

    def _joined(self, keep: Keep) -> Genes:
        return tuple(int(bit) for name in self.chosen for bit in keep[name])


class Layers(ChannelGenome):
    """For each channel group the share of its channels that goes, those of lowest score first."""

    kind = "layers"
    is_bits = False

    def __init__(self, model: keras.Model, criterion: Any, layers: Any, data: Any):
        super().__init__(model, criterion, layers, data)
        self.size = len(self.chosen)
        self._order = {name: np.argsort(scores, kind="stable") for name, scores in self.scores.items()}

    def keep(self, genes: Genes) -> Keep:
        keep = {}
        for gene, (name, group) in zip(genes, self.chosen.items()):
            keep[name] = np.ones(group.size, bool)
            keep[name][self._order[name][: round(gene * group.size)]] = False
        return keep

    def repaired(self, genes: Sequence[float]) -> Genes:
        sizes = [group.size for group in self.chosen.values()]
        counts = [min(max(round(gene * size), 0), size - 1) for gene, size in zip(genes, sizes)]
        return tuple(round(count / size, 6) for count, size in zip(counts, sizes))

    def at(self, shares: Mapping[str, float]) -> Genes:
        return self.repaired([shares.get(name, 0.0) for name in self.chosen])

    def guided(self, generator: random.Random) -> Genes:
        """Genes that remove a random share of each part, or of one part alone, half of the time each.

        Crossover puts together what single parts turn out to be worth.
        """
        if generator.random() < 0.5:
            return self.at({generator.choice(list(self.parts)): generator.random()})
        return super().guided(generator)

    def seeds(self) -> list[Genes]:
        return list(dict.fromkeys(self.repaired([amount] * self.size) for amount in SEEDED_AMOUNTS))


class Weights(Genome):
    """A bit for each weight, or for each block of a pattern."""

    kind = "weights"

    def __init__(self, model: keras.Model, criterion: Any, layers: Any, pattern: Any):
        self.pattern = patterns.get(pattern)
        if isinstance(self.pattern, patterns.NofM):
            raise PruningError(
                f"genome='weights' has a bit for each weight or block, which {self.pattern!r} does not; write "
                "pattern='element' or pattern='4x1'."
            )
        criterion = criteria.get(criterion)
        self.weights: list[PrunableWeight] = prunable_weights(model, layers)
        self._entries, self._units = {}, {}
        for weight in self.weights:
            self.pattern.check(weight.key, weight.shape)
            self._entries[weight.key] = criteria.score(criterion, as_array(weight.variable), Context(weight.key))
            self._units[weight.key] = self.pattern.unit_scores(self._entries[weight.key], criterion, weight.input_axis)
        self.size = sum(units.size for units in self._units.values())
        self.ranks = np.concatenate([relative_scores(units.ravel()) for units in self._units.values()])
        if self.size > MOST_WEIGHT_GENES:
            raise PruningError(
                f"genome='weights' would have {self.size:,} genes in '{model.name}', more than {MOST_WEIGHT_GENES:,}: "
                "it is for small networks. Write genome='channels' or 'layers', a block such as pattern='16x16', or "
                "fewer layers=."
            )
        self._other = sum(math.prod(weight.shape) for weight in every_weight(model)) - sum(
            math.prod(weight.shape) for weight in self.weights
        )
        self._macs = kernel_macs(opened(model, "Counting", has_rule).graph, weight_keys(model))
        self._stored = _stored_bytes(model)

    def masks(self, genes: Genes) -> dict[str, np.ndarray]:
        return {
            weight.key: self.pattern.mask(~kept, self._entries[weight.key], weight.input_axis)
            for weight, kept in zip(self.weights, self._parts(genes))
            if not kept.all()
        }

    def repaired(self, genes: Sequence[float]) -> Genes:
        parts = [part.copy() for part in self._parts(tuple(genes))]
        for weight, kept in zip(self.weights, parts):
            if not kept.any():
                kept.flat[int(np.argmax(self._units[weight.key]))] = True
        return tuple(int(bit) for part in parts for bit in part.ravel())

    @property
    def parts(self) -> dict[str, int]:
        return {key: units.size for key, units in self._units.items()}

    def at(self, shares: Mapping[str, float]) -> Genes:
        bits = []
        for key, units in self._units.items():
            kept = np.ones(units.size, int)
            kept[np.argsort(units, axis=None, kind="stable")[: round(shares.get(key, 0.0) * units.size)]] = 0
            bits.extend(kept.tolist())
        return self.repaired(bits)

    def seeds(self) -> list[Genes]:
        order = np.argsort(self.ranks, kind="stable")
        found = []
        for amount in SEEDED_AMOUNTS:
            kept = np.ones(self.size, int)
            kept[order[: round(amount * self.size)]] = 0
            found += [self.repaired(kept.tolist()), self.at(dict.fromkeys(self._units, amount))]
        return list(dict.fromkeys(found))

    def parameters(self, genes: Genes) -> float:
        return self._other + sum(left for _, left, _ in self._left(genes))

    def macs(self, genes: Genes) -> float:
        density = {key: left / size for key, left, size in self._left(genes)}
        return round(sum((cost or 0.0) * density.get(key, 1.0) for key, cost in self._macs.items()))

    def bytes(self, genes: Genes) -> float:
        packed = {key: _packed(left, size) for key, left, size in self._left(genes)}
        return round(sum(packed.get(key, stored) for key, stored in self._stored.items()))

    def _left(self, genes: Genes) -> list[tuple[str, int, int]]:
        """For each weight: its key, the entries left, all entries."""
        masks = self.masks(genes)
        sizes = {weight.key: math.prod(weight.shape) for weight in self.weights}
        return [(key, int(np.count_nonzero(masks[key])) if key in masks else size, size) for key, size in sizes.items()]

    def _parts(self, genes: Genes) -> list[np.ndarray]:
        units = list(self._units.values())
        parts = np.split(np.asarray(genes, bool), np.cumsum([part.size for part in units])[:-1])
        return [part.reshape(like.shape) for part, like in zip(parts, units)]


def make(kind: str, model: keras.Model, criterion: Any, layers: Any, pattern: Any, data: Any) -> Genome:
    """The genome of this name for a model.

    Raises:
        PruningError: There is none of this name, or the model has nothing that it could remove.
    """
    if kind == "weights":
        return Weights(model, criterion or "magnitude", layers, pattern)
    if pattern != "element":
        raise PruningError(f"pattern={pattern!r} goes with genome='weights'; genome={kind!r} removes whole channels.")
    kinds: Mapping[str, type[ChannelBits] | type[Layers]] = {"channels": ChannelBits, "layers": Layers}
    if kind not in kinds:
        raise PruningError(f"There is no genome {kind!r}. {nearest(str(kind), KINDS)}")
    return kinds[kind](model, criterion or "l2", layers, data)


def _stored_bytes(model: keras.Model) -> dict[str, float]:
    """What each weight takes in an int8 file: a byte an entry of a kernel, four of a bias.

    Batch norms fold into the layer before them, of which only a bias is left.
    """
    sizes = {}
    for weight in every_weight(model):
        entry = 1 if weight.is_kernel else 4 if weight.variable.name in ("bias", "beta") else 0
        sizes[weight.key] = float(entry * math.prod(weight.shape))
    return sizes


def _packed(left: int, size: int) -> float:
    """Bytes of an int8 kernel with zeros once it is compressed: where the zeros are, and what the others hold."""
    share = left / size
    places = 0.0 if share in (0.0, 1.0) else -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    return min(size, left + size * places / 8)
