"""Subcommands that lead to a device: convert, inspect, verify, benchmark."""

from pathlib import Path

from absl import flags

import tfprune
from tfprune.command.command import (
    Command,
    UsageError,
    as_usage,
    checked_output,
    define_data,
    define_file,
    define_import,
    define_report,
    read_lite,
    read_model,
    read_samples,
    show,
)
from tfprune.errors import PruningError, listing
from tfprune.lite.measure.micro import run_micro
from tfprune.lite.measure.operator_times import time_operators
from tfprune.lite.measure.phone import is_phone_output, phone_lines
from tfprune.model.files import REPORT_KINDS


def _define_convert(values: flags.FlagValues) -> None:
    flags.DEFINE_enum(
        "quantization",
        "float32",
        ["float32", "float16", "dynamic", "int8", "int16x8"],
        "Numbers in the file; int8 and int16x8 need --data.",
        flag_values=values,
    )
    flags.DEFINE_enum("io", "int8", ["int8", "float32"], "Inputs and outputs of an integer model.", flag_values=values)
    flags.DEFINE_bool("sparse", False, "Store zeros sparsely; float32 and float16 only.", flag_values=values)
    flags.DEFINE_list(
        "float_layers", None, "Names of layers that stay in float in an int8 file, with commas.", flag_values=values
    )
    flags.DEFINE_enum(
        "weight_bits", "8", ["4", "8"], "Bits of dense and convolution kernels in an int8 file.", flag_values=values
    )
    flags.DEFINE_bool(
        "bias_correction", False, "Take off by biases what int8 adds on average over --data.", flag_values=values
    )
    define_data(values, "Typical inputs; a few hundred are enough.")
    define_file(values, "Where to write the .tflite file.")


def _convert(words: list[str], values: flags.FlagValues) -> None:
    output = checked_output(values, (".tflite",))
    quantization = values["quantization"].value
    if quantization in ("int8", "int16x8") and values["data"].value is None:
        raise UsageError(
            f"--quantization={quantization} needs typical inputs. Write --data train.npz, with an array x."
        )
    model = read_model(words[0], values)
    samples = None if values["data"].value is None else read_samples(values, "train", model).inputs
    lite = tfprune.convert(
        model,
        quantization=quantization,
        representative_data=samples,
        io=values["io"].value,
        sparse=values["sparse"].value,
        float_layers=values["float_layers"].value or (),
        weight_bits=int(values["weight_bits"].value),
        bias_correction=values["bias_correction"].value,
    )
    lite.save(output)  # type: ignore[arg-type]  # --output is required
    show(lite.inspect(), values)


def _define_pattern(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "pattern", None, "Fail where a kernel breaks this N:M pattern, such as 2:4.", flag_values=values
    )
    flags.DEFINE_list("layers", None, "Parts of names of the kernels that --pattern asks.", flag_values=values)


def _define_inspect(values: flags.FlagValues) -> None:
    _define_pattern(values)
    define_report(values)


def _inspect(words: list[str], values: flags.FlagValues) -> None:
    output = checked_output(values, REPORT_KINDS)
    result = read_lite(words[0]).inspect()
    pattern = values["pattern"].value
    broken = []
    if pattern is not None:
        with as_usage():
            broken = result.breaking(pattern, values["layers"].value)
    show(result, values, output)
    if broken:
        raise PruningError(f"not {pattern}: {listing(broken)}.")


def _define_verify(values: flags.FlagValues) -> None:
    define_data(values, "Inputs to compare on, with labels for the accuracies.")
    flags.DEFINE_float(
        "min_agreement", 0.99, "Fail below this share of equal top-1 answers.", 0.0, 1.0, flag_values=values
    )
    for name, what in (("min_accuracy", "accuracy"), ("min_f1", "F1")):
        flags.DEFINE_float(name, None, f"Fail below this {what} of the .tflite.", 0.0, 1.0, flag_values=values)
    for name, what in (("max_difference", "absolute difference"), ("max_relative_error", "relative error")):
        flags.DEFINE_float(name, None, f"Fail above this {what} of any output.", lower_bound=0.0, flag_values=values)
    flags.DEFINE_bool("integers", False, "Fail where an operator computes in floating point.", flag_values=values)
    flags.DEFINE_bool("by_layer", False, "Show the error behind every layer too.", flag_values=values)
    define_report(values)
    define_import(values)


