"""The page "Why is my model not faster?" shows what the benchmarks wrote, and commands that there are."""

import json
import re
from pathlib import Path

import pytest

from tfprune.command import COMMANDS
from tfprune.command.command import flags_of
from tfprune.lite.file.kernels import DENSE_FLOAT, DENSE_FLOAT_WEB, DENSE_INT8

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "why_not_faster.md").read_text(encoding="utf-8")
FORMS = {
    "kernels": ("sparse_kernels", {"bytes": ",d", "smaller": ".1f", "least": ".1f", "faster": ".2f"}),
    "web": (
        "sparse_web_times",
        {"bytes": ",d", "smaller": ".1f", "milliseconds": ".2f", "faster": ".2f", "native": ".2f"},
    ),
}


@pytest.mark.parametrize("part", FORMS)
def test_its_tables_are_what_was_measured(part):
    name, forms = FORMS[part]
    report = json.loads((DOCS / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))[0]
    measured = {
        " | ".join([row["file"], *(format(row[key], form) for key, form in forms.items())]) for row in report["rows"]
    }
    shown = re.search(rf"<!-- {part} -->\n(.*?)\n<!-- /{part} -->", PAGE, re.S)[1].splitlines()[2:]
    assert len(shown) >= 5 and {line.strip("| ") for line in shown} <= measured


def test_its_shares_are_those_of_the_kernels():
    for kernel in (DENSE_FLOAT, DENSE_FLOAT_WEB, DENSE_INT8):
        assert f"{kernel.share() * 100:.0f} %" in PAGE


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)", PAGE):
        assert (DOCS / target).exists(), target


def test_its_commands_are_there():
    for line in re.findall(r"^tfprune (.*)$", PAGE, re.M):
        name, *words = line.split()
        assert {word.strip("-") for word in words if word.startswith("--")} <= set(flags_of(COMMANDS[name]))
