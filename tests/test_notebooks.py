"""The notebooks as files; that they run is checked by .ci/run."""

import ast
import json
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_what_there_is_at_its_end_and_draws(path):
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
    assert re.match(r"# .+\n\nAt the end you have\b", cells[0])
    assert any("plt." in cell or ".plot(" in cell for cell in cells)


def address():
    """Where the project lives, once .ci/settle.py has been told."""
    found = re.search(r"^repo_url: (.*)$", (REPOSITORY / "mkdocs.yml").read_text(), re.MULTILINE)
    return found and found[1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_guesses_no_address_and_installs_its_project_only_where_tfprune_is_missing(path):
    sources = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
    named = [source for source in sources if "://" in source]
    installs = [source for source in sources if "%pip" in source]
    assert named == ([sources[0], installs[0]] if address() else [])
    project = rf"tfprune(\[[a-z,]+\])? @ git\+{address()}" if address() else r"\.\.(\[[a-z,]+\])?"
    assert len(installs) == 1 and re.search(rf'%pip install -q "{project}"', installs[0])
    tree = ast.parse(installs[0].replace("%pip", "pass  # %pip"))
    guard = next(node for node in tree.body if isinstance(node, ast.Try))
    assert guard.handlers[0].type.id == "ImportError"
