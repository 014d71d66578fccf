"""Running `.tflite` files in LiteRT.js, the WebAssembly build for web pages, in Node or in a headless Chromium."""

import contextlib
import http.server
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import ConversionError, MissingPackageError, PruningError
from tfprune.lite.file.lite_model import LiteModel

PACKAGE = "@litertjs/core"
VERSION = "2.5.3"  # the one that figures and verdicts of tfprune come from
GET_NODE = f"apt-get install -y nodejs npm && npm install {PACKAGE}@{VERSION}"
GET_BROWSER = f"apt-get install -y chromium npm && npm install {PACKAGE}@{VERSION}"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
DRIVER = Path(__file__).with_name("litertjs.mjs")
DTYPES = ("float32", "int32", "uint8")  # of the tensors that LiteRT.js has
PAGE = """<!doctype html><meta charset="utf-8"><title>tfprune</title>
<script type="importmap">{"imports": {"@litertjs/core": "/package/core/dist/index.js",
"@litertjs/wasm-utils": "/package/wasm-utils/dist/index.js"}}</script>
<body><script type="module" src="/driver.mjs"></script></body>"""
KINDS = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}


@dataclass(frozen=True)
class WebRun:
    """What LiteRT.js made of one file.

    Args:
        milliseconds: The time of each timed run.
        outputs: What the first run answered, as the file has its outputs.
        failure: Why it cannot load or run the file; empty where it can.
    """

    milliseconds: tuple[float, ...]
    outputs: tuple[np.ndarray, ...]
    failure: str = ""


@dataclass(frozen=True)
class WebRuns:
    """What LiteRT.js made of some files in one process.

    Args:
        runs: By the names of the files.
        where: The program that ran it, with its version.
        version: That of LiteRT.js.
    """

    runs: Mapping[str, WebRun]
    where: str
    version: str


def run_web(
    models: Mapping[str, LiteModel],
    inputs: Mapping[str, Sequence[np.ndarray]],
    runs: int = 0,
    warmup: int = 0,
    browser: bool = False,
    litertjs: str | os.PathLike[str] | None = None,
    timeout: float = 600.0,
) -> WebRuns:
    """Runs files in LiteRT.js with one thread, in turns.

    Args:
        models: Files by name.
        inputs: For each name one array for each input of the file, of its types.
        runs: Timed runs of each, beside the first, whose answers are kept.
        warmup: Runs of each that are not timed.
        browser: Whether a headless Chromium runs it, and not Node.
        litertjs: The folder of the npm package @litertjs/core, or one with `node_modules`. Defaults to None: looked
            for in this folder and those above it, then where npm installs packages for all.
        timeout: Seconds after which it is given up.

    Raises:
        MissingPackageError: Node, Chromium or the npm package is missing; the message has the line that gets it.
        ConversionError: LiteRT.js did not come to an end.
    """
    package = find_package(litertjs, browser)
    program = find_program(browser)
    for name, arrays in inputs.items():
        odd = [array.dtype.name for array in arrays if array.dtype.name not in DTYPES]
        if odd:
            raise ConversionError(
                f"'{name}' takes {odd[0]} inputs, and LiteRT.js has tensors of {', '.join(DTYPES)} alone. Convert with "
                "io='float32'."
            )
    job = {
        "core": str(package / "dist" / "index.js"),
        "wasm": "/package/core/wasm/" if browser else f"{package / 'wasm'}/",
        "runs": runs,
        "warmup": warmup,
        "models": [[{"dtype": x.dtype.name, "shape": list(x.shape)} for x in inputs[name]] for name in models],
    }
    served = {f"/model/{number}": lite.content for number, lite in enumerate(models.values())}
    for number, name in enumerate(models):
        served |= {f"/input/{number}/{place}": array.tobytes() for place, array in enumerate(inputs[name])}
    served |= {"/job": json.dumps(job).encode(), "/": PAGE.encode(), "/driver.mjs": DRIVER.read_bytes()}
    with _serving(served, package.parent) as (address, received, done):
        _run(program, address, browser, done, timeout)
        told = json.loads(received.get("/done", b'{"error": "it ended without a word"}'))
    if "error" in told:
        raise ConversionError(f"LiteRT.js does not run in {program}: {' '.join(told['error'].split())[:300]}")
    found = {}
    for number, (name, lite) in enumerate(models.items()):
        raw = [received.get(f"/output/{number}/{place}") for place in range(len(lite.outputs))]
        outputs = [np.frombuffer(data, end.dtype) for data, end in zip(raw, lite.outputs) if data is not None]
        milliseconds = tuple(told["times"].get(str(number), ()))
        found[name] = WebRun(milliseconds, tuple(outputs), told["failures"].get(str(number), ""))
    version = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    return WebRuns(found, told["where"], version)


