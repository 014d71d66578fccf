"""The command `tfprune`: finds the subcommand, reads its flags, prints help, and turns errors into one line.

Exit codes: 0 done, 1 the work failed, 2 the command line was wrong. What the subcommands do is in commands/.
"""

import os
import sys
import warnings
from collections.abc import Sequence

from absl import flags

from tfprune.command import COMMANDS, Command, UsageError
from tfprune.errors import ConversionError, PruningError, nearest
from tfprune.version import __version__

OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


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
    name, *rest = words
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
            "tfprune SUBCOMMAND --help tells its flags. Exit codes: 0 done, 1 failed, 2 wrong usage.",
        ]
    )


def help_text(command: Command) -> str:
    """What `tfprune SUBCOMMAND --help` prints."""
    values = flag_values(command)
    defined = [values[name] for name in sorted(values)]
    width = max(len(flag.name) for flag in defined) + 2
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
            "flags:",
            *lines,
            "",
            "example:",
            *(f"  {line}" for line in command.examples),
        ]
    )


def flag_values(command: Command) -> flags.FlagValues:
    """The flags of a subcommand at their defaults; apart from absl's global flags, which other libraries share."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # flags may stand behind files
    command.define(values)
    values.mark_as_parsed()
    return values


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
    return files


def _fail(message: str, code: int) -> int:
    print(f"tfprune: {' '.join(message.split())}", file=sys.stderr)
    return code


def _print_warning(message: Warning | str, *where: object) -> None:
    print(f"tfprune: warning: {str(message).removeprefix('tfprune: ')}", file=sys.stderr)
