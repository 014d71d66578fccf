"""Lets the command `tfprune` begin at once, and keeps TensorFlow's native start-up messages out of what it prints.

Importing Keras takes seconds, so in the command's own process the package imports its contents only when there is work:
not for `--help`, nor to say that a word is mistyped. TensorFlow's libraries write to the process's standard error while
they are imported, before any setting of theirs is read (seen in TF 2.19 to 2.21: TF_CPP_MIN_LOG_LEVEL does not stop
them). So the package looks at this module before it imports Keras. In every other process it does nothing.
"""

import importlib
import os
import sys
from pathlib import Path


def is_command() -> bool:
    """Whether this process is `tfprune ...` or `python -m tfprune ...`, and not a program that imports the package."""
    script = sys.argv[0] if getattr(sys, "argv", None) else ""
    if script == "-m":  # Python's own mark while it looks for the module that it is to run
        return f"-m {__package__}" in " ".join(sys.orig_argv[1:])
    return Path(script).stem == __package__


def silence_native_messages() -> None:
    """Sends what native code writes to standard error nowhere; what Python writes there still arrives.

    Setting TF_CPP_MIN_LOG_LEVEL to any value leaves everything as it is: that user wants to choose.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    try:
        heard = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except (OSError, AttributeError):  # no standard error at all
        return
    sys.stderr = heard
    os.dup2(nowhere, 2)
    os.close(nowhere)


waits_for_work = is_command()


def begin_work() -> None:
    """Imports all of the package where that was put off, so that every class of its own is registered with Keras."""
    global waits_for_work  # noqa: PLW0603  (one process is one command)
    if waits_for_work:
        waits_for_work = False
        importlib.reload(sys.modules[str(__package__)])


if waits_for_work:
    silence_native_messages()
