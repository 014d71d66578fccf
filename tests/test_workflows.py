"""The pages as they are written: their code runs, their figures are those of the files that commands wrote."""

import ast
import doctest
import importlib.util
import itertools
import json
import re
import shlex
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from test_imports import ROOMS

from tfprune.command import COMMANDS
from tfprune.command.demo import small_network
from tfprune.deciding import criteria

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def read_guide():
    """The chapters of the guide as one text, in the order in which its first page lists them."""
    folder = ROOT / "docs" / "guide"
    index = (folder / "index.md").read_text(encoding="utf-8")
    chapters = re.findall(r"^\d+\. \[.*?\]\((\w+\.md)\)", index, flags=re.M)
    assert {path.name for path in folder.iterdir()} == {"index.md", *chapters}
    return "\n".join([index, *((folder / name).read_text(encoding="utf-8") for name in chapters)])


GUIDE = read_guide()
MEASURED = ROOT / "docs" / "benchmarks" / "first_page.json"


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.M | re.S)


def run(page, names):
    for block in blocks(page, "python"):
        exec(compile(block, "a block of the page", "exec"), names)


def test_the_readmes_python_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    small_network((8, 8, 1)).save("model.keras")
    random = np.random.default_rng(0)
    x, y = random.random((320, 8, 8, 1), np.float32), random.integers(0, 10, 320)
    run(README, {"x": x, "y": y, "x_test": x[:50], "y_test": y[:50]})
    assert (tmp_path / "model.tflite").stat().st_size > 10_000
    assert (tmp_path / "report.html").is_file()
    assert "top-1 agreement" in capsys.readouterr().out


def test_the_guides_python_runs_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    run(GUIDE, names)
    assert names["history"].history["sparsity"][-1] == pytest.approx(0.9, abs=1e-3)
    assert names["small"].count_params() < 0.6 * names["masked"].count_params()
    assert {path.name for path in tmp_path.iterdir()} >= {"pruned.keras", "pruned.tflite", "sparsity.png"}


def test_the_readme_has_exactly_two_set_up_commands():
    commands = [line for block in blocks(README, "bash") for line in block.splitlines()]
    assert commands == ["pip install -e '.[demo]' && tfprune demo", "pip install -e '.[test]' && pytest"]


def test_the_readmes_comparison_with_tfmot_is_what_the_benchmark_wrote():
    def measured(name):
        report = json.loads((ROOT / "docs" / "benchmarks" / name).read_text(encoding="utf-8"))[0]
        return {(row["tool"], row["target"]): row for row in report["rows"]}

    by_tool, by_guide = measured("fashion_mnist.json"), measured("fashion_mnist_guide.json")
    lines = re.search(r"<!-- tfmot -->\n(.*?)<!-- /tfmot -->", README, re.S)[1].splitlines()[2:]
    expected = []
    for target in sorted({target for tool, target in by_tool if tool == "tfmot"}):
        ours, theirs = by_tool["tfprune", target], by_tool["tfmot", target]
        guided = [by_guide[tool, target]["accuracy"] for tool in ("tfprune, that ramp", "tfmot")]
        expected.append(
            f"| {target:.0%} | {ours['accuracy']:.2f}% | {theirs['accuracy']:.2f}% | {guided[0]:.2f}% "
            f"| {guided[1]:.2f}% | {ours['int8_kilobytes_gzip']:.1f} kB |"
        )
    assert lines == expected
    dense = by_tool["dense", 0.0]
    assert f"{dense['accuracy']:.2f} % on Fashion-MNIST, {dense['int8_kilobytes_gzip']:.1f} kB" in README


