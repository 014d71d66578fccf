"""Any network: KerasHub's, and kinds that people write by hand, pruned, shrunk, trained a step, saved and converted.

    python benchmarks/networks_table.py hub                      # written to docs/keras_hub.md
    python benchmarks/networks_table.py hand BertBackbone        # some; the others keep their rows

Each network is measured in a process of its own, with a limit on its time and its memory. Weights are random, inputs
too. A network whose difference is above 1e-5 in float32 is measured again in float64, which tells rounding from
another function.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "docs" / "benchmarks", ROOT / "docs" / "keras_hub.md"
SHARE = 0.3
SECONDS, GIGABYTES = 600, 6
# Sizes of open axes that belong together: images in a prompt, and the places of their tokens.
FIXED = {
    "images": (1,),
    "pixel_values": (1, 16, 48),
    "pixel_position_ids": (1, 16),
    "vision_indices": (4,),
    "boxes": (1,),
    "masks": (1, 32, 32),
}


# Layers of one's own are pruned where they are named, as the error of a model of nothing else says.
NAMED = {"Dense of one's own, by add_weight": ["linear", "linear_1", "linear_2"]}


def names(part):
    if part == "hub":
        from hub_networks import BACKBONES, TASKS

        return [*BACKBONES, *TASKS]
    from hand_written import KINDS

    return list(KINDS)


def build(part, name):
    if part == "hub":
        from hub_networks import build

        return build(name)
    import keras
    from hand_written import KINDS

    keras.utils.set_random_seed(0)
    return KINDS[name]()


def shake(model):
    """Biases, norms and scales away from 0 and 1, so that every weight says something."""
    import numpy as np

    generator = np.random.default_rng(0)
    for variable in model.weights:
        if str(variable.dtype).startswith(("float", "bfloat")) and "seed" not in variable.path:
            noise = (
                generator.uniform(0.0, 0.1, variable.shape)
                if "variance" in variable.path
                else (generator.normal(0.0, 0.1, variable.shape))
            )
            variable.assign(np.asarray(variable).astype("float64") + noise)


def inputs(model, samples=2, length=8):
    """Random inputs: small numbers of words, ones for what masks, normal numbers else."""
    import keras
    import numpy as np

    from tfprune.model.inline import inputs_of

    given = inputs_of(model)
    generator = np.random.default_rng(1)
    image = 64
    flat = []
    for spec in given.specs:
        shape = [samples, *(size or (image if len(spec.shape) > 3 else length) for size in spec.shape[1:])]
        if spec.name in ("encoder_input_values",) or (spec.name == "encoder_padding_mask" and moonshine(given)):
            shape[1] = 1200
        fixed = FIXED.get(spec.name, ())
        if fixed and (spec.name != "images" or len(spec.shape) > 4) and None in spec.shape[1:]:
            shape = [samples, *fixed, *shape[1 + len(fixed) :]]
        if "mask" in spec.name and spec.name != "masks":
            value = np.ones(shape) if spec.name != "vision_mask" else np.zeros(shape)
        elif spec.name == "vision_indices":  # each place once
            value = np.broadcast_to(np.arange(shape[1]), shape)
        elif "position" in spec.name or "indices" in spec.name or spec.name == "segment_ids":
            value = np.broadcast_to(np.arange(shape[1]).reshape(1, -1, *(1,) * (len(shape) - 2)) % 2, shape)
        elif keras.backend.is_float_dtype(spec.dtype):
            value = generator.normal(size=shape)
        else:
            value = generator.integers(1, 5, shape)
        flat.append(value.astype(spec.dtype if spec.dtype != "float16" else "float32"))
    return given.pack(flat)


def moonshine(given):
    return any(spec.name == "encoder_input_values" for spec in given.specs)


def call(model, data):
    import keras
    import numpy as np

    return [np.asarray(x).astype("float64") for x in keras.tree.flatten(model(data, training=False))]


def apart(one, other):
    import numpy as np

    return max(
        (float(np.abs(a - b).max()) / (float(np.abs(a).max()) or 1.0) if a.size else 0.0)
        for a, b in zip(one, other, strict=True)
    )


class Row(dict):
    """What was measured; a stage that fails leaves its error."""

    def stage(self, name, run):
        start = time.process_time()
        try:
            self[name] = run()
        except Exception as error:
            self[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self.setdefault("traces", {})[name] = traceback.format_exc()[-3000:]
            return None
        finally:
            self.setdefault("seconds", {})[name] = round(time.process_time() - start, 2)
        return self[name]


def measure(part, name, lite, fit):
    import keras
    import numpy as np
    import tensorflow as tf

    import tfprune
    from tfprune.model.copying import clone_with_weights
    from tfprune.model.graph import is_graph
    from tfprune.model.inline import inline_notes
    from tfprune.model.prunable import prunable_weights

    model = build(part, name)
    shake(model)
    row = Row(network=name, parameters=sum(int(np.prod(v.shape)) for v in model.weights))
    data = inputs(model)
    row["finite"] = all(np.isfinite(x).all() for x in call(model, data))
    made = {}

    def keep(key, value):
        made[key] = value
        return True

    def prunable():
        return sum(int(np.prod(w.shape)) for w in prunable_weights(model, NAMED.get(name))) / row["parameters"]

    def groups():
        found = tfprune.channel_groups(model)
        total = sum(group.size for group in found.values())
        reasons = {}
        for group in found.values():
            if group.frozen:
                reasons[group.frozen.reason.name] = reasons.get(group.frozen.reason.name, 0) + group.size
        row["channels"] = total
        row["reasons"] = {key: size / total for key, size in sorted(reasons.items(), key=lambda pair: -pair[1])}
        return len(found)

    def shrink():
        keep("small", tfprune.shrink(made["masked"]))
        return sum(int(np.prod(v.shape)) for v in made["small"].weights)

    def difference():
        before, after = call(made["masked"], data), call(made["small"], data)
        row["variation"] = max(float(np.abs(x[0] - x[-1]).max() / (np.abs(x).max() or 1.0)) for x in before if x.size)
        return apart(before, after)

    def train():
        wrapped = made["wrapped"]
        compile_for_a_step(wrapped, data)
        decides = tfprune.PercentilePruning(0.5) if row.get("callback") else tfprune.UpdateMasks()
        targets = keras.tree.map_structure(lambda x: np.zeros(x.shape, "float32"), wrapped(data, training=False))
        given = keras.tree.lists_to_tuples((data, targets))  # tf.data takes a list for a tensor
        batch = tf.data.Dataset.from_tensors(given)  # an output may be longer or shorter than the batch
        wrapped.fit(batch, epochs=1, verbose=0, callbacks=[decides])
        return True

    def saved(key):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/model.keras"
            made[key].save(path)
            difference = apart(call(made[key], data), call(keras.models.load_model(path), data))
        if not difference <= 1e-6:
            raise ValueError(f"the loaded model differs by {difference:.1g}")
        return True

    row.stage("prunable", prunable)
    row.stage("closed", lambda: inline_notes(model))
    made["model"] = model
    if "give an example" in str(row["closed"]):  # its open sizes belong together
        row.stage("example", lambda: keep("opened", tfprune.inline(model, data)))
        if "opened" in made:
            model, row["closed"] = made["opened"], []
    row.stage("groups", groups)
    row.stage("keras_saves", lambda: saved("model"))
    row.stage("prune", lambda: keep("masked", tfprune.prune(model, tfprune.Structured(SHARE))))
    if "masked" in made and row.stage("parameters_after", shrink) is not None:
        row.stage("difference", difference)
        row.stage("small_saves", lambda: saved("small"))
    model = made["model"]
    if is_graph(model):
        half = tfprune.Percentile(0.5, layers=NAMED.get(name))
        row.stage("wrap", lambda: keep("wrapped", tfprune.wrap(model, half)))
    else:  # the model itself is trained, which a callback can do
        row["callback"] = row.stage("wrap", lambda: keep("wrapped", clone_with_weights(model))) is not None
    if "wrapped" in made:
        if fit:
            row.stage("fit", train)
        if row.stage("strip", lambda: keep("stripped", tfprune.strip_masks(made["wrapped"]))) is not None:
            row.stage("saves", lambda: saved("stripped"))
    if lite and "small" in made:
        row.stage("lite_bytes", lambda: converted(made["small"], data, row))
    return row


def converted(small, data, row):
    """The size of the file with the lengths of the data in the place of open ones; its answers are compared."""
    import keras
    import numpy as np

    import tfprune
    from tfprune.model.inline import inputs_of

    arrays = [array[:1] for array in keras.tree.flatten(data)]
    given = inputs_of(small)
    lengths = {
        spec.name: array.shape[1] for spec, array in zip(given.specs, arrays, strict=True) if None in spec.shape[1:]
    }
    lite = tfprune.convert(small, sequence_length=lengths or None)
    named = {spec.name: array for spec, array in zip(given.specs, arrays, strict=True)}
    answers = lite([named[end.name] for end in lite.inputs])
    answers = [np.asarray(x, "float64") for x in (answers if isinstance(answers, list) else [answers])]
    row["lite_difference"] = apart(call(small, given.pack(arrays)), answers)
    return len(lite.content)


def compile_for_a_step(model, data):
    """Squares of the outputs as the loss, whatever the outputs are, over what they are now: some begin at 100,000."""
    import keras

    @keras.saving.register_keras_serializable("benchmarks")
    def squares(_, outputs):
        mean = keras.ops.mean(keras.ops.square(keras.ops.cast(outputs, "float32")))
        return mean / (1.0 + keras.ops.stop_gradient(mean))

    outputs = model(data, training=False)
    losses = keras.tree.map_structure(lambda _: squares, outputs)
    model.compile(optimizer=keras.optimizers.SGD(1e-3), loss=losses if keras.tree.is_nested(outputs) else squares)


def apart_in_a_process(part, name, lite=True, fit=True, float64=False):
    """A row from a forked process, which shares the packages that were read and nothing else."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            if float64:
                import keras

                keras.config.set_floatx("float64")
                keras.config.set_dtype_policy("float64")
            text = json.dumps(measure(part, name, lite, fit))
        except BaseException as error:
            text = json.dumps(
                {
                    "network": name,
                    "error": f"{type(error).__name__}: {' '.join(str(error).split())}",
                    "traces": {"error": traceback.format_exc()[-3000:]},
                }
            )
        with os.fdopen(writing, "w") as file:
            file.write(text)
        os._exit(0)
    os.close(writing)
    os.set_blocking(reading, False)
    text, end, stopped = b"", time.monotonic() + SECONDS, None
    while True:
        try:
            part_of_text = os.read(reading, 1 << 16)
            if not part_of_text:
                break
            text += part_of_text
        except BlockingIOError:
            time.sleep(0.05)
        if time.monotonic() > end or resident(child) > GIGABYTES:
            stopped = f"more than {SECONDS} seconds" if time.monotonic() > end else f"more than {GIGABYTES} GB"
            os.kill(child, 9)
            break
    os.close(reading)
    os.waitpid(child, 0)
    if stopped or not text:
        return {"network": name, "error": stopped or "the process ended without a word"}
    return json.loads(text)


