"""PQuantML and HGQ2 in peers_fixed_point.py: prune and quantize a dense network by the recipe in a folder.

    python -m peers.fixed_point FOLDER

`FOLDER` holds `job.json`, `data.npz` and `dense.npz`. Out comes `found.json`: for each tool and setting the accuracy of
the finished network, the bytes of the file that it saves, and those of its weights packed as tightly as is easy.
"""

import gzip
import json
import os
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import pquant
from hgq.config import LayerConfigScope, QuantizerConfigScope
from hgq.layers import QConv2D, QDense
from networks import batches, fashion_cnn
from pquant.core.keras.train import PQuantCallback


class Stages(PQuantCallback):
    """PQuantML's callback, what it logs put aside: the name of a stage, of which Keras takes a mean."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, {})


def pquantml(dense: keras.Model, setting: dict[str, Any], job: dict[str, Any], train: Any) -> tuple[Any, list[Any]]:
    """A copy pruned by PQuantML and trained in 8-bit fixed point, and its kernels."""
    config = pquant.pdp_config()
    pruning, quantization = config.pruning_parameters, config.quantization_parameters
    pruning.sparsity = setting["sparsity"]
    pruning.epsilon = 1.0 / (job["epochs"] - 1)  # all of the zeros before the last epoch, which has fixed masks
    quantization.dynamic_data_quantization = True  # its default of no bits before the point cuts activations off at 1
    model = pquant.add_compression_layers(dense, config, (None, 28, 28, 1))
    callback = Stages(config, pretraining_epochs=0, epochs=job["epochs"] - 1, fine_tuning_epochs=1)
    compiled(model, job)
    model.fit(train, epochs=callback.total_epochs, callbacks=[callback], verbose=2)
    return model, [layer.kernel for layer in model.layers if hasattr(layer, "weight_quantizer")]


def hgq2(dense: keras.Model, setting: dict[str, Any], job: dict[str, Any], train: Any) -> tuple[Any, list[Any]]:
    """A copy with widths in bits of its own for each weight, which HGQ2 trains against their cost."""
    with (
        QuantizerConfigScope(place="all", default_q_type="kbi", overflow_mode="SAT_SYM"),
        QuantizerConfigScope("kbi", "weight", b0=setting["bits"], i0=0),
        QuantizerConfigScope(place="datalane", default_q_type="kif", overflow_mode="WRAP"),
        LayerConfigScope(enable_ebops=True, beta0=1e-6),
    ):
        parts = [keras.Input((28, 28, 1))]
        for layer in dense.layers:
            config = layer.get_config()
            if isinstance(layer, keras.layers.Conv2D):
                kept = ("filters", "kernel_size", "padding", "activation")
                parts.append(QConv2D(**{name: config[name] for name in kept}))
            elif isinstance(layer, keras.layers.Dense):
                parts.append(QDense(config["units"], activation=config["activation"]))
            else:
                parts.append(type(layer).from_config(config))
        model = keras.Sequential(parts)
    quantized = [layer for layer in model.layers if hasattr(layer, "qkernel")]
    for layer, source in zip(quantized, (layer for layer in dense.layers if layer.weights)):
        layer._kernel.assign(source.kernel)
        layer.bias.assign(source.bias)
    compiled(model, job)
    model.fit(train, epochs=job["epochs"], verbose=2)
    return model, [layer.qkernel for layer in quantized]


TOOLS = {"PQuantML": pquantml, "HGQ2": hgq2}


def compiled(model: keras.Model, job: dict[str, Any]) -> None:
    rate = keras.optimizers.schedules.CosineDecay(job["rate"], job["epochs"] * job["steps"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])


def packed_bytes(kernels: Iterable[Any]) -> int:
    """Bytes of kernels as numbers of their distinct values, with the tables of those, compressed."""
    stored = b""
    for kernel in kernels:
        table, numbers = np.unique(keras.ops.convert_to_numpy(kernel), return_inverse=True)
        stored += table.astype("float32").tobytes()
        stored += numbers.astype("uint8" if len(table) <= 256 else "uint16").tobytes()
    return len(gzip.compress(stored, 9))


def run(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    data, dense = np.load(folder / "data.npz"), np.load(folder / "dense.npz")
    found = []
    for setting in job["settings"]:
        keras.utils.set_random_seed(job["seed"])
        model = fashion_cnn(keras)
        model.set_weights([dense[name] for name in dense.files])
        train = batches(data["x_train"], data["y_train"], job["batch"], job["seed"])
        finished, kernels = TOOLS[setting["tool"]](model, setting, job, train)
        path = folder / "finished.keras"
        finished.save(path)
        values = [keras.ops.convert_to_numpy(kernel) for kernel in kernels]
        found.append(
            {
                **setting,
                "accuracy": 100 * finished.evaluate(data["x_test"], data["y_test"], verbose=0)[1],
                "zeros": sum(int((value == 0).sum()) for value in values) / sum(value.size for value in values),
                "bytes": path.stat().st_size,
                "compressed": len(gzip.compress(path.read_bytes(), 9)),
                "packed": packed_bytes(values),
            }
        )
        print(found[-1], file=sys.stderr, flush=True)
        (folder / "found.json").write_text(json.dumps(found))
    names = {"PQuantML": "pquant-ml", "HGQ2": "hgq2"}
    (folder / "versions.json").write_text(json.dumps({key: metadata.version(name) for key, name in names.items()}))


if __name__ == "__main__":
    run(Path(sys.argv[1]))
