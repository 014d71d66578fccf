"""A benchmark talks with processes that measure: one JSON line with a question, one JSON line with the answer."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Peer:
    """A process that answers questions until the `with` block ends.

    Args:
        module: What to run, `"peers.tfmot_overhead"`.
        environment: Variables to set for it.
        python: The interpreter to run it. Defaults to None: this one.
    """

    def __init__(self, module: str, environment: Mapping[str, str] | None = None, python: str | None = None):
        folder = Path(__file__).parents[1]
        variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(environment or {})}
        self.process = subprocess.Popen(
            [python or sys.executable, "-W", "ignore", "-m", module],
            cwd=folder,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, question: str, **arguments: Any) -> Any:
        """Lets the peer run its function of this name."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"question": question, **arguments}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The process died over {question!r} with code {self.process.wait()}; see above.")
        return json.loads(answer)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def answer(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Answers questions from stdin until it is closed. What the functions print goes to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        arguments = json.loads(line)
        out.write(json.dumps(functions[arguments.pop("question")](**arguments)) + "\n")
        out.flush()
