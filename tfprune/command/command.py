"""What a subcommand is, and what several of them share; loaded before Keras, which is imported when there is work."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

import tfprune
from tfprune import quiet
from tfprune.command import datasets, samples
from tfprune.errors import PruningError
from tfprune.model import files
from tfprune.model.files import REPORT_KINDS
from tfprune.report import Report

if TYPE_CHECKING:
    import keras

    from tfprune.model.data import Batch


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
        takes_files: Whether the words beside the flags are files, which have to be there.
    """

    name: str
    usage: str
    effect: str
    examples: tuple[str, ...]
    files: tuple[int, int]
    options: tuple[Define, ...]
    run: Callable[[list[str], flags.FlagValues], None]
    required: tuple[str, ...] = ()
    takes_files: bool = True

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
    takes_files: bool = True,
) -> Callable[[Any], Any]:
    """Decorates the function that runs a subcommand; its docstring says the effect, the usage line its name."""

    def decorate(run: Callable[[list[str], Any], None]) -> Any:
        name = usage.split()[1]
        COMMANDS[name] = Command(name, usage, str(run.__doc__), examples, files, options, run, required, takes_files)
        return run

    return decorate


def flags_of(chosen: Command) -> dict[str, flags.Flag]:
    """The flags of a subcommand by their names, in alphabetical order."""
    values = flag_values(chosen)
    return {name: values[name] for name in sorted(values)}


def flag_values(chosen: Command) -> flags.FlagValues:
    """The flags of a subcommand at their defaults; apart from absl's global flags, which other libraries share."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # flags may stand behind files
    chosen.define(values)
    values.mark_as_parsed()
    return values


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
    "Inputs and labels: a .npz file (arrays x and y, or x_train ... y_test, or inputs by name), a .npy file, a .csv "
    "file (a line of headings, labels under y), a folder of images (a folder inside for each class; pixels 0 to 255), "
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
        number("divide_by", None, "Divide the inputs by this: 255 for pixels, if the model does not do it."),
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
    quiet.begin_work()
    module = values["import"].value
    if module is not None:
        sys.path.insert(0, str(Path.cwd()))
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UsageError(f"--import={module}: {error}. Give the name of a module in this folder.") from error
    return files.load_model(path)


def read_lite(path: str) -> tfprune.LiteModel:
    """The `.tflite` model of a file, which may be anybody's: LiteRT runs it in a process of its own."""
    return tfprune.LiteModel.load(path, isolate=True)


def read_samples(values: flags.FlagValues, split: str, model: keras.Model) -> Batch:
    """The data of `--data`, in the shape that the model takes."""
    return samples.load(values, split, model)


def show(
    report: Report,
    values: flags.FlagValues,
    output: Path | None = None,
    written: Path | None = None,
    remarks: Sequence[str] = (),
) -> None:
    """Prints a report as a table or JSON.

    Args:
        report: What to print.
        values: The flags; `--json` among them.
        output: Where to write the report too.
        written: A file that was written before, which is told below.
        remarks: Sentences on what was done, likewise.
    """
    if output is not None:
        files.save_report(report, output)
    if values.json:
        print(report.to_json())
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(report)
    else:
        print(report)
    for remark in remarks:
        print(remark, file=sys.stderr if values.json else sys.stdout)
    for path in (written, output):
        if path is not None:
            tell_written(path, values)


def tell_written(path: Path, values: flags.FlagValues) -> None:
    """Says which file was written: below the table, or on standard error where JSON is printed."""
    print(f"Written: {path} ({path.stat().st_size:,} bytes)", file=sys.stderr if values.json else sys.stdout)
