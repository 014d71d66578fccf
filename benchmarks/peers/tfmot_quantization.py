"""tfmot's side of quantization.py: trains copies of float networks in int8 and converts them, with Keras 2.

    python -m peers.tfmot_quantization FOLDER

`FOLDER` holds `job.json`, `data.npz` and `<network>.npz` with the weights of each float network. For each network and
scheme come out `<network>.<scheme>.tflite` and `<network>.<scheme>.npy`, what Keras answers to the test images;
`versions.json` says what made them.
"""

import json
import sys
from pathlib import Path
from typing import Any

import networks
import numpy as np
import tensorflow_model_optimization as tfmot  # first: it decides that tf.keras is Keras 2

import tensorflow as tf  # isort: skip
import tf_keras

quantization = tfmot.quantization.keras


def run(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    data = np.load(folder / "data.npz")
    for name, network in job["networks"].items():
        for scheme in network["schemes"]:
            model = getattr(networks, network["builder"])(tf_keras, **network["arguments"])
            weights = np.load(folder / f"{name}.npz")
            model.set_weights([weights[key] for key in weights.files])
            if scheme != "PTQ":
                model = trained(model, scheme, job, data)
            np.save(folder / f"{name}.{scheme}.npy", model.predict(data["x_test"], batch_size=500, verbose=0))
            representative = data["representative"] if scheme == "PTQ" else None
            (folder / f"{name}.{scheme}.tflite").write_bytes(int8(model, representative))
            print(f"tfmot: {scheme} of {name} is done", file=sys.stderr, flush=True)
    versions = {"tfmot": tfmot.__version__, "tf_keras": tf_keras.__version__, "tensorflow": tf.__version__}
    (folder / "versions.json").write_text(json.dumps(versions))


def trained(model: tf_keras.Model, scheme: str, job: dict[str, Any], data: Any) -> tf_keras.Model:
    if scheme == "PQAT":
        annotated = quantization.quantize_annotate_model(model)
        keep = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
        model = quantization.quantize_apply(annotated, keep)
    else:
        model = quantization.quantize_model(model)
    networks.compiled(tf_keras, model, job["rate"])
    train = networks.batches(data["x_train"], data["y_train"], job["batch"], job["seed"])
    model.fit(train, epochs=job["epochs"], verbose=0)
    return model


def int8(model: tf_keras.Model, representative: np.ndarray | None) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if representative is not None:
        converter.representative_dataset = lambda: ([image[None]] for image in representative)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


if __name__ == "__main__":
    run(Path(sys.argv[1]))
