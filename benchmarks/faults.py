"""What becomes of damaged files, hostile names, threads and killed runs.

    python benchmarks/faults.py mutations --count 10000 --output docs/benchmarks/faults_mutations
    python benchmarks/faults.py names --output docs/benchmarks/faults_names
    python benchmarks/faults.py threads --output docs/benchmarks/faults_threads
    python benchmarks/faults.py kills --output docs/benchmarks/faults_kills
    python benchmarks/faults.py walks --walks 1000 --output docs/benchmarks/faults_walks
    python benchmarks/faults.py page

`mutations` damages files of every format by bit flips, cuts, blocks of zeros and blocks of noise, and uses each: a
`.tflite` is inspected, run, compared with its model, and timed. A foreign exception, a use that hangs, a result that
differs in silence where there is a checksum: each is counted. `names` takes layers of hostile names the whole way,
`threads` calls, converts and trains from several threads, `kills` ends searches by SIGKILL and goes on with them,
`walks` takes random networks through the stages in random order (tests/walks.py) and looks at the laws after each.
`page` writes the table of docs/reliability.md from these files.
"""

import argparse
import copy
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.report import Column

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import damaged

ROOT = Path(__file__).resolve().parent.parent
NAMES = [
    "[red]x",
    "esc\x1b[31mred",
    "<img src=x onerror=alert(1)>",
    r"$\frac$",
    "_under",
    "1|2",
    "line\nbreak",
    "naïve Ω",
] + ["abc\u202edef", "100%", "emoji😀", "semi;colon", "a\\b", "`code`", "*b*", "tab\tx", "caret^", "#h", "a b", "-d"]
WALKS_AT_ONCE = 20
SEARCH = """
import os, signal, sys
import keras, numpy as np
import tfprune

left = int(sys.argv[2])
generator = np.random.default_rng(0)
x, y = generator.random((64, 8)).astype("float32"), generator.integers(0, 3, 64)
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(12, "relu"),
                          keras.layers.Dense(3, "softmax")])
model.compile("sgd", "sparse_categorical_crossentropy")

def kept(candidate):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return float(sum(mask.sum() for mask in candidate.masks.values()))

tfprune.genetic_search(model, (x, y), (kept, "accuracy"), journal=sys.argv[1], population=8, generations=4, verbose=0)
"""


