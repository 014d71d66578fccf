"""Torch-Pruning's side of peers_torch_pruning.py: the same networks in torch, pruned by its own loop.

Networks are lists of nodes, `[kind, name, names of its inputs, settings]`, that both sides build; weights come by the
name of the node. Answers are numbers, so that this side needs neither Keras nor tfprune.
"""

import copy
import time
from typing import Any

import numpy as np
import torch
import torch_pruning
from torch import nn

from peers.conversation import answer

torch.set_num_threads(1)
STEPS = 400  # of its loop, each a bit of the channels, as in its reproduce/main.py
KNOWN: dict[str, Any] = {}


class Network(nn.Module):
    """A network from its nodes."""

    def __init__(self, nodes: list[list[Any]]):
        super().__init__()
        self.nodes = nodes
        width = {"input": 1}
        self.parts = nn.ModuleDict()
        for kind, name, sources, settings in nodes:
            before = width[sources[0]]
            width[name] = settings.get("width", before)
            if kind in ("conv", "depthwise"):
                size, groups = settings["kernel"], before if kind == "depthwise" else 1
                self.parts[name] = nn.Conv2d(
                    before, width[name], size, settings["strides"], size // 2, groups=groups, bias=False
                )
            elif kind == "norm":
                self.parts[name] = nn.BatchNorm2d(before, eps=1e-3, momentum=0.1)
            elif kind == "dense":
                self.parts[name] = nn.Linear(before, width[name])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {"input": x}
        for kind, name, sources, _ in self.nodes:
            taken = [values[source] for source in sources]
            if kind == "relu":
                values[name] = torch.relu(taken[0])
            elif kind == "add":
                values[name] = taken[0] + taken[1]
            elif kind == "mean":
                values[name] = taken[0].mean(dim=(2, 3))
            else:
                values[name] = self.parts[name](taken[0])
        return values[self.nodes[-1][1]]

    def load(self, weights: dict[str, np.ndarray]) -> None:
        """Takes the weights of the Keras network: `name/number` -> array, in Keras' order and layout."""
        for kind, name, _, _ in self.nodes:
            found = [torch.tensor(weights[key]) for key in sorted(weights) if key.rpartition("/")[0] == name]
            if name not in self.parts:
                continue
            part: Any = self.parts[name]
            if kind == "conv":
                part.weight.data = found[0].permute(3, 2, 0, 1).contiguous()
            elif kind == "depthwise":
                part.weight.data = found[0].permute(2, 3, 0, 1).contiguous()
            elif kind == "dense":
                part.weight.data, part.bias.data = found[0].T.contiguous(), found[1]
            elif kind == "norm":
                part.weight.data, part.bias.data, part.running_mean, part.running_var = found


def macs(network: Network) -> int:
    """Multiply-accumulates of convolutions and dense layers for one image."""
    total = 0

    def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        places = output[0, 0].numel() if output.dim() == 4 else 1
        total += module.weight.numel() * places

    hooks = [
        part.register_forward_hook(count) for part in network.parts.values() if not isinstance(part, nn.BatchNorm2d)
    ]
    network.eval()
    with torch.no_grad():
        network(KNOWN["x_test"][:1])
    for hook in hooks:
        hook.remove()
    return total


def begin(nodes: list[list[Any]], weights: str, data: str) -> dict[str, Any]:
    """Builds a dense network; gives its outputs for some test images, and the versions."""
    network = Network(nodes)
    network.load(dict(np.load(weights)))
    arrays = np.load(data)
    images = {key: torch.tensor(arrays[key]).permute(0, 3, 1, 2).contiguous() for key in ("x_train", "x_test")}
    labels = {key: torch.tensor(arrays[key].astype("int64")) for key in ("y_train", "y_test")}
    KNOWN.update(images | labels | {"network": network, "orders": arrays["orders"]})
    network.eval()
    with torch.no_grad():
        outputs = network(KNOWN["x_test"][:64])
    return {"outputs": outputs.tolist(), "macs": macs(network), "torch": torch.__version__.partition("+")[0]}


def accuracy(network: Network) -> float:
    """On the test images."""
    network.eval()
    with torch.no_grad():
        told = torch.cat([network(part).argmax(dim=1) for part in KNOWN["x_test"].split(500)])
    return float((told == KNOWN["y_test"]).float().mean())


def prune(method: str, share: float, epochs: int, rate: float, batch: int, calibration: int) -> dict[str, Any]:
    """Prunes a copy of the dense network to a share of its multiply-accumulates, and trains it on."""
    network = copy.deepcopy(KNOWN["network"])
    began = time.process_time()
    smaller(network, method, share * macs(network))
    seconds = time.process_time() - began
    found = {"seconds": seconds, "macs": macs(network), "after": accuracy(network)}
    recalibrate(network, KNOWN["x_train"][:calibration])
    found["repaired"] = accuracy(network)
    began = time.process_time()
    trained(network, epochs, rate, batch)
    found["tuning"] = time.process_time() - began
    found["parameters"] = sum(each.numel() for each in network.parameters())
    return {**found, "tuned": accuracy(network)}


def smaller(network: Network, method: str, target: float) -> None:
    """Removes channels, a few at a time, until the network has so many multiply-accumulates."""
    kinds = torch_pruning.importance
    importance = {
        "L1": lambda: kinds.GroupMagnitudeImportance(p=1),
        "L2": lambda: kinds.GroupMagnitudeImportance(p=2),
        "Taylor": kinds.GroupTaylorImportance,
    }[method.split(",")[0]]()
    network.eval()
    pruner = torch_pruning.pruner.BasePruner(
        network,
        KNOWN["x_train"][:1],
        importance=importance,
        global_pruning="global" in method,
        pruning_ratio=1.0,
        iterative_steps=STEPS,
        ignored_layers=[network.parts[network.nodes[-1][1]]],
    )
    for _ in range(STEPS):
        if macs(network) <= target:
            return
        if isinstance(importance, kinds.GroupTaylorImportance):
            network.zero_grad()
            network.eval()
            nn.functional.cross_entropy(network(KNOWN["x_train"][:256]), KNOWN["y_train"][:256]).backward()
        pruner.step()


def recalibrate(network: Network, images: torch.Tensor) -> None:
    """Measures the statistics of batch norm anew; no part of Torch-Pruning."""
    norms = [part for part in network.parts.values() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches
    network.train()
    with torch.no_grad():
        for part in images.split(250):
            network(part)
    for norm in norms:
        norm.momentum = 0.1


def trained(network: Network, epochs: int, rate: float, batch: int) -> None:
    """Trains by Adam as Keras has it, on the same batches."""
    optimizer = torch.optim.Adam(network.parameters(), rate, eps=1e-7)
    network.train()
    for order in KNOWN["orders"][:epochs]:
        for rows in torch.tensor(order).split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(KNOWN["x_train"][rows]), KNOWN["y_train"][rows]).backward()
            optimizer.step()


if __name__ == "__main__":
    answer({"begin": begin, "prune": prune})
