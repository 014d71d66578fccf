"""What pruning costs while a model trains, side by side with tfmot: time of a step, and time of one mask update.

    python benchmarks/overhead.py --parts steps --output docs/benchmarks/overhead_steps
    python benchmarks/overhead.py --parts updates --output docs/benchmarks/overhead_updates

Each tool runs in a process of its own, since tfmot needs Keras 2; the processes take turns, round by round, so that
whatever else the machine does meets both. The dense network is timed in both, and each tool is compared with the dense
network of its own Keras.
"""

import argparse
import contextlib
import itertools
import statistics
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from peers.conversation import Peer
from tables import add_output, versions, write

from tfprune.report import Column, Report

EVERY = (1, 100)
TFPRUNE = [("dense", 1), *(("callback", every) for every in EVERY), *(("wrapper", every) for every in EVERY)]
TFMOT = [("dense", 1), *(("pruned", every) for every in EVERY)]
# Name in networks.py -> batch size; a step takes more than 10 ms.
NETWORKS = {"fashion_cnn": 128, "perceptron": 256}
# Weights in layers of one shape.
SIZES = {
    "1 M": ((1000, 1000), 1),
    "8 M": ((2800, 2860), 1),
    "25 M": ((5000, 5000), 1),
    "25 M in 6 layers": ((2048, 2048), 6),
}
# Whether every update is a first one, of dense weights, or one on the way from 50 to 90 % zeros.
STATES = {"first": True, "later": False}
# How many times as fast as tfmot's an update has to be.
REQUIRED = {
    ("25 M", "first"): {"uniform": 100, "global": 100, "lamp": 40},
    ("25 M", "later"): {"uniform": 60, "global": 60, "lamp": 40},
    ("25 M in 6 layers", "first"): {"uniform": 30, "global": 30},
    ("25 M in 6 layers", "later"): {"uniform": 30, "global": 30},
}
FLOOR = "read once"  # what the sum of all weights takes, by NumPy
ALLOCATIONS = ("uniform", "global", "lamp")


class Variant(NamedTuple):
    """One way to train: the tool, its form, and how often masks are decided."""

    tool: str
    kind: str
    every: int

    @property
    def masks(self) -> str:
        """After how many steps masks are decided."""
        return "-" if self.kind == "dense" else f"every {self.every}"


class Steps(Report):
    """Milliseconds of a training step by tool and network."""

    title: ClassVar[str] = "Time of a training step"
    plotted: ClassVar[str] = "median"
    columns: ClassVar[Sequence[Column]] = (
        Column("network", "network"),
        Column("tool", "tool"),
        Column("kind", "form"),
        Column("masks", "decided"),
        Column("median", "median ms", ".2f"),
        Column("low", "25 %", ".2f"),
        Column("high", "75 %", ".2f"),
        Column("mean", "mean ms", ".2f"),
        Column("over_dense", "median over dense", "+.1%"),
        Column("mean_over_dense", "mean over dense", "+.1%"),
    )

    def __init__(self, found: dict[str, dict[Variant, list[list[float]]]], about: list[str]):
        self.found, self.about = found, about

    def rows(self) -> list[dict[str, Any]]:
        return [self._row(network, variant) for network, variants in self.found.items() for variant in variants]

    def _row(self, network: str, variant: Variant) -> dict[str, Any]:
        rounds = self.found[network][variant]
        dense = self.found[network][Variant(variant.tool, "dense", 1)]
        low, median, high = (float(value) for value in np.percentile(np.concatenate(rounds), [25, 50, 75]))
        row: dict[str, Any] = {"network": network, **variant._asdict(), "masks": variant.masks}
        row.update(low=low, median=median, high=high, mean=float(np.mean(np.concatenate(rounds))))
        if variant.kind != "dense":
            # Compared within each round, when the machine was as busy for both.
            for key, average in (("over_dense", np.median), ("mean_over_dense", np.mean)):
                ratios = [float(average(own) / average(other)) for own, other in zip(rounds, dense)]
                row[key] = statistics.median(ratios) - 1.0
        return row

    def notes(self) -> list[str]:
        return self.about