def find_program(browser: bool = False) -> str:
    """The path of Node or of Chromium.

    Raises:
        MissingPackageError: It is not on PATH.
    """
    names, get = (BROWSERS, GET_BROWSER) if browser else (("node",), GET_NODE)
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        raise MissingPackageError(
            f"Running LiteRT.js{' in a browser' if browser else ''} needs {names[0]}, which is not on PATH. "
            f"Write: {get}"
        )
    return found


def find_package(folder: str | os.PathLike[str] | None = None, browser: bool = False) -> Path:
    """The folder of the npm package @litertjs/core.

    Args:
        folder: That folder, or one that holds `node_modules`. Defaults to None: looked for.
        browser: Which program the message tells how to get.

    Raises:
        PruningError: The folder given does not hold it.
        MissingPackageError: It is nowhere.
    """
    get = GET_BROWSER if browser else GET_NODE
    if folder is not None:
        for place in (Path(folder), Path(folder) / "node_modules" / PACKAGE):
            if _is_package(place):
                return place.resolve()
        raise PruningError(f"litertjs='{folder}' does not hold the npm package {PACKAGE}. Write: {get}")
    here = Path.cwd()
    places = [above / "node_modules" for above in (here, *here.parents)]
    for place in places:
        if _is_package(place / PACKAGE):
            return (place / PACKAGE).resolve()
    npm = shutil.which("npm")
    if npm is not None:
        told = subprocess.run([npm, "root", "--global"], capture_output=True, text=True, check=False).stdout.strip()
        if told and _is_package(Path(told) / PACKAGE):
            return (Path(told) / PACKAGE).resolve()
    raise MissingPackageError(
        f"Running LiteRT.js needs the npm package {PACKAGE}, which is in no node_modules of '{here}' or above. "
        f"Write: {get}"
    )


def is_present(browser: bool = False) -> bool:
    """Whether all is there to run LiteRT.js."""
    try:
        return bool(find_program(browser) and find_package(browser=browser))
    except MissingPackageError:
        return False


def _is_package(folder: Path) -> bool:
    return (folder / "dist" / "index.js").is_file() and (folder.parent / "wasm-utils").is_dir()


@contextlib.contextmanager
def _serving(served: Mapping[str, bytes], packages: Path) -> Iterator[tuple[str, dict[str, bytes], threading.Event]]:
    """A server on this machine alone, that gives the job and takes the results.

    Args:
        served: Contents by path.
        packages: The folder whose files are under `/package/`.

    Yields:
        Its address, what was sent to it by path, and an event that is set when the run tells its end.
    """
    received: dict[str, bytes] = {}
    done = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = served.get(self.path)
            if content is None and self.path.startswith("/package/"):
                file = (packages / self.path.removeprefix("/package/")).resolve()
                content = file.read_bytes() if file.is_relative_to(packages) and file.is_file() else None
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Type", KINDS.get(Path(self.path).suffix, "text/html"))
            self.send_header("Content-Length", str(len(content or b"")))
            # A page alone in its process is given a clock of 5 microseconds, not of 100.
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(content or b"")

        def do_POST(self) -> None:
            received[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()
            if self.path == "/done":
                done.set()

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    worker = threading.Thread(target=server.serve_forever, daemon=True)
    worker.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", received, done
    finally:
        server.shutdown()
        server.server_close()
        worker.join()


def _run(program: str, address: str, browser: bool, done: threading.Event, timeout: float) -> None:
    """Lets Node or Chromium do the job at an address, and ends it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        headless = ["--headless=new", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:  # Chromium has no sandbox for root
            headless.append("--no-sandbox")
        words = [program, *headless, address] if browser else [program, str(DRIVER), address]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                waited = 0.0
                while not done.wait(0.05) and process.poll() is None:
                    waited += 0.05
                    if waited > timeout:
                        raise ConversionError(
                            f"LiteRT.js in {program} has not come to an end in {timeout:.0f} seconds."
                        )
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
