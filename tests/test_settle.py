"""The project's address goes to every place that names it, by one command, and can be moved."""

import configparser
import functools
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ADDRESS = "https://github.com/someone/tfprune"


@pytest.fixture
def checkout(tmp_path):
    for name in ("setup.cfg", "mkdocs.yml", "CITATION.cff"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / "notebooks").mkdir()
    for path in (REPOSITORY / "notebooks").glob("*.ipynb"):  # beside them may lie what they write when they run
        shutil.copy(path, tmp_path / "notebooks")
    return tmp_path


@pytest.fixture(scope="module")
def settle():
    spec = importlib.util.spec_from_file_location("settle", REPOSITORY / ".ci" / "settle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.settle


def texts(checkout):
    return {path.relative_to(checkout): path.read_text() for path in checkout.rglob("*") if path.is_file()}


def test_every_place_has_the_address(settle, checkout):
    before = texts(checkout)
    written = settle(ADDRESS, checkout)
    assert {path.relative_to(checkout) for path in written} == set(before)
    config = configparser.ConfigParser()
    config.read(checkout / "setup.cfg")
    assert config["metadata"]["url"] == ADDRESS
    assert config["metadata"]["project_urls"].strip().splitlines() == [
        f"Source = {ADDRESS}",
        f"Issues = {ADDRESS}/issues",
        f"Changes = {ADDRESS}/blob/main/CHANGELOG.md",
    ]
    assert re.findall(r"^repo_url: (.*)$", (checkout / "mkdocs.yml").read_text(), re.MULTILINE) == [ADDRESS]
    assert re.findall(r"^repository-code: (.*)$", (checkout / "CITATION.cff").read_text(), re.MULTILINE) == [ADDRESS]


def test_every_notebook_opens_in_colab_and_installs_from_there(settle, checkout):
    settle(ADDRESS, checkout)
    notebooks = sorted((checkout / "notebooks").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        cells = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
        opens = f"(https://colab.research.google.com/github/someone/tfprune/blob/main/notebooks/{path.name})"
        assert cells[0].endswith(opens) and cells[0].startswith("# ")
        (install,) = [line.strip() for cell in cells for line in cell.splitlines() if "%pip" in line]
        assert re.fullmatch(rf'%pip install -q "tfprune(\[[a-z,]+\])? @ git\+{ADDRESS}"', install)


def test_the_rest_of_a_notebook_stays_as_it_is(settle, checkout):
    path = checkout / "notebooks" / "search.ipynb"
    before = json.loads(path.read_text())["cells"]
    settle(ADDRESS, checkout)
    after = json.loads(path.read_text())["cells"]
    install = before[1]["source"][3]
    assert "".join(after[0]["source"]).startswith("".join(before[0]["source"]))
    assert after[1]["source"][3] == install.replace("..", "tfprune").replace("]", f"] @ git+{ADDRESS}")
    before[0], before[1]["source"][3] = after[0], after[1]["source"][3]
    assert after == before


def test_a_second_run_changes_nothing_and_another_address_takes_the_place_of_the_first(settle, checkout):
    settle(ADDRESS, checkout)
    first, other = texts(checkout), "https://github.com/else/tf-prune.new"
    assert settle(ADDRESS, checkout) == [] and texts(checkout) == first
    settle(other, checkout)
    places = [ADDRESS, "github/someone/tfprune"], [other, "github/else/tf-prune.new"]
    for path, text in texts(checkout).items():
        assert text == functools.reduce(lambda moved, pair: moved.replace(*pair), zip(*places), first[path])


@pytest.mark.parametrize("address", ["tfprune", "https://github.com/someone", f"{ADDRESS}/", f"{ADDRESS}/tree/main"])
def test_what_is_no_address_of_a_repository_is_refused_and_nothing_is_written(settle, checkout, address):
    before = texts(checkout)
    with pytest.raises(ValueError, match=re.escape(f"{address!r} is no address of a repository; write https://")):
        settle(address, checkout)
    assert texts(checkout) == before


def test_without_an_address_the_command_says_how_it_is_called():
    done = subprocess.run(
        [sys.executable, REPOSITORY / ".ci" / "settle.py"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1 and "Usage: python .ci/settle.py https://github.com/OWNER/NAME" in done.stderr