class Updates(Report):
    """Seconds of one mask update by number of weights."""

    title: ClassVar[str] = "Time of one mask update"
    plotted: ClassVar[str] = "median"
    columns: ClassVar[Sequence[Column]] = (
        Column("weights", "weights"),
        Column("update", "update"),
        Column("tool", "tool"),
        Column("allocation", "allocation"),
        Column("median", "median ms", ",.1f"),
        Column("low", "lowest", ",.1f"),
        Column("high", "highest", ",.1f"),
        Column("faster", "times as fast", ".1f"),
        Column("required", "needed"),
    )

    def __init__(self, found: dict[tuple[str, str], dict[str, list[float]]], about: list[str]):
        self.found, self.about = found, about

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        for (weights, state), taken in self.found.items():
            peer = statistics.median(taken["tfmot"])
            for name, seconds in taken.items():
                median = statistics.median(seconds)
                row: dict[str, Any] = {"weights": weights, "update": state, "tool": "tfmot", "allocation": "uniform"}
                if name != "tfmot":
                    required = REQUIRED.get((weights, state), {}).get(name)
                    row.update(tool="tfprune", allocation=name, faster=peer / median, required=required)
                row.update(median=1000 * median, low=1000 * min(seconds), high=1000 * max(seconds))
                rows.append(row)
        return rows

    def notes(self) -> list[str]:
        return self.about


def time_steps(ours: Peer, theirs: Peer, networks: Sequence[str], rounds: int, count: int, warm_up: int) -> Steps:
    plan = [(ours, Variant("tfprune", *form)) for form in TFPRUNE]
    plan += [(theirs, Variant("tfmot", *form)) for form in TFMOT]
    found: dict[str, dict[Variant, list[list[float]]]] = {name: {} for name in networks}
    for turn in range(rounds):
        for name in networks:
            for peer, variant in plan:
                settings = {"network": name, "batch": NETWORKS[name], "count": count, "warm_up": warm_up}
                taken = peer.ask("steps", kind=variant.kind, every=variant.every, **settings)
                found[name].setdefault(variant, []).append(taken)
                print(f"round {turn}: {name}: {variant}: {statistics.median(taken):.2f} ms", flush=True)
    about = [
        f"{rounds} rounds of {count} steps after {warm_up} steps of warm-up, every variant once a round; batches of "
        f"{ {name: NETWORKS[name] for name in networks} }; Adam; a cubic ramp to 90 %; tfprune with LAMP, its default. "
        "A step is everything between the ends of two steps in fit. Over dense: the median over rounds of the ratio "
        "within a round, to the dense network of the same Keras.",
    ]
    return Steps(found, about)


def time_updates(ours: Peer, theirs: Peer, sizes: Sequence[str], rounds: int) -> Updates:
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for name, (state, fresh) in itertools.product(sizes, STATES.items()):
        shape, layers = SIZES[name]
        for peer in (ours, theirs):
            peer.ask("prepare", count=rounds, shape=shape, layers=layers, fresh=fresh)
        times = found[name, state] = {"tfmot": [], **{allocation: [] for allocation in (*ALLOCATIONS, FLOOR)}}
        for turn in range(rounds + 1):
            taken = {"tfmot": theirs.ask("update")}
            taken.update({allocation: ours.ask("update", allocation=allocation) for allocation in ALLOCATIONS})
            taken[FLOOR] = ours.ask("read")
            shown = {tool: round(1000 * one, 1) for tool, one in taken.items()}
            print(f"round {turn}: {name}: {state}: {shown}", flush=True)
            if turn > 0:  # warm-up before
                for tool, seconds in taken.items():
                    times[tool].append(seconds)
    about = [
        f"{rounds} rounds, tools in turn, after one of warm-up; normally distributed weights, in one layer unless "
        "said. First: from dense weights to 80 % zeros, all masks open. Later: on the way from 50 to 90 %, the weights "
        "moved and their zeros as they were (tfmot sorts the many equal zeros faster). An update reads the weights, "
        "decides the masks, sets them and zeroes the weights. tfprune: the callback's hook as fit calls it. tfmot: its "
        "mask update and the product of weight and mask, compiled. Milliseconds of the process's CPU.",
    ]
    return Updates(found, about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["steps", "updates"], default=["steps", "updates"])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200, help="timed steps in a round")
    parser.add_argument("--warm-up", type=int, default=20, help="steps before them")
    add_output(parser)
    arguments = parser.parse_args()
    reports: list[Report] = []
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Peer("peers.tfprune_overhead"))
        theirs = stack.enter_context(Peer("peers.tfmot_overhead", {"TF_USE_LEGACY_KERAS": "1"}))
        made_by = versions(**theirs.ask("version"))
        if "steps" in arguments.parts:
            reports.append(
                time_steps(ours, theirs, arguments.networks, arguments.rounds, arguments.steps, arguments.warm_up)
            )
        if "updates" in arguments.parts:
            reports.append(time_updates(ours, theirs, arguments.sizes, arguments.rounds))
    for report in reports:
        report.notes().append(made_by)
    write(reports, arguments.output)


if __name__ == "__main__":
    main()
