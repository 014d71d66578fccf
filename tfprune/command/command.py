"""What a subcommand is, and what several of them share."""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
from absl import flags

import tfprune
from tfprune.command import datasets
from tfprune.errors import PruningError, nearest
from tfprune.model import files
from tfprune.model.files import REPORT_KINDS, Samples
from tfprune.report import Report


class UsageError(Exception):
    """A command line that cannot be carried out as written."""


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Args:
        name: Its word.
        usage: The line that shows how it is written.
        effect: What it does, in one line.
        examples: Lines that run as they are after `tfprune demo --output demo`.
        files: The fewest and the most files that it takes.
        define: Adds its flags.
        run: Does the work with the files and the flags.
        required: Flags that must be given.
        details: More lines for its help.
    """

    name: str
    usage: str
    effect: str
    examples: tuple[str, ...]
    files: tuple[int, int]
    define: Callable[[flags.FlagValues], None]
    run: Callable[[list[str], flags.FlagValues], None]
    required: tuple[str, ...] = ()
    details: str = ""


DATA_HELP = (
    f"Inputs and labels: a .npz file (arrays x and y, or x_train ... y_test, or inputs by name), a .npy file, "
    f"or one of {', '.join(datasets.NAMES)} (scaled to [0, 1])."
)


def define_report(values: flags.FlagValues) -> None:
    """Adds the flags of a subcommand that shows a report."""
    flags.DEFINE_bool("json", False, "Print JSON in place of the table.", flag_values=values)
    flags.DEFINE_string(
        "output", None, f"Also write the report to a file: {', '.join(REPORT_KINDS)}.", flag_values=values
    )


def define_import(values: flags.FlagValues) -> None:
    """Adds the flag that imports a module of the user's."""
    flags.DEFINE_string(
        "import", None, "Module to import first, which registers layers of your own.", flag_values=values
    )


def define_file(values: flags.FlagValues, effect: str) -> None:
    """Adds the flags of a subcommand that reads a model and writes one file."""
    flags.DEFINE_string("output", None, effect, flag_values=values)
    flags.DEFINE_bool("json", False, "Print JSON in place of the table.", flag_values=values)
    define_import(values)


def define_data(values: flags.FlagValues, use: str) -> None:
    """Adds the flags that name data."""
    flags.DEFINE_string("data", None, f"{use} {DATA_HELP}", flag_values=values)
    flags.DEFINE_integer("samples", None, "Use only so many samples, the first.", lower_bound=1, flag_values=values)


@contextlib.contextmanager
def as_usage() -> Iterator[None]:
    """Turns what is wrong with the values of flags and files into wrong usage."""
    try:
        yield
    except PruningError as error:
        raise UsageError(str(error)) from error


def checked_output(values: flags.FlagValues, kinds: tuple[str, ...]) -> Path | None:
    """The path to write to, checked before any work is done."""
    with as_usage():
        return None if values["output"].value is None else files.output_path(values["output"].value, kinds)


def read_model(path: str, values: flags.FlagValues) -> keras.Model:
    """The Keras model of a file; its own layers are registered by `--import`."""
    with as_usage():
        files.existing_file(path)
    module = values["import"].value
    if module is not None:
        sys.path.insert(0, str(Path.cwd()))
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UsageError(f"--import={module}: {error}. Give the name of a module in this folder.") from error
    return files.load_model(path)


def read_lite(path: str) -> tfprune.LiteModel:
    """The `.tflite` model of a file."""
    with as_usage():
        files.existing_file(path)
    return tfprune.LiteModel.load(path)


def read_samples(values: flags.FlagValues, split: str, model: keras.Model) -> Samples:
    """The data of `--data`; a named set in the shape that the model takes."""
    source = values["data"].value
    if not Path(source).suffix:
        if source not in datasets.NAMES:
            known = nearest(source, datasets.NAMES)
            raise UsageError(f"--data={source} is no data set. {known} A file ends with .npz or .npy.")
        images, labels = datasets.load(source).split(split)
        inputs = model.inputs if getattr(model, "inputs", None) else []
        images = datasets.shaped(images, tuple(inputs[0].shape)) if len(inputs) == 1 else images
        samples = Samples(images, labels)
    else:
        with as_usage():
            files.existing_file(source)
        samples = files.load_samples(source, split)
    return samples.part(slice(values["samples"].value))


def show(report: Report, values: flags.FlagValues, output: Path | None = None) -> None:
    """Prints a report as a table or JSON, and writes it where `--output` says."""
    if output is not None:
        files.save_report(report, output)
    if values["json"].value:
        print(report.to_json())
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(report)
    else:
        print(report)
