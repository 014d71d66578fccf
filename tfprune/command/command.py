"""What a subcommand is, and what several of them share."""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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


Define = Callable[..., Any]  # defines a flag, given flag_values


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Args:
        name: Its word.
        usage: The line that shows how it is written.
        effect: What it does, in one line.
        examples: Lines that run as they are after `tfprune demo --output demo`.
        files: The fewest and the most files that it takes.
        options: Define its flags.
        run: Does the work with the files and the flags.
        required: Flags that must be given.
    """

    name: str
    usage: str
    effect: str
    examples: tuple[str, ...]
    files: tuple[int, int]
    options: tuple[Define, ...]
    run: Callable[[list[str], flags.FlagValues], None]
    required: tuple[str, ...] = ()

    def define(self, values: flags.FlagValues) -> None:
        """Adds its flags to these values."""
        for define in self.options:
            define(flag_values=values)


COMMANDS: dict[str, Command] = {}


def command(
    usage: str,
    *examples: str,
    files: tuple[int, int] = (1, 1),
    options: tuple[Define, ...],
    required: tuple[str, ...] = (),
) -> Callable[[Any], Any]:
    """Decorates the function that runs a subcommand; its docstring says the effect, the usage line its name."""

    def decorate(run: Callable[[list[str], Any], None]) -> Any:
        name = usage.split()[1]
        COMMANDS[name] = Command(name, usage, str(run.__doc__), examples, files, options, run, required)
        return run

    return decorate


# A flag, defined once the values that hold it are there: text("output", None, "Where to write it.").
text, switch, words_of, one_of, count, number = (
    partial(partial, define)
    for define in (
        flags.DEFINE_string,
        flags.DEFINE_bool,
        flags.DEFINE_list,
        flags.DEFINE_enum,
        flags.DEFINE_integer,
        flags.DEFINE_float,
    )
)

DATA_HELP = (
    f"Inputs and labels: a .npz file (arrays x and y, or x_train ... y_test, or inputs by name), a .npy file, "
    f"or one of {', '.join(datasets.NAMES)} (scaled to [0, 1])."
)
JSON = switch("json", False, "Print JSON in place of the table.")
IMPORT = text("import", None, "Module to import first, which registers layers of your own.")
REPORT = (JSON, text("output", None, f"Also write the report to a file: {', '.join(REPORT_KINDS)}."))


def writes(effect: str) -> tuple[Define, ...]:
    """The flags of a subcommand that reads a model and writes one file."""
    return (text("output", None, effect), JSON, IMPORT)


def reads(use: str) -> tuple[Define, ...]:
    """The flags that name data."""
    return (
        text("data", None, f"{use} {DATA_HELP}"),
        count("samples", None, "Use only so many samples, the first.", lower_bound=1),
    )


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
        return None if values.output is None else files.output_path(values.output, kinds)


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
    source = values.data
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
    return samples.part(slice(values.samples))


def show(report: Report, values: flags.FlagValues, output: Path | None = None) -> None:
    """Prints a report as a table or JSON, and writes it where `--output` says."""
    if output is not None:
        files.save_report(report, output)
    if values.json:
        print(report.to_json())
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(report)
    else:
        print(report)