def _verify(words: list[str], values: flags.FlagValues) -> None:
    output = checked_output(values, REPORT_KINDS)
    model, lite = read_model(words[0], values), read_lite(words[1])
    samples = read_samples(values, "test", model)
    result = tfprune.verify(model, lite, samples.inputs, labels=samples.labels, layers=values["by_layer"].value)
    show(result, values, output)
    names = ("min_agreement", "min_accuracy", "min_f1", "max_difference", "max_relative_error", "integers")
    bounds = {name: values[name].value for name in names}
    if result.agreement is None and not values["min_agreement"].present:  # a regression has no top-1
        bounds["min_agreement"] = None
    broken = result.broken(**bounds)
    if broken:
        raise PruningError(
            "; ".join(broken) + ". Convert with more typical --data, with --float_layers, or with --quantization "
            "int16x8 or dynamic."
        )


def _define_benchmark(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("runs", 100, "Timed runs of each model.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("threads", 1, "Threads of the interpreter.", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("xnnpack", True, "Use XNNPACK kernels; --noxnnpack times the plain ones.", flag_values=values)
    flags.DEFINE_bool("memory", False, "Measure the memory of a process that runs each, too.", flag_values=values)
    flags.DEFINE_bool("operators", False, "Time each operator of one file in place of whole files.", flag_values=values)
    flags.DEFINE_bool("micro", False, "Run one file as on a microcontroller: arena, answers.", flag_values=values)
    flags.DEFINE_bool("phone", False, "Print the lines that measure the files on an Android phone.", flag_values=values)
    define_report(values)


def _benchmark(words: list[str], values: flags.FlagValues) -> None:
    output = checked_output(values, REPORT_KINDS)
    stems = [Path(word).stem for word in words]
    names = stems if len(set(stems)) == len(stems) else words
    models = {name: word if is_phone_output(word) else read_lite(word) for name, word in zip(names, words)}
    how = {name: values[name].value for name in ("runs", "threads", "xnnpack")}
    if values["phone"].value:
        print("\n\n".join(phone_lines(word, **how) for word in words))
    elif values["operators"].value or values["micro"].value:
        if len(words) != 1:
            flag = "operators" if values["operators"].value else "micro"
            raise UsageError(f"--{flag} takes one file, and {len(words)} came.")
        (model,) = models.values()
        show(run_micro(model) if values["micro"].value else time_operators(model, **how), values, output)
    else:
        show(tfprune.benchmark(models, memory=values["memory"].value, **how), values, output)


COMMANDS = (
    Command(
        "convert",
        "tfprune convert MODEL.keras --quantization int8 --data TRAIN.npz --output MODEL.tflite",
        "Makes a .tflite file of a Keras model.",
        ("tfprune convert demo/pruned.keras --quantization int8 --data digits --output pruned.tflite",),
        (1, 1),
        _define_convert,
        _convert,
        required=("output",),
    ),
    Command(
        "inspect",
        "tfprune inspect MODEL.tflite",
        "Shows operators, types, bytes and zeros of a .tflite file.",
        ("tfprune inspect demo/pruned.tflite",),
        (1, 1),
        _define_inspect,
        _inspect,
    ),
    Command(
        "verify",
        "tfprune verify MODEL.keras MODEL.tflite --data TEST.npz",
        "Compares the answers of a Keras model and its .tflite file; fails when they differ.",
        (
            "tfprune verify demo/pruned.keras demo/pruned.tflite --data digits",
            "tfprune verify demo/pruned.keras demo/pruned.tflite --data digits --min_f1 0.9 --integers --by_layer",
        ),
        (2, 2),
        _define_verify,
        _verify,
        required=("data",),
    ),
    Command(
        "benchmark",
        "tfprune benchmark MODEL.tflite [OTHER.tflite ... PHONE.txt ...]",
        "Measures bytes and milliseconds of .tflite files on this machine, in turns.",
        (
            "tfprune benchmark demo/dense.tflite demo/pruned.tflite",
            "tfprune benchmark demo/pruned.tflite --operators",
            "tfprune benchmark demo/pruned.tflite --phone",
        ),
        (1, 99),
        _define_benchmark,
        _benchmark,
    ),
)
