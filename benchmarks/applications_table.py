"""Every network of keras.applications: traced, 30 % of its channels removed, compared with the masked network.

    python benchmarks/applications_table.py                      # all, written to docs/applications.md
    python benchmarks/applications_table.py MobileNetV2 VGG16    # some; the others keep their rows

Weights are random, with random batch-norm statistics, gammas and betas, so that no channel is zero by chance; inputs
are as small as each network allows, and the last softmax is left out, so that differences are not squeezed. Rows are
kept in docs/applications.json and brought up to date one by one.
"""

import argparse
import gc
import inspect
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "docs" / "applications.json", ROOT / "docs" / "applications.md"
SHARE = 0.3
TOLERANCE = 1e-5
SIZES = (32, 64, 75, 96, 128, 224, 331)


def networks():
    import keras

    return sorted(name for name, make in vars(keras.applications).items() if inspect.isfunction(make))


def build(name):
    import keras

    make = getattr(keras.applications, name)
    for size in SIZES:
        try:
            return make(weights=None, input_shape=(size, size, 3), classifier_activation=None), size
        except ValueError:
            continue
    raise ValueError(f"{name} takes none of the sizes {SIZES}")


def randomise(model, seed=0):
    """Random weights and batch-norm statistics, under which every channel says something and the input counts."""
    import keras
    import numpy as np

    generator = np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if "gamma" in variable.name:
            variable.assign(generator.uniform(0.5, 1.5, shape))
        elif len(shape) == 1 and "moving" not in variable.name and "variance" not in variable.name:
            variable.assign(generator.normal(0.0, 0.1, shape))
        elif len(shape) > 1:  # He et al. 2015; a depthwise kernel sums over space alone
            depthwise = "depthwise" in variable.path or "_dw" in variable.path
            fan_in = math.prod(shape[:2] if depthwise else shape[:-1])
            variable.assign(generator.normal(0.0, math.sqrt(2.0 / fan_in), shape))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0  # the statistics of one batch, taken over as they are
    model(images(model), training=True)
    for layer, momentum in zip(norms, before):
        layer.momentum = momentum
        for statistic in (layer.moving_mean, layer.moving_variance):
            statistic.assign(statistic * generator.uniform(0.8, 1.2, statistic.shape))


def images(model, count=8):
    """Inputs in the range that the network expects: pixels where it rescales them itself."""
    import keras
    import numpy as np

    generator = np.random.default_rng(1)
    shape = (count, *model.input_shape[1:])
    if any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers):
        return generator.uniform(0.0, 255.0, shape).astype("float32")
    return generator.normal(size=shape).astype("float32")


def variation(model, inputs):
    """How much the outputs of two inputs differ, relative to their scale: nothing to compare where it is zero."""
    import numpy as np

    one, other = np.asarray(model(inputs[:2], training=False))
    return float(np.abs(one - other).max() / np.abs(one).max())


def mask_in_place(model, masks, keys):
    import numpy as np

    for variable in model.weights:
        mask = masks.get(keys[id(variable)])
        if mask is not None:
            variable.assign(np.where(mask, np.asarray(variable), 0.0))


def measure(name, lite=True):
    import tfprune
    from tfprune.model.macs import model_macs

    model, size = build(name)
    randomise(model)
    start = time.perf_counter()
    groups = tfprune.channel_groups(model)
    traced = time.perf_counter() - start
    channels = sum(group.size for group in groups.values())
    outputs = sum(g.size for g in groups.values() if g.frozen and g.frozen.reason.name == "MODEL_OUTPUT")
    refused = sum(g.size for g in groups.values() if g.frozen) - outputs
    plan = tfprune.plan_shrink(model, tfprune.Structured(SHARE, allocation="uniform"))
    macs, inputs = model_macs(model).total, images(model)
    parameters = model.count_params()
    mask_in_place(model, groups.masks(dict(plan)), groups.key_of)
    start = time.perf_counter()
    small = tfprune.shrink(model)
    shrunk = time.perf_counter() - start
    certificate = tfprune.certify(model, small, inputs)
    row = {
        "network": name,
        "input": size,
        "groups": len(groups),
        "channels": channels,
        "refused": refused / (channels - outputs),
        "parameters": parameters,
        "parameters_after": small.count_params(),
        "macs": macs,
        "macs_after": model_macs(small).total,
        "variation": variation(small, inputs),
        "difference": certificate.largest,
        "exactness": certificate.exactness.name.lower(),
        "trace_seconds": traced,
        "shrink_seconds": shrunk,
    }
    del model, groups, plan
    gc.collect()
    row["lite_bytes"] = len(tfprune.convert(small).content) if lite else None
    return row