def test_the_readmes_figures_of_channels_are_what_the_benchmark_wrote():
    report = json.loads((ROOT / "docs" / "benchmarks" / "channels_accuracy.json").read_text(encoding="utf-8"))[0]
    rows = {row["stage"]: row for row in report["rows"]}
    lines = re.search(r"<!-- channels -->\n(.*?)<!-- /channels -->", README, re.S)[1].splitlines()[2:]
    for line, stage in zip(lines, ("dense", "l2, fine-tuned", "dense, trained as long"), strict=True):
        row = rows[stage]
        assert line.endswith(f"| {row['parameters']:.0%} | {row['macs']:.0%} | {row['mean']:.2f}% |")


def test_the_readmes_figures_of_compress_are_what_the_benchmark_wrote():
    report = json.loads((ROOT / "docs" / "benchmarks" / "search_compress.json").read_text(encoding="utf-8"))[0]
    lines = re.search(r"<!-- compress -->\n(.*?)<!-- /compress -->", README, re.S)[1].splitlines()[2:]
    for line, row in zip(lines, report["rows"], strict=True):
        assert line == (
            f"| {row['minutes']:.1f} | {row['dense']:.2f}% | {row['accuracy']:.2f}% | {row['macs']:.0%} "
            f"| {row['bytes']:.0f} times | {row['gzip']:.0f} times | {row['float_latency']:.0%} |"
        )


@pytest.mark.parametrize("page", [README, GUIDE], ids=["README", "guide"])
def test_a_page_names_every_subcommand(page):
    assert all(re.search(rf"\b{name}\b", page) for name in COMMANDS)


def test_the_guides_commands_are_the_examples_of_the_help():
    examples = {line for command in COMMANDS.values() for line in command.examples}
    written = [line for block in blocks(GUIDE, "text") for line in block.splitlines() if line.startswith("tfprune ")]
    assert written
    assert set(written) <= examples
    assert all(shlex.split(line) for line in written)


def test_links_between_the_pages_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_the_picture_is_drawn_from_what_was_measured():
    script = ROOT / "docs" / "draw_before_after.py"
    spec = importlib.util.spec_from_file_location("draw_before_after", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    drawn = module.drawing(json.loads(MEASURED.read_text())[0])
    assert (ROOT / "docs" / "before_after.svg").read_text(encoding="utf-8") == drawn


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def names_in(path):
    """The classes, functions and values of a file of the package, and the methods of its classes."""
    for node in ast.parse((ROOT / "tfprune" / path).read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield node.name
            yield from (f"{node.name}.{part.name}" for part in node.body if hasattr(part, "name"))
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                yield target.id


def test_the_architecture_names_what_is_there():
    named = re.findall(r"`([\w/]+\.py):([\w.]+)`", ARCHITECTURE)
    assert len(named) > 25
    for path, name in named:
        assert name in set(names_in(path)), f"{path}:{name}"
    for path in re.findall(r"`((?:tests/)?[\w]+/[\w/]*(?:\.py)?)`", ARCHITECTURE):
        assert (ROOT / path).exists() or (ROOT / "tfprune" / path).exists(), path


def test_the_picture_of_the_architecture_has_every_room_in_its_order():
    (picture,) = blocks(ARCHITECTURE, "mermaid")
    drawn = re.findall(r'^ +(\w+)\["<b>(\w+)</b>', picture, flags=re.M)
    assert [first for first, _ in drawn] == [second for _, second in drawn] == ROOMS
    assert re.findall(r"^ +(\w+) -->\|.*\| (\w+)$", picture, flags=re.M) == list(itertools.pairwise(ROOMS))


def test_the_criterion_of_contributing_works_as_written():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = textwrap.dedent(re.search(r"^ +```python\n(.*?)^ +```$", page, flags=re.M | re.S)[1])
    names = {"np": np, **vars(criteria)}
    exec(compile(code, "a block of the page", "exec"), names)
    tests = doctest.DocTestFinder().find(names["Centred"], "Centred", module=False, globs=names)
    results = [doctest.DocTestRunner().run(test) for test in tests]
    assert sum(result.attempted for result in results) == 1 and not any(result.failed for result in results)