def mutations(options: argparse.Namespace) -> Measured:
    """Counts of outcomes for damaged files of each format."""
    generator, rows = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as folder:
        formats = damaged.formats(Path(folder))
    each = -(-options.count // len(formats))
    for name, (content, use, has_checksum) in formats.items():
        whole, found = use(content), Counter[str]()
        for number in range(each):
            kind = damaged.KINDS[number % len(damaged.KINDS)]
            found[damaged.outcome(use, damaged.mutated(content, kind, generator), whole, has_checksum)] += 1
        raw = sum(count for outcome, count in found.items() if outcome.startswith("raw"))
        known = {key: found[key] for key in ("refused", "told", "same", "other", "child ended", "silent", "hangs")}
        rows.append({"format": name, "files": each, **known, "raw": raw})
        print(rows[-1], flush=True)
    headings = {
        "refused": "refused", "told": "told by a warning", "same": "same result", "other": "other result, no checksum",
        "child ended": "other process ended", "silent": "silent difference", "hangs": "longer than 90 s",
        "raw": "foreign exceptions",
    }  # fmt: skip
    columns = [Column("format", "format"), Column("files", "damaged files", ",d")]
    columns += [Column(key, heading, ",d") for key, heading in headings.items()]
    return Measured(rows, [
        f"{each * len(rows):,} damaged files, seed {options.seed}: a quarter each by one to eight flipped bits, a cut, "
        "a block of zeros, a block of noise of up to 256 bytes. Files of LiteRT run in a process of their own "
        "(isolate=True); 'other process ended' is an error of ours in the caller.",
        "A .tflite file has no checksum: a changed weight gives another result, which nothing can tell from the file.",
        versions(),
    ], "Damaged files", columns)  # fmt: skip


def names(options: argparse.Namespace) -> Measured:
    """Stages that layers of hostile names go through."""
    generator, rows = np.random.default_rng(0), []
    x, y = generator.random((32, 8)).astype("float32"), generator.integers(0, 3, 32)
    for name in NAMES:
        keras.utils.set_random_seed(0)
        layers = [keras.Input((8,)), keras.layers.Dense(16, "relu", name=name), keras.layers.Dense(3, name="last")]
        model = keras.Sequential(layers, name="model")
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        model = tfprune.prune(model, tfprune.Percentile(0.5))
        lite = tfprune.convert(model, "int8", x)
        with tempfile.TemporaryDirectory() as folder:
            tfprune.summary(model).plot(Path(folder) / "plot.png")
        shown = [str(lite.inspect()), str(tfprune.summary(model)), tfprune.summary(model).to_markdown()]
        verified = tfprune.verify(model, lite, x)
        scanned = tfprune.sensitivity(model, (x, y), levels=(0.5,), verbose=0)
        searched = tfprune.genetic_search(model, (x, y), population=4, generations=1, seed=0, verbose=0)
        rows.append({
            "name": name,
            "alias": tfprune.model.aliases.aliases_of(model).get(name),
            "controls": sum(not each.isprintable() and each != "\n" for text in shown for each in text),
            "tags": shown[2].count("<"),
            "zeros": verified.zeros_kept / verified.zeros,
            "scanned": len(scanned.values),
            "failed": sum(candidate.failure is not None for candidate in searched.evaluated),
        })  # fmt: skip
    columns = [Column("name", "name of the layer"), Column("alias", "alias for TensorFlow"),
               Column("controls", "control characters printed", ",d"), Column("tags", "tags in Markdown", ",d"),
               Column("zeros", "zeros kept in int8", ".1%"), Column("scanned", "weights in sensitivity", ",d"),
               Column("failed", "failed candidates", ",d")]  # fmt: skip
    return Measured(rows, [
        "Each model is pruned, converted to int8, inspected, printed, plotted, verified, scanned and searched.",
        "Keras itself compiles no training step of a layer whose name TensorFlow refuses: fit such a model with "
        "run_eagerly=True, or rename the layer.",
        versions(),
    ], "Hostile names", columns)  # fmt: skip


def threads(options: argparse.Namespace) -> Measured:
    """Calls, conversions and trainings from three threads, against the same one after the other."""
    generator = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((256,)), keras.layers.Dense(1024), keras.layers.Dense(256)])
    batches = [generator.normal(size=(20 + number % 5, 256)).astype("float32") for number in range(180)]
    lite = tfprune.convert(model, batch_size=None)
    stream = os.fstat(2).st_ino

    def compared(work: Callable[[Any], Any], alone: Callable[[Any], Any], tasks: Sequence[Any]) -> int:
        expected = [alone(task) for task in tasks]
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda task: _or_error(work, task), tasks))
        return sum(not damaged.equal(one, other) for one, other in zip(expected, found))

    def masks(seed: int) -> Any:
        keras.utils.set_random_seed(seed)
        start = keras.initializers.GlorotUniform(seed)
        net = keras.Sequential([keras.Input((256,)), keras.layers.Dense(32, kernel_initializer=start)])
        net.compile("sgd", "mse")
        net.fit(batches[0], batches[0][:, :32], epochs=4, shuffle=False, verbose=0,
                callbacks=[tfprune.PercentilePruning(0.7)])  # fmt: skip
        return [np.asarray(mask) for mask in tfprune.get_masks(net).values()]

    small = keras.Sequential([keras.Input((16,)), keras.layers.Dense(8)])
    rows = [
        {"what": "calls of one LiteModel", "tasks": 180, "wrong": compared(lite, copy.copy(lite), batches)},
        {"what": "conversions of one model", "tasks": 9,
         "wrong": compared(lambda _: tfprune.convert(small)(batches[0][:, :16]),
                           lambda _: tfprune.convert(small)(batches[0][:, :16]), range(9))},
        {"what": "trainings with a pruning callback", "tasks": 6, "wrong": compared(masks, masks, range(6))},
        {"what": "standard error elsewhere than before", "tasks": 1, "wrong": int(os.fstat(2).st_ino != stream)},
    ]  # fmt: skip
    columns = [Column("what", "what three threads do"), Column("tasks", "tasks", ",d"), Column("wrong", "wrong", ",d")]
    about = ["Wrong: another result than one after the other, or an error.", versions()]
    return Measured(rows, about, "Threads", columns)


def _or_error(work: Callable[[Any], Any], task: Any) -> Any:
    try:
        return work(task)
    except Exception as error:
        return repr(error)


