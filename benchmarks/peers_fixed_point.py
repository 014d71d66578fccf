"""Pruning and quantization together: tfprune, PQuantML and HGQ2 from the same dense network, in the same epochs.

    python benchmarks/peers_fixed_point.py --seeds 0 1 2 --output docs/benchmarks/peers_fixed_point

PQuantML and HGQ2 run in an environment of their own, which is made from PyPI. They train for FPGAs and write Keras
files; so beside the file that each writes stands the size of its weights, packed: each kernel as numbers of its
distinct values with the table of those, compressed by gzip. tfprune's are the bytes of the whole `.tflite`.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from datasets import fashion_mnist
from networks import batches, compiled, fashion_cnn
from peers.environment import NotInstalledError, python_of
from tables import BySeed, add_output, means, versions, write

import tfprune
from tfprune.command.datasets import Dataset
from tfprune.report import Column

PACKAGES = ("pquant-ml==0.1.0", "hgq2==0.2.0", "tensorflow<2.21")
DENSE_EPOCHS, EPOCHS, RATE, BATCH, REPRESENTATIVE = 3, 3, 1e-3, 128, 300
OURS = [(share, 8) for share in (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)]  # zeros, and the bits of the others
OURS += [(share, 4) for share in (0.5, 0.8, 0.9, 0.95)]
SPARSITIES = (0.8, 0.9, 0.95, 0.98)
STARTS = (8, 6, 5, 4, 3)  # bits

Figures = dict[str, Any]


class Front(BySeed):
    """Accuracy and bytes by tool and setting, as means over seeds."""

    title: ClassVar[str] = "Pruned and quantized together: accuracy and size"
    columns: ClassVar[Sequence[Column]] = (
        Column("tool", "tool"),
        Column("setting", "setting"),
        Column("accuracy", "accuracy", ".2f"),
        Column("lowest", "low", ".2f"),
        Column("highest", "high", ".2f"),
        Column("zeros", "zeros", ".1%"),
        Column("bytes", "file, bytes", ",.0f"),
        Column("compressed", "compressed", ",.0f"),
        Column("packed", "weights packed", ",.0f"),
        Column("dominated", "tfprune better and smaller"),
    )

    def rows(self) -> list[dict[str, Any]]:
        rows = super().rows()
        ours = [row for row in rows if row["tool"] == "tfprune"]
        for row in rows:
            if row["tool"] != "tfprune":
                smallest = min(row["packed"], row["compressed"])
                better = (our["accuracy"] >= row["accuracy"] and our["compressed"] <= smallest for our in ours)
                row["dominated"] = "yes" if any(better) else "no"
        return rows

    def _row(self, key: tuple[str, str], found: list[Figures]) -> dict[str, Any]:
        accuracies = [figures["accuracy"] for figures in found]
        extremes = {"lowest": min(accuracies), "highest": max(accuracies)}
        return {"tool": key[0], "setting": key[1], **means(found), **extremes, "dominated": None}


def pruned_here(dense: keras.Model, sparsity: float, bits: Any, data: Dataset, seed: int) -> Figures:
    """Two epochs with zeros growing, one with the rounding of the file, and the file."""
    model = keras.models.clone_model(dense)
    model.set_weights(dense.get_weights())
    steps = EPOCHS * -(-len(data.x_train) // BATCH)
    train = batches(data.x_train, data.y_train, BATCH, seed)
    compiled(keras, model, keras.optimizers.schedules.CosineDecay(RATE, steps))
    model.fit(train, epochs=EPOCHS - 1, callbacks=[tfprune.PercentilePruning(sparsity)], verbose=0)
    quantized = tfprune.quantize_aware(model, data.x_train[:REPRESENTATIVE], weight_bits=bits)
    left = keras.optimizers.schedules.CosineDecay(RATE * 0.25, steps // EPOCHS)  # where the cosine of the whole stands
    compiled(keras, quantized, left)
    quantized.fit(train, epochs=1, verbose=0)
    lite = tfprune.convert(quantized, "int8")
    answers = np.argmax(lite(data.x_test), axis=-1)
    return {
        "accuracy": 100 * float(np.mean(answers == data.y_test)),
        "zeros": tfprune.summary(tfprune.strip_masks(model)).totals()["sparsity"],
        "bytes": lite.size,
        "compressed": lite.gzip_size,
        "packed": None,
    }


def run_peers(python: str, dense: keras.Model, data: Dataset, seed: int) -> tuple[list[Figures], Figures]:
    """What the others make of the same weights; their versions."""
    settings: list[Figures] = [
        {"tool": "PQuantML", "setting": f"{share:.0%} zeros", "sparsity": share} for share in SPARSITIES
    ]
    settings += [{"tool": "HGQ2", "setting": f"from {bits} bits", "bits": bits} for bits in STARTS]
    job = {
        "settings": settings, "epochs": EPOCHS, "steps": -(-len(data.x_train) // BATCH), "rate": RATE, "batch": BATCH,
        "seed": seed,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job))
        np.savez(folder / "data.npz", **{key: getattr(data, key) for key in ("x_train", "y_train", "x_test", "y_test")})
        np.savez(folder / "dense.npz", *dense.get_weights())
        subprocess.run([python, "-m", "peers.fixed_point", str(folder)], cwd=Path(__file__).parent, check=True)
        return json.loads((folder / "found.json").read_text()), json.loads((folder / "versions.json").read_text())


def measured(seed: int, data: Dataset, python: str | None) -> tuple[list[Figures], Figures]:
    """What all make of one dense network; the versions of the others."""
    keras.utils.set_random_seed(seed)
    dense = compiled(keras, fashion_cnn(keras), RATE)
    dense.fit(batches(data.x_train, data.y_train, BATCH, seed), epochs=DENSE_EPOCHS, verbose=0)
    found = [
        {
            "tool": "tfprune",
            "setting": f"{share:.0%} zeros, {bits} bits",
            **pruned_here(dense, share, bits, data, seed),
        }
        for share, bits in OURS
    ]
    print(found, flush=True)
    others, names = ([], {}) if python is None else run_peers(python, dense, data, seed)
    return found + [{name: figures[name] for name in found[0]} for figures in others], names


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--images", type=int, help="of the training images, from the first on")
    parser.add_argument("--kept", type=Path, help="a folder of what is measured already, to go on from")
    add_output(parser)
    arguments = parser.parse_args(words)
    data = fashion_mnist(arguments.images)
    about, others = [], {}
    try:
        python = python_of("fixed_point", PACKAGES)
    except NotInstalledError as error:
        python = None
        about.append(f"PQuantML and HGQ2 could not be installed here: {error}")
    runs: list[dict[Any, Figures]] = []
    for seed in arguments.seeds:
        path = None if arguments.kept is None else arguments.kept / f"{seed}.json"
        if path is not None and path.exists():
            found, others = json.loads(path.read_text())
        else:
            found, others = measured(seed, data, python)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps([found, others]))
        runs.append({(figures.pop("tool"), figures.pop("setting")): figures for figures in found})
    about.append(
        f"fashion_cnn (421,642 parameters), {len(data.x_train):,} images of Fashion-MNIST, {DENSE_EPOCHS} dense "
        f"epochs, then {EPOCHS} epochs from the same weights, Adam, a cosine from {RATE}; accuracy on the 10,000 test "
        f"images; means over seeds {arguments.seeds}. tfprune: PercentilePruning for {EPOCHS - 1} epochs, "
        "quantize_aware for one, accuracy and bytes of the int8 .tflite. PQuantML: its method PDP (Wanda fails in "
        "compiled steps of TensorFlow), fixed point of 8 bits, masks fixed in the last epoch. HGQ2: a width in bits "
        "for each weight, which training lowers from a start by a thousandth a step at most (Adam), so that the start "
        "decides in so few epochs; beta 1e-6. Better and smaller: some row of tfprune has at least the accuracy and, "
        "compressed, at most the bytes of the packed weights or of the compressed file."
    )
    write([Front(runs, [*about, versions(**others)])], arguments.output)


if __name__ == "__main__":
    main()