def page(rows):
    measured = {row["network"] for row in rows}
    missing = [name for name in networks() if name not in measured]
    equal = sum(row["difference"] <= TOLERANCE for row in rows)
    rounded = [
        f"{row['network']} differs by {row['difference']:.1e} in float32, and by {row['difference_float64']:.1e} in "
        "float64: rounding."
        for row in rows
        if "difference_float64" in row
    ]
    converted = sum(bool(row["lite_bytes"]) for row in rows)
    lines = [
        "# Every network of keras.applications",
        "",
        f"Made by `python benchmarks/applications_table.py`: random weights, {SHARE:.0%} of the channels of every",
        "group removed by L2 norm. *Difference* is the largest between the masked network and the smaller one,",
        "*variation* the largest between two inputs, both relative to the scale of the output. *Refused* are channels",
        "that cannot be removed without changing what the others say, the outputs left aside (in ConvNeXt layer",
        "normalisation takes statistics over the residual stream). Seconds were taken beside other work.",
        "",
        " ".join(
            [
                f"**{equal} of {len(rows)} are equal within 1e-5, {converted} convert to TFLite.**",
                *rounded,
                *([f"Not measured yet: {', '.join(missing)}."] if missing else []),
            ]
        ),
        "",
        "| network | input | groups | refused | parameters | MACs | variation | difference | class | trace | shrink "
        "| .tflite |",
        "|" + " --- |" + " ---: |" * 7 + " --- |" + " ---: |" * 3,
    ]
    for row in sorted(rows, key=lambda row: row["network"]):
        lite = f"{row['lite_bytes'] / 1e6:,.1f} MB" if row["lite_bytes"] else "-"
        lines.append(
            f"| {row['network']} | {row['input']} | {row['groups']} | {row['refused']:.1%} "
            f"| {row['parameters'] / 1e6:,.1f} M -> {row['parameters_after'] / 1e6:,.1f} M "
            f"| {row['macs'] / 1e6:,.0f} M -> {row['macs_after'] / 1e6:,.0f} M "
            f"| {row['variation']:.1g} | {row['difference']:.1e} | {row['exactness']} | {row['trace_seconds']:.1f} s "
            f"| {row['shrink_seconds']:.1f} s | {lite} |"
        )
    return "\n".join(lines) + "\n"


def measured_apart(name, flags):
    """The row of a network, from a process of its own: the largest need all the memory there is."""
    command = [sys.executable, __file__, name, "--one", *flags]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr.strip().splitlines()[-1])
    return json.loads(result.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks; default all")
    parser.add_argument("--one", action="store_true", help="measure one network and print its row as JSON")
    parser.add_argument("--float64", action="store_true", help="compute in float64, for one network")
    parser.add_argument("--missing", action="store_true", help="only networks without a row")
    parser.add_argument("--no-lite", action="store_true", help="do not convert to TFLite")
    options = parser.parse_args()
    if options.one:
        if options.float64:
            import keras

            keras.config.set_floatx("float64")
            keras.config.set_dtype_policy("float64")
        print(json.dumps(measure(options.names[0], not options.no_lite)))
        return 0
    rows = {row["network"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    failed = []
    for name in options.names or networks():
        if options.missing and name in rows:
            continue
        try:
            rows[name] = measured_apart(name, ["--no-lite"] if options.no_lite else [])
            if rows[name]["difference"] > TOLERANCE:  # is it rounding, or another function?
                rows[name]["difference_float64"] = measured_apart(name, ["--no-lite", "--float64"])["difference"]
        except RuntimeError as error:
            failed.append(name)
            print(f"{name}: {error}", flush=True)
            continue
        print(f"{name}: {rows[name]['difference']:.1e} {rows[name]['exactness']}", flush=True)
        RESULTS.write_text(json.dumps(sorted(rows.values(), key=lambda row: row["network"]), indent=1) + "\n")
        PAGE.write_text(page(list(rows.values())))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
