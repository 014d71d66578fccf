"""Writes where the project lives to every place that names it, once that is known.

Usage: python .ci/settle.py https://github.com/OWNER/NAME

Sets `url` and `project_urls` in setup.cfg, `repo_url` in mkdocs.yml and `repository-code` in CITATION.cff, and gives
every notebook a badge that opens it in Colab and an install line that works there. A second run moves all to another
address.
"""

import json
import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
GITHUB = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+")
COLAB = "https://colab.research.google.com"


def settle(address: str, repository: Path = REPOSITORY) -> list[Path]:
    """Writes this address to the files of a checkout; gives those that it changed.

    Raises:
        ValueError: It is no address of a repository on GitHub, where Colab looks.
    """
    if not GITHUB.fullmatch(address):
        raise ValueError(f"{address!r} is no address of a repository; write https://github.com/OWNER/NAME")
    changes = {
        "setup.cfg": lambda text: _with_lines(
            text, "keywords = ", _metadata(address), r"url = .*\nproject_urls =\n(    .*\n)*"
        ),
        "mkdocs.yml": lambda text: _with_lines(text, "site_name: ", f"repo_url: {address}\n", r"repo_url: .*\n"),
        "CITATION.cff": lambda text: _with_lines(
            text, "license: ", f"repository-code: {address}\n", r"repository-code: .*\n"
        ),
    }
    for path in sorted((repository / "notebooks").glob("*.ipynb")):
        changes[f"notebooks/{path.name}"] = lambda text, name=path.name: _notebook(text, address, name)
    return [repository / name for name, change in changes.items() if _changed(repository / name, change)]


def _changed(path: Path, change) -> bool:
    before = path.read_text(encoding="utf-8")
    after = change(before)
    path.write_text(after, encoding="utf-8")
    return after != before


def _metadata(address: str) -> str:
    pages = {"Source": address, "Issues": f"{address}/issues", "Changes": f"{address}/blob/main/CHANGELOG.md"}
    return f"url = {address}\nproject_urls =\n" + "".join(f"    {name} = {page}\n" for name, page in pages.items())


def _with_lines(text: str, before: str, lines: str, present: str) -> str:
    """A text with these lines in place of those that are there, or ahead of the one that begins so."""
    if re.search(f"^{present}", text, re.MULTILINE):
        return re.sub(f"^{present}", lambda _: lines, text, count=1, flags=re.MULTILINE)
    return re.sub(f"^{re.escape(before)}", lambda found: lines + found[0], text, count=1, flags=re.MULTILINE)


def _notebook(text: str, address: str, name: str) -> str:
    notebook = json.loads(text)
    first = "".join(notebook["cells"][0]["source"])
    place = address.removeprefix("https://github.com/")
    badge = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/github/{place}/blob/main/notebooks/{name})"
    first = re.sub(r"\n\n\[!\[Open in Colab\].*$", "", first) + f"\n\n{badge}"
    notebook["cells"][0]["source"] = first.splitlines(keepends=True)
    for cell in notebook["cells"]:
        cell["source"] = [_install_line(line, address) for line in cell["source"]]
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _install_line(line: str, address: str) -> str:
    """`%pip install` of the checkout, or of another address, as that of this address, with the same extras."""
    return re.sub(
        r'(%pip install -q )"(?:\.\.|tfprune)(\[[a-z,]+\])?(?: @ [^"]*)?"', rf'\1"tfprune\2 @ git+{address}"', line
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        written = settle(sys.argv[1])
    except ValueError as error:
        sys.exit(str(error))
    print("\n".join(str(path.relative_to(REPOSITORY)) for path in written) or "nothing to change")
