import sys
from pathlib import Path

import pytest

import tfprune
from tfprune import genetic_search
from tfprune.command import datasets
from tfprune.errors import ConversionError, PruningError, listing, nearest
from tfprune.lite.measure.micro import run_micro
from tfprune.report import new_figure
from tfprune.search.workers import Workers


def test_kinds_of_error():
    # Bad values are ValueErrors, so that code which knows nothing of tfprune catches them as usual.
    assert issubclass(PruningError, ValueError) and issubclass(ConversionError, RuntimeError)


@pytest.mark.parametrize(
    "names, limit, expected",
    [
        ([], 8, "none"),
        (["a"], 8, "'a'"),
        (["a", "b"], 2, "'a', 'b'"),
        (["a", "b", "c"], 2, "'a', 'b' and 1 more"),
        ((str(n) for n in range(10)), 8, "'0', '1', '2', '3', '4', '5', '6', '7' and 2 more"),
        ([1, 2.5], 8, "'1', '2.5'"),
    ],
)
def test_listings_are_cut(names, limit, expected):
    assert listing(names, limit) == expected


@pytest.mark.parametrize(
    "name, names, expected",
    [
        ("dens", ["dense", "conv"], "Did you mean 'dense'?"),
        ("conv", ["conv1", "conv2", "pool"], "Did you mean 'conv2' or 'conv1'?"),
        ("x", ["dense", "conv"], "Known names: 'dense', 'conv'."),
        ("x", [], "Known names: none."),
        ("dens", iter(["dense"]), "Did you mean 'dense'?"),
    ],
)
def test_the_nearest_names_are_told(name, names, expected):
    assert nearest(name, names) == expected


# Every place that needs an optional package, as far as the file goes in which it asks for it.
OPTIONAL = {
    "matplotlib.figure": ("plot", lambda: new_figure(1, 1)),
    "sklearn.datasets": ("demo", lambda: datasets.load("digits")),
    "deap": ("search", lambda: genetic_search(None, None)),
    "joblib": ("search", lambda: Workers(2, print, {})),
    "cloudpickle": ("search", lambda: Workers(2, print, {})),
    "tflite_micro.python.tflite_micro.runtime": ("micro", lambda: run_micro(b"")),
}


@pytest.mark.parametrize("module", OPTIONAL)
def test_a_missing_package_is_an_import_error_with_the_line_that_installs_it(module, monkeypatch):
    extra, use = OPTIONAL[module]
    monkeypatch.setitem(sys.modules, module, None)
    package = module.partition(".")[0].replace("_", "-")
    line = rf"needs the package {package}, which is not installed .* Write: pip install 'tfprune\[{extra}\]'"
    with pytest.raises(ImportError, match=line) as caught:
        use()
    # Code that caught a PruningError before still does, and the command line makes one line of it.
    assert isinstance(caught.value, PruningError)


def test_the_extras_that_messages_name_are_those_of_the_package():
    page = (Path(__file__).parents[1] / "setup.cfg").read_text(encoding="utf-8")
    assert all(f"\n{extra} =" in page for extra, _ in OPTIONAL.values())


def test_optional_packages_are_asked_for_in_one_way():
    root = Path(tfprune.__file__).parent
    asking = [path.name for path in root.rglob("*.py") if "except ImportError" in path.read_text(encoding="utf-8")]
    # --import of the command, and tf_keras among the hooks, are no packages to install.
    assert sorted(asking) == ["command.py", "errors.py", "hooks.py"]
