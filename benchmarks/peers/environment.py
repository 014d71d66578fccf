"""An environment of its own for a peer, made once: packages that do not go with Keras 3, or of another framework."""

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path.home() / ".cache" / "tfprune" / "peers"


class NotInstalledError(Exception):
    """A peer's packages cannot be had here; says why."""


def python_of(name: str, packages: Sequence[str], folder: Path = FOLDER) -> str:
    """The interpreter of an environment with some packages, which is made where it is not there yet.

    Args:
        name: Of the environment.
        packages: What pip is to install.
        folder: Where environments are kept.

    Raises:
        NotInstalledError: They cannot be installed.
    """
    place = folder / name
    python, done = place / "bin" / "python", place / "installed.txt"
    if done.exists() and done.read_text().split() == list(packages):
        return str(python)
    print(f"Installing {' '.join(packages)} in {place}", file=sys.stderr, flush=True)
    try:
        venv.create(place, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        told = str(getattr(error, "stderr", "") or error).strip().splitlines()
        raise NotInstalledError(told[-1] if told else type(error).__name__) from error
    done.write_text("\n".join(packages))
    return str(python)