def kills(options: argparse.Namespace) -> Measured:
    """Searches that are killed again and again, against one that is not."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}

        def run(journal: Path, left: int) -> int:
            command = [sys.executable, "-c", SEARCH, str(journal), str(left)]
            return subprocess.run(command, env=environment, capture_output=True, check=False).returncode

        run(whole, -1)
        generator = random.Random(options.seed)
        for number in range(options.kills):
            code = run(killed, generator.randrange(1, 6))
            lines = killed.read_bytes().count(b"\n") if killed.exists() else 0
            rows.append(
                {"run": number + 1, "ended": signal.Signals(-code).name if code < 0 else str(code), "lines": lines}
            )
        code = run(killed, -1)
        same = killed.read_bytes() == whole.read_bytes()
        rows.append({"run": len(rows) + 1, "ended": str(code), "lines": killed.read_bytes().count(b"\n")})
        count = sum(1 for line in whole.read_text().splitlines() if "genes" in json.loads(line))
    columns = [Column("run", "run", ",d"), Column("ended", "ended by"), Column("lines", "lines in the journal", ",d")]
    return Measured(rows, [
        f"The journal of the last run is {'equal' if same else 'NOT EQUAL'}, byte by byte, to that of a search "
        f"that was never killed ({count} evaluations). Seed {options.seed}.",
        versions(),
    ], "A search that is killed", columns)  # fmt: skip


def walks(options: argparse.Namespace) -> Measured:
    """Random walks over the workflow, in processes of their own, for TensorFlow keeps what it has compiled."""
    stages, failed, taken, number = Counter[str](), [], 0, options.seed
    folders = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "TF_CPP_MIN_LOG_LEVEL": "3"}
    end = time.monotonic() + 60 * options.minutes
    while taken < options.walks and time.monotonic() < end:
        command = [sys.executable, "-c", f"import walks; walks.take({number}, {WALKS_AT_ONCE})"]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines() or [""]
        if done.returncode or not lines[-1].startswith("{"):
            failed.append(f"Seed {number}: the process ended with {done.returncode}.")
            print(failed[-1], done.stderr[-3000:], flush=True)
        else:
            found = json.loads(lines[-1])
            taken += found["walks"]
            stages.update(found["stages"])
            print(number, taken, found["error"], flush=True)
            if found["error"]:
                failed.append(f"Seed {number}: {found['error'].strip().splitlines()[-1]}")
        number += 1
        if number - options.seed > 2 * options.walks:
            break
    rows = [{"stage": stage, "times": times} for stage, times in sorted(stages.items())]
    columns = [Column("stage", "stage"), Column("times", "times", ",d")]
    return Measured(rows, [
        f"{taken:,} walks of up to 7 stages over random small networks, seeds {options.seed} to {number - 1}, "
        f"{len(failed)} of which broke a law of the design or raised what no stage may raise. After every stage: zeros "
        "exact, masks kept, the given model left alone; stripped equal to the bit; shrunk equal within 1e-5 of the "
        "output's scale; sparsity as promised; the file agrees with its model.",
        *failed,
        versions(),
    ], "Random walks over the workflow", columns)  # fmt: skip


PARTS: dict[str, Callable[[argparse.Namespace], Measured]] = {
    "mutations": mutations, "names": names, "threads": threads, "kills": kills, "walks": walks,
}  # fmt: skip


def page_rows(folder: Path) -> list[str]:
    """The table of docs/reliability.md, from the files of the parts that are there."""
    found = {}
    for part in PARTS:
        path = folder / f"faults_{part}.json"
        if path.exists():
            found[part] = json.loads(path.read_text(encoding="utf-8"))[0]

    def total(part: str, *keys: str) -> int:
        return sum(row.get(key) or 0 for row in found[part]["rows"] for key in keys)

    counts: dict[str, Callable[[], tuple[str, int, int]]] = {
        "mutations": lambda: (
            "damaged files used: foreign exceptions, silent differences, uses beyond 90 s",
            total("mutations", "files"), total("mutations", "raw", "silent", "hangs"),
        ),
        "names": lambda: (
            "hostile names through all stages: controls printed, tags, candidates that failed",
            len(found["names"]["rows"]), total("names", "controls", "tags", "failed"),
        ),
        "threads": lambda: ("tasks from three threads: wrong", total("threads", "tasks"), total("threads", "wrong")),
        "kills": lambda: (
            "searches ended by SIGKILL: journals that differ in the end",
            sum(row["ended"] == "SIGKILL" for row in found["kills"]["rows"]),
            int("NOT EQUAL" in found["kills"]["notes"][0]),
        ),
        "walks": lambda: (
            "random walks over the workflow: laws broken",
            int(found["walks"]["notes"][0].split()[0].replace(",", "")),
            sum(note.startswith("Seed ") for note in found["walks"]["notes"]),
        ),
    }  # fmt: skip
    lines = ["| what was tried, and what counts as wrong | times | wrong | table |", "| --- | ---: | ---: | --- |"]
    for part, count in counts.items():
        if part in found:
            what, times, wrong = count()
            lines.append(f"| {what} | {times:,} | {wrong:,} | [{part}](benchmarks/faults_{part}.md) |")
    return lines


def write_page() -> None:
    """Puts the table between its marks in docs/reliability.md."""
    page = ROOT / "docs" / "reliability.md"
    before, _, rest = page.read_text(encoding="utf-8").partition("<!-- faults -->\n")
    after = rest.partition("<!-- /faults -->")[2]
    table = "\n".join(page_rows(ROOT / "docs" / "benchmarks"))
    page.write_text(f"{before}<!-- faults -->\n{table}\n<!-- /faults -->{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "page"])
    parser.add_argument("--count", type=int, default=10000, help="damaged files in all")
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--walks", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=600, help="no walk is begun after so many")
    parser.add_argument("--seed", type=int, default=0)
    add_output(parser)
    options = parser.parse_args()
    if options.part == "page":
        write_page()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write([PARTS[options.part](options)], options.output)


if __name__ == "__main__":
    main()
