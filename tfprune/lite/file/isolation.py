"""LiteRT in a process of its own, with a limit of time and of memory: what ends that process is an error here.

One process holds the interpreters of all isolated models of a program; when a file has ended it, the next one gets a
new one. It imports LiteRT alone, so it starts in a moment.
"""

import atexit
import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfprune.errors import ConversionError

SECONDS = 60.0  # for each call of an interpreter
MEMORY = 0.5  # of the machine's

# Requests come pickled: the number of an interpreter, the name of its method, arguments, and interpreters to forget.
# Answers, which a damaged file may have a hand in, are a line of JSON and the bytes of an array, and no code.
SCRIPT = """
import json, os, pickle, sys, time
answers = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # what native code prints does not go among the answers
import numpy
from ai_edge_litert.interpreter import Interpreter, OpResolverType
try:
    import resource
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
except (ImportError, OSError, ValueError):
    pass
kept = {}
while True:
    try:
        number, name, args, forgotten = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    for gone in forgotten:
        kept.pop(gone, None)
    said, data = {}, b""
    try:
        begin = time.perf_counter_ns()
        if name == "new":
            kind = args.pop("resolver")
            kept[number] = Interpreter(experimental_op_resolver_type=OpResolverType[kind], **args)
            result = None
        else:
            result = getattr(kept[number], name)(*args)
        said["spent"] = time.perf_counter_ns() - begin
        if isinstance(result, numpy.ndarray):
            said.update(dtype=result.dtype.str, shape=result.shape)
            data = result.tobytes()
    except Exception as error:
        said["error"] = str(error) or type(error).__name__
    answers.write(json.dumps({**said, "bytes": len(data)}).encode() + b"\\n" + data)
    answers.flush()
"""


class IsolatedInterpreter:
    """An interpreter in the other process, with the methods of LiteRT's that this package uses."""

    def __init__(self, content: bytes, options: Mapping[str, Any]):
        """Makes it.

        Args:
            content: The bytes of the file.
            options: What LiteRT's Interpreter takes, and `resolver`, the name of the kernels.
        """
        self._process = _Process.running()
        self._number = self._process.new({"model_content": content, **options})
        weakref.finalize(self, self._process.forget, self._number)

    def _ask(self, name: str, *args: Any) -> Any:
        return self._process.ask(self._number, name, args)[0]

    def allocate_tensors(self) -> None:
        """Takes the memory for its tensors."""
        self._ask("allocate_tensors")

    def resize_tensor_input(self, tensor: int, shape: Any) -> None:
        """Gives an input another shape."""
        self._ask("resize_tensor_input", tensor, tuple(shape))

    def set_tensor(self, tensor: int, value: np.ndarray) -> None:
        """Fills in an input."""
        self._ask("set_tensor", tensor, np.ascontiguousarray(value))

    def get_tensor(self, tensor: int) -> np.ndarray:
        """A copy of a tensor."""
        return self._ask("get_tensor", tensor)

    def invoke(self) -> int:
        """Runs it; the nanoseconds that it took there."""
        return self._process.ask(self._number, "invoke", ())[1]


class _Process:
    """The other process, and how to talk to it; one at a time for all threads."""

    _lock = threading.RLock()
    _now: "_Process | None" = None

    @classmethod
    def running(cls) -> "_Process":
        """The process, begun anew where a file has ended it."""
        with cls._lock:
            if cls._now is None or cls._now.over:
                cls._now = cls()
            return cls._now

    def __init__(self) -> None:
        command = [sys.executable, "-c", SCRIPT, str(int(MEMORY * machine_memory()))]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        atexit.register(self._end)
        self._count, self._forgotten, self.over, self._reason = 0, list[int](), False, ""

    def new(self, options: Mapping[str, Any]) -> int:
        with self._lock:
            self._count += 1
            self.ask(self._count, "new", dict(options))
            return self._count

    def forget(self, number: int) -> None:
        self._forgotten.append(number)  # told with the next request: a collection may come within one

    def ask(self, number: int, name: str, args: Any) -> tuple[Any, int]:
        """What a method of an interpreter gives, and the nanoseconds that it took.

        Raises:
            ConversionError: LiteRT refuses, or the process has ended or was ended since it took too long.
        """
        with self._lock:
            if self.over:
                raise ConversionError("the process of this interpreter has ended; make a new one.")
            timer = threading.Timer(SECONDS, self._end, (f"it took longer than {SECONDS:g} seconds",))
            timer.start()
            try:
                gone, self._forgotten = self._forgotten, []
                pickle.dump((number, name, args, gone), self._child.stdin)  # type: ignore[arg-type]
                self._child.stdin.flush()  # type: ignore[union-attr]
                said = json.loads(self._child.stdout.readline() or b"{}")  # type: ignore[union-attr]
                data = self._child.stdout.read(said["bytes"])  # type: ignore[union-attr]
            except (OSError, KeyError, ValueError) as error:
                self._end()
                raise ConversionError(f"{self._reason}, and ended its process. Is the file damaged?") from error
            finally:
                timer.cancel()
        if "error" in said:
            raise ConversionError(said["error"])
        array = np.frombuffer(data, said["dtype"]).reshape(said["shape"]).copy() if "dtype" in said else None
        return array, said["spent"]

    def _end(self, reason: str = "") -> None:
        """Ends the process; the first to do so knows why."""
        self._child.kill()
        with contextlib.suppress(OSError):
            code = self._child.wait()
            self._reason = self._reason or reason or f"LiteRT stopped with code {code}{_signal_name(code)}"
        self.over = True


def _signal_name(code: int) -> str:
    return f" ({signal.Signals(-code).name})" if code < 0 else ""


def machine_memory() -> float:
    """The bytes of this machine's memory; without a limit where that is not told."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return 2.0**62