def resident(process):
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * 4096 / 1e9


TITLES = {"hub": "KerasHub's backbones and tasks", "hand": "Kinds of network as people write them"}


def lost(row):
    after = row.get("parameters_after")
    return 1 - after / row["parameters"] if isinstance(after, int) else None


def equal(row):
    """Within 1e-4 of the output's scale in float32, or within 1e-5 in float64."""
    float64 = row.get("difference_float64")
    if isinstance(float64, float):
        return float64 <= 1e-5
    return isinstance(row.get("difference"), float) and row["difference"] <= 1e-4


def way(row):
    """How far a network goes: yes, no, or not measured."""
    stages = ("prune", "wrap", "fit", "strip", "saves")
    return [
        "-" if stage not in row else "yes" if not isinstance(row[stage], str) else "no"
        for stage in (*stages, "lite_bytes")
    ]


def errors(row):
    """What stopped a network, one stage each, cut short."""
    found = [("built or run", row["error"])] if "error" in row else []
    found += [(key, value) for key, value in row.items() if isinstance(value, str) and key not in ("network", "error")]
    return (
        "; ".join(f"{key}: {value[:160]}" for key, value in found)
        .replace("|", "/")
        .replace("\x1b[1m", "")
        .replace("\x1b[0m", "")
    )


