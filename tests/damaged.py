"""Damaged files of every format, and what becomes of their use; shared by the tests and benchmarks/faults.py."""

import random
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfprune
from tfprune.channels.plan import ShrinkPlan
from tfprune.errors import ConversionError, PruningError
from tfprune.lite import LiteModel
from tfprune.search.journal import Journal

Use = Callable[[bytes], Any]
SLOW = 60.0  # seconds after which a use counts as one that hangs
KINDS = ("bit flips", "cut", "zeros", "noise")


def mutated(content: bytes, kind: str, generator: random.Random) -> bytes:
    """A damaged copy."""
    damaged, place = bytearray(content), generator.randrange(len(content))
    length = generator.choice((1, 4, 16, 64, 256))
    if kind == "bit flips":
        for _ in range(generator.choice((1, 1, 2, 8))):
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
    elif kind == "cut":
        del damaged[place:]
    else:
        block = damaged[place : place + length]
        damaged[place : place + length] = bytes(len(block)) if kind == "zeros" else generator.randbytes(len(block))
    return bytes(damaged)


def small_model(pattern: str) -> keras.Model:
    """A network with several kinds of layers that a damaged file could trip over, its Dense kernels pruned."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(image)
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Dense(32, "relu")(keras.layers.Flatten()(x))
    x = keras.layers.Dense(32, "relu")(x)
    model = keras.Model(image, keras.layers.Dense(3, "softmax")(x))
    return tfprune.prune(model, tfprune.Percentile(0.9, pattern=pattern, layers=keras.layers.Dense))


IMAGES = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)


def lite_uses(model: keras.Model) -> Use:
    """Everything that is done with a file of unknown origin, on the command line and by `isolate=True`."""

    def use(content: bytes) -> Any:
        lite = LiteModel(content, isolate=True)
        str(lite.inspect()), repr(lite)
        answers = lite(IMAGES)
        str(tfprune.verify(model, lite, IMAGES))
        str(tfprune.benchmark({"file": lite}, runs=1, warmup=0))
        return answers

    return use


def in_file(name: str, use: Callable[[Path], Any]) -> Use:
    """A use of bytes by way of a file."""

    def on_bytes(content: bytes) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            return use(path)

    return on_bytes


def formats(folder: Path) -> dict[str, tuple[bytes, Use, bool]]:
    """By format: a whole file, what is done with one, and whether it has a checksum."""
    models = {pattern: small_model(pattern) for pattern in ("4x1", "16x1")}
    model = models["4x1"]
    found: dict[str, tuple[bytes, Use, bool]] = {}
    integers: dict[str, Any] = {"quantization": "int8", "representative_data": IMAGES}
    for name, pattern, options in (
        ("float32", "4x1", {}),
        ("int8", "4x1", integers),
        ("dynamic", "4x1", {"quantization": "dynamic"}),
        ("sparse float32", "4x1", {"sparse": True}),
        ("sparse int8", "16x1", {**integers, "sparse": True}),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lite = tfprune.convert(models[pattern], **options)
        found[f".tflite, {name}"] = (lite.content, lite_uses(models[pattern]), False)
    plan = tfprune.plan_shrink(model, tfprune.Structured(0.5))
    found["shrink plan"] = (plan.to_json().encode(), in_file("plan.json", read_plan), True)
    header, path = {"seed": 0, "settings": {"population": 8}, "model": "0123456789abcdef"}, folder / "journal"
    journal = Journal(path, header)
    for number in range(30):
        journal.add(f"{number:08b}", {"figures": {"accuracy": number / 31, "macs": 1000.0 + number}, "failure": None})
    found["search journal"] = (path.read_bytes(), in_file("journal", lambda at: Journal(at, header).known), True)
    model.save(folder / "model.keras")
    read = in_file("model.keras", lambda at: tfprune.model.files.load_model(at).get_weights())
    found[".keras"] = ((folder / "model.keras").read_bytes(), read, True)
    np.savez(folder / "data.npz", x=IMAGES, y=np.arange(4))
    read = in_file("data.npz", lambda at: list(tfprune.model.files.load_samples(at, "test"))[:2])
    found[".npz"] = ((folder / "data.npz").read_bytes(), read, True)
    return found


def read_plan(path: Path) -> Any:
    """The channels of a plan and why; that the channels were edited is told, and so no silent difference."""
    plan = ShrinkPlan.from_json(path)
    str(plan)
    if plan.edited:
        raise PruningError(plan.notes()[0])
    return [keep.tolist() for keep in plan.values()], plan.why, plan.folds, plan.approximate, plan.fingerprint


def equal(one: Any, other: Any) -> bool:
    """Whether two results are the same, arrays to the last bit."""
    try:
        np.testing.assert_equal(one, other)
    except AssertionError:
        return False
    return True


def outcome(use: Use, content: bytes, whole: Any, has_checksum: bool) -> str:
    """What became of the use of a damaged file."""
    begin = time.monotonic()
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            result = use(content)
        told = [each for each in told if issubclass(each.category, UserWarning)]
        same = equal(result, whole)
        found = "same" if same else "told" if told else "silent" if has_checksum else "other"
        if found == "silent" and isinstance(result, dict) and result.items() <= whole.items():
            found = "told"  # a journal that is shorter is measured on, and ends in the same
    except ConversionError as error:
        found = "child ended" if "ended its process" in str(error) else "refused"
    except PruningError:
        found = "refused"
    except Exception as error:
        found = f"raw {type(error).__name__}"
    return "hangs" if time.monotonic() - begin > SLOW + 30 else found
