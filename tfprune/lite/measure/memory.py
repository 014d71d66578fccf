"""The memory that a process needs to run a `.tflite` file, measured in a process of its own."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tfprune.errors import ConversionError
from tfprune.model.native import reason_of

# VmHWM and not getrusage, whose maximum a process inherits from the one that started it.
SCRIPT = """
import sys
from ai_edge_litert.interpreter import Interpreter, OpResolverType
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
kind = OpResolverType.AUTO if sys.argv[3] == "1" else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
before = peak()
interpreter = Interpreter(sys.argv[1], num_threads=int(sys.argv[2]), experimental_op_resolver_type=kind)
interpreter.allocate_tensors()
interpreter.invoke()
print("peak", peak() - before)
"""


def process_memory(content: bytes, threads: int = 1, xnnpack: bool = True) -> int:
    """Bytes by which loading and running a file once raises the peak memory of a fresh process.

    That holds the file, its tensors, what the kernels keep packed, and their code as it is first used; the interpreter
    itself is loaded before. The system counts in pages, and small models drown in them.

    Args:
        content: The bytes of the file.
        threads: Threads that the kernels may use.
        xnnpack: Whether XNNPACK kernels may be used.

    Raises:
        ConversionError: The process failed, or this system does not tell the memory of processes.
    """
    with tempfile.TemporaryDirectory(prefix="tfprune") as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        command = [sys.executable, "-c", SCRIPT, str(path), str(threads), str(int(xnnpack))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout.split()
    if done.returncode or len(said) != 2:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ConversionError(f"Its memory cannot be measured: {reason_of(RuntimeError(last[0]))}")
    return int(said[1])
