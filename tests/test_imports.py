"""Imports point one way, down the list below; importing tfprune costs little and changes nothing."""

import ast
import json
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import tfprune

PACKAGE = Path(tfprune.__file__).parent

# The files outside of the rooms, and the rooms in the order of the flow: each imports only what stands before it.
FILES = ["errors", "version", "quiet", "progress", "report"]
ROOMS = ["model", "channels", "deciding", "training", "oneshot", "lite", "search", "command"]
# The rooms inside of a room that has an order of its own: a model learns to round, its zeros are laid out for the
# kernels that read them, it becomes a file, is measured, and all of it is told on a page.
LITE = ["file", "quantize", "sparse", "convert", "measure", "report"]
ORDER = [*FILES, *ROOMS, "__main__"]


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(name):
    """The modules of tfprune that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "tfprune")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively; write the whole name"
            if (node.module or "").split(".")[0] == "tfprune":
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                yield from (each if each in MODULES else node.module for each in whole)


def top(name):
    return name.split(".")[1] if "." in name else "tfprune"


def test_every_module_has_its_place():
    assert {top(name) for name in MODULES} - {"tfprune"} == set(ORDER)
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"} == set(ROOMS)


def test_the_house_has_eight_rooms_and_eight_files():
    assert len(ROOMS) == 8
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 8


@pytest.mark.parametrize("name", [name for name in MODULES if name != "tfprune"])
def test_imports_point_up_the_list(name):
    place = ORDER.index(top(name))
    for other in imported(name):
        if other == "tfprune":
            # The contents page imports everything, so only what nothing imports may read it.
            assert top(name) in ("command", "__main__"), f"{name} imports the whole of tfprune"
        elif top(other) != top(name):
            assert ORDER.index(top(other)) < place, f"{name} imports {other}, which stands below it"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("tfprune.lite.")])
def test_the_rooms_of_lite_point_up_their_own_list(name):
    place = LITE.index(name.split(".")[2])
    for other in imported(name):
        if other.startswith("tfprune.lite"):
            assert other != "tfprune.lite", f"{name} imports the contents page of the room that it is in"
            assert LITE.index(other.split(".")[2]) <= place, f"{name} imports {other}, which stands below it"


def test_no_circle_inside_a_folder_either():
    graph = {}
    for name in MODULES:
        # A folder's contents page imports its modules; a module that imports its own folder's page would be a circle.
        graph[name] = {other for other in imported(name) if other != name}
    graph["tfprune"] = set()
    assert list(TopologicalSorter(graph).static_order())


IMPORT = """
import json, logging, os, random, sys, warnings
import keras, numpy as np, tensorflow as tf

def state():
    return {
        "environment": dict(os.environ),
        "random": [repr(random.getstate()), repr(np.random.get_state()), repr(keras.config.floatx())],
        "policy": keras.config.dtype_policy().name,
        "filters": repr(warnings.filters),
        "loggers": [repr(logging.root.handlers), logging.root.level, repr(tf.get_logger().level)],
        "path": sys.path,
        "backend": keras.backend.backend(),
        "threads": [tf.config.threading.get_intra_op_parallelism_threads(), tf.executing_eagerly()],
    }

before, loaded = state(), set(sys.modules)
import tfprune
after = state()
print(json.dumps({
    "changed": [name for name in before if before[name] != after[name]],
    "loaded": sorted(set(sys.modules) - loaded),
    "tf.keras": [tf.keras.__version__, tf.keras.layers.Dense is keras.layers.Dense],
}))
"""


@pytest.fixture(scope="module")
def fresh_import():
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(PACKAGE.parent)}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    result = subprocess.run(
        [sys.executable, "-c", IMPORT], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_import_changes_nothing(fresh_import):
    assert fresh_import["changed"] == []


def test_import_leaves_tf_keras_alone(fresh_import):
    version, same = fresh_import["tf.keras"]
    assert version.startswith("3.") and same


@pytest.mark.parametrize(
    "heavy",
    [
        "tensorflow_model_optimization",
        "tf_keras",
        "matplotlib",
        "sklearn",
        "scipy.optimize",
        "ai_edge_litert",
        "absl.app",
        "rich",
        "IPython",
        "deap",
        "joblib",
    ],
)
def test_import_loads_nothing_heavy(fresh_import, heavy):
    assert [name for name in fresh_import["loaded"] if name == heavy or name.startswith(heavy + ".")] == []


def test_a_search_is_imported_when_somebody_searches():
    code = (
        "import sys, tfprune; late = lambda: [name for name in sys.modules if name.startswith('tfprune.search')];"
        "assert not late() and {'compress', 'search', 'wrap'} <= set(dir(tfprune));"
        "assert tfprune.search.greedy_search and late();"
        "assert all(getattr(tfprune, name) for name in tfprune.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_beside_a_folder_of_the_same_name_the_package_is_found(tmp_path):
    # Where `git clone` put the checkout, that is; the folder has no __init__.py and is no package.
    (tmp_path / "tfprune" / "tfprune").mkdir(parents=True)
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = "import tfprune; print(tfprune.__version__)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == tfprune.__version__, result.stderr