def table(part, rows):
    missing = [name for name in names(part) if name not in rows]
    measured = [rows[name] for name in names(part) if name in rows]
    far = [row for row in measured if (lost(row) or 0.0) >= 0.2 and equal(row)]
    less = [row for row in measured if row not in far]
    shares = [f"{row['network']} ({'-' if lost(row) is None else f'{lost(row):.1%}'})" for row in less]
    trained = [row for row in measured if not (row.get("wrap") is True and "fit" not in row)]
    unsaved = [row["network"] for row in trained if isinstance(row.get("keras_saves"), str)]
    trained = [row for row in trained if row["network"] not in unsaved]
    whole = [row for row in trained if all(word in ("yes", "callback") for word in way(row)[:5])]
    converted = [row for row in measured if isinstance(row.get("lite_bytes"), int)]
    alike = [row for row in converted if row.get("lite_difference", 1.0) <= 1e-4]
    tried = [row for row in measured if "lite_bytes" in row]
    lines = [
        f"## {TITLES[part]}",
        "",
        f"**{len(far)} of {len(measured)} lose at least 20 % of their parameters and are equal; {len(whole)} of "
        f"{len(trained)} that were trained a step, and that Keras itself saves and loads, go the whole way of pruning, "
        f"wrapping, a step of `fit`, stripping, saving and loading; {len(converted)} of {len(tried)} that were tried "
        f"convert, {len(alike)} of them with answers within 1e-4 of the smaller network's.**",
        *([f"Less, for the reasons below: {', '.join(shares)}.\n"] if shares else []),
        *([f"Keras itself does not load what it saves of: {', '.join(unsaved)}."] if unsaved else []),
        *([f"Not measured: {', '.join(missing)}."] if missing else []),
        "",
        "| network | parameters | after | lost | difference | prunable | groups | frozen | prune | wrap | fit | strip "
        "| saves | converts |",
        "|" + " --- |" + " ---: |" * 6 + " --- |" * 7,
    ]
    for row in measured:
        share = lost(row)
        frozen = ", ".join(f"{key.lower()} {value:.0%}" for key, value in row.get("reasons", {}).items())
        cells = [
            row["network"],
            f"{row['parameters']:,}" if "parameters" in row else "-",
            f"{row['parameters_after']:,}" if share is not None else "-",
            f"{share:.0%}" if share is not None else "-",
            *(
                f"{row[key]:.0e}" if isinstance(row.get(key), float) else "-"
                for key in ["difference_float64" if isinstance(row.get("difference_float64"), float) else "difference"]
            ),
            f"{row['prunable']:.0%}" if isinstance(row.get("prunable"), float) else "-",
            str(row.get("groups", "-")) if not isinstance(row.get("groups"), str) else "-",
            frozen or "-",
            *way(row),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    stopped = [row for row in measured if errors(row)]
    if stopped:
        lines += ["", "What stopped them:", "", *(f"- {row['network']}: {errors(row)}" for row in stopped)]
    shown = [row["network"] for row in measured if row.get("example") is True]
    if shown:
        lines += ["", f"Opened with an example of inputs, `tfprune.inline(model, data=inputs)`: {', '.join(shown)}."]
    closed = [row for row in measured if isinstance(row.get("closed"), list) and row["closed"]]
    if closed:
        lines += ["", "What stays closed, or is said of training:", ""]
        lines += [f"- {row['network']}: {' '.join(row['closed'])[:300]}" for row in closed]
    return lines


def page():
    import keras

    import tfprune

    lines = [
        "# Any network",
        "",
        "Made by `python benchmarks/networks_table.py hub` (with `keras-hub` installed) and "
        "`python benchmarks/networks_table.py hand`: small networks with random weights. `Structured(0.3)` prunes at "
        "once, `shrink` removes; *difference* is the largest between the masked network and the smaller one, relative "
        "to the scale of the output (in float64 where float32 gave more than 1e-5). *Prunable* is the share of "
        "parameters in kernels, *frozen* the share of channels that stay, by reason. *Saves* compares the stripped "
        "network with the one loaded from its file; *converts* is the smaller one, with the lengths of the data in the "
        "place of open ones (`sequence_length=`); a dash is not measured; "
        "*callback* is a subclassed network, which is trained as it is with `PercentilePruning` and not wrapped. Rows "
        "are kept, and brought up to date one by one.",
        "",
        f"Keras {keras.__version__}, tfprune {tfprune.__version__}.",
        "",
    ]
    for part in TITLES:
        path = RESULTS / f"networks_{part}.json"
        if path.exists():
            lines += [*table(part, {row["network"]: row for row in json.loads(path.read_text())}), ""]
    return "\n".join(lines).rstrip() + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=list(TITLES))
    parser.add_argument("names", nargs="*", help="networks; default all")
    parser.add_argument("--missing", action="store_true", help="only networks without a row")
    parser.add_argument("--no-lite", action="store_true", help="do not convert")
    parser.add_argument("--no-fit", action="store_true", help="do not train a step")
    parser.add_argument(
        "--output", type=Path, help="a JSON file for the rows; default docs/benchmarks/networks_PART.json"
    )
    options = parser.parse_args()
    unknown = set(options.names) - set(names(options.part))
    if unknown:
        parser.error(f"no such networks: {', '.join(sorted(unknown))}")
    path = options.output or RESULTS / f"networks_{options.part}.json"
    rows = {row["network"]: row for row in json.loads(path.read_text())} if path.exists() else {}
    import keras  # noqa: F401, read once for all that are forked
    import tensorflow  # noqa: F401

    import tfprune  # noqa: F401

    if options.part == "hub":
        import keras_hub  # noqa: F401
    for name in options.names or names(options.part):
        if options.missing and name in rows:
            continue
        row = apart_in_a_process(options.part, name, not options.no_lite, not options.no_fit)
        if isinstance(row.get("difference"), float) and not row["difference"] <= 1e-5:
            again = apart_in_a_process(options.part, name, False, False, True)
            row["difference_float64"] = again.get("difference", again.get("error"))
        row.pop("traces", None)
        rows[name] = row
        path.write_text(json.dumps([rows[key] for key in sorted(rows)], indent=1) + "\n")
        share = "-" if lost(row) is None else f"{lost(row):.0%}"
        said = [share, row.get("difference"), row.get("difference_float64"), errors(row), row.get("closed") or ""]
        print(name, *said, flush=True)
    if options.output is None:
        PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
