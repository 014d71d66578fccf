"""tfmot's side of fashion_mnist.py: prunes copies of a dense network by the recipe in a folder, and leaves them there.

    python -m peers.tfmot_accuracy FOLDER

`FOLDER` holds `job.json`, `data.npz` and `dense.npz`. For each sparsity come out `<sparsity>.npz` (the weights after
`strip_pruning`), `<sparsity>.float32.tflite` and `<sparsity>.int8.tflite`; `versions.json` says what made them.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow_model_optimization as tfmot  # first: it decides that tf.keras is Keras 2

import tensorflow as tf  # isort: skip
import tf_keras
from networks import batches, compiled, fashion_cnn

sparsity = tfmot.sparsity.keras


def prune(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    data = np.load(folder / "data.npz")
    dense = np.load(folder / "dense.npz")
    for target in job["sparsities"]:
        model = fashion_cnn(tf_keras)
        model.set_weights([dense[name] for name in dense.files])
        schedule = sparsity.PolynomialDecay(
            initial_sparsity=0.0,
            final_sparsity=target,
            begin_step=job["begin"],
            end_step=job["end"],
            power=job["power"],
            frequency=job["every"],
        )
        pruned = compiled(tf_keras, sparsity.prune_low_magnitude(model, pruning_schedule=schedule), job["rate"])
        train = batches(data["x_train"], data["y_train"], job["batch"], job["seed"])
        pruned.fit(train, epochs=job["epochs"], callbacks=[sparsity.UpdatePruningStep()], verbose=0)
        plain = sparsity.strip_pruning(pruned)
        np.savez(folder / f"{target}.npz", *plain.get_weights())
        (folder / f"{target}.float32.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(plain).convert())
        (folder / f"{target}.int8.tflite").write_bytes(_int8(plain, data["representative"]))
        print(f"tfmot at {target} is done", file=sys.stderr, flush=True)
    versions = {"tfmot": tfmot.__version__, "tf_keras": tf_keras.__version__, "tensorflow": tf.__version__}
    (folder / "versions.json").write_text(json.dumps(versions))


def _int8(model: tf_keras.Model, representative: np.ndarray) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in representative)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


if __name__ == "__main__":
    prune(Path(sys.argv[1]))
