"""The command `tfprune`: finds the subcommand, reads its flags, prints help, and turns errors into one line."""

import os
import re
import sys
import warnings
from collections.abc import Sequence

from absl import flags

from tfprune.command import COMMANDS, Command, UsageError, samples
from tfprune.command.command import as_usage, flag_values, flags_of
from tfprune.errors import ConversionError, PruningError, nearest, printable
from tfprune.model.files import existing_file
from tfprune.version import __version__

OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
EXIT_CODES = {
    OK: "done",
    FAILED: "the work failed, or a bound that was asked for is broken",
    WRONG_USAGE: "the command line is wrong; nothing was done",
    INTERRUPTED: "interrupted",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
        arguments: The words after `tfprune`. Defaults to those of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", category=UserWarning, message="tfprune")
            warnings.filterwarnings("default", category=UserWarning, module="tfprune")
            warnings.showwarning = _print_warning  # type: ignore[assignment]
            return _run(words)
    except UsageError as error:
        return _fail(str(error), WRONG_USAGE)
    except (PruningError, ConversionError) as error:
        return _fail(str(error), FAILED)
    except BrokenPipeError:  # the reader of a pipe has seen enough, as in `tfprune summary m.keras | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return _fail("interrupted; no file was left half-written.", INTERRUPTED)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        chosen = COMMANDS.get(words[1]) if len(words) > 1 else None
        print(overview() if chosen is None else help_text(chosen))
        return OK if words else WRONG_USAGE
    name, *rest = words[:1] + [_underscored(word) for word in words[1:]]
    if name == "--version":
        print(f"tfprune {__version__}")
        return OK
    if name not in COMMANDS:
        kind = "flag" if name.startswith("-") else "subcommand"
        raise UsageError(f"there is no {kind} '{name}'. {nearest(name, COMMANDS)} See tfprune --help.")
    command = COMMANDS[name]
    if any(word in ("-h", "--help") for word in rest):
        print(help_text(command))
        return OK
    values = flag_values(command)
    command.run(_parsed(command, values, rest), values)
    return OK


def overview() -> str:
    """What `tfprune --help` prints."""
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: tfprune SUBCOMMAND [FILES] [FLAGS]",
            "",
            "Prunes Keras models, converts them to TFLite, and measures what it did.",
            "",
            *(f"  {command.name:{width}}  {command.effect}" for command in COMMANDS.values()),
            "",
            "example:",
            "  tfprune demo",
            "",
            "tfprune SUBCOMMAND --help tells its flags. -o and --out are --output. NO_COLOR=1 prints without colour.",
            "",
            "exit codes:",
            *(f"  {code:{width}}  {meaning}" for code, meaning in EXIT_CODES.items()),
        ]
    )


def help_text(command: Command) -> str:
    """What `tfprune SUBCOMMAND --help` prints."""
    defined = list(flags_of(command).values())
    width = max((len(flag.name) for flag in defined), default=0) + 2
    lines = []
    for flag in defined:
        default = "" if flag.default in (None, False) else f" Defaults to {flag.default}."
        lines.append(f"  --{flag.name:{width}}{flag.help}{default}")
    return "\n".join(
        [
            f"usage: {command.usage}",
            "",
            command.effect,
            "",
            *(["flags:", *lines, ""] if lines else []),
            "example:",
            *(f"  {line}" for line in command.examples),
        ]
    )


def _underscored(word: str) -> str:
    """A flag as it is defined: `-o` and `--out` are `--output`, and `--max-drop` is `--max_drop`."""
    found = re.fullmatch(r"(-o|--[^=]+)(=.*)?", word, re.DOTALL)
    if not found:
        return word
    name = found[1].replace("-", "_").replace("__", "--", 1) if found[1] != "-o" else "--output"
    return ("--output" if name == "--out" else name) + (found[2] or "")


def _parsed(command: Command, values: flags.FlagValues, words: list[str]) -> list[str]:
    """Reads the words into flags; returns the files among them."""
    help_hint = f"See tfprune {command.name} --help."
    try:
        files = values([f"tfprune {command.name}", *words])[1:]
    except flags.UnrecognizedFlagError as error:
        known = nearest(f"--{error.flagname}", [f"--{name}" for name in values])
        raise UsageError(f"tfprune {command.name} has no flag --{error.flagname}. {known} {help_hint}") from error
    except flags.Error as error:
        raise UsageError(f"{str(error).rstrip('.')}. {help_hint}") from error
    for name in command.required:
        if values[name].value is None:
            raise UsageError(f"--{name} is missing. Write {command.usage}")
    fewest, most = command.files
    if not fewest <= len(files) <= most:
        came = "none" if not files else " ".join(files)
        raise UsageError(f"files given: {came}. Write {command.usage}")
    with as_usage():
        for file in files if command.takes_files else []:
            existing_file(file)
        if "data" in values and values.data is not None:
            samples.check_source(values.data)
    return files


def _fail(message: str, code: int) -> int:
    print(f"tfprune: {' '.join(printable(message).split())}", file=sys.stderr)
    return code


def _print_warning(message: Warning | str, *where: object) -> None:
    print(f"tfprune: warning: {printable(str(message)).removeprefix('tfprune: ')}", file=sys.stderr)
