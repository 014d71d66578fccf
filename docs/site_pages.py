"""What the site adds to this folder when mkdocs builds it: pages that live elsewhere, and who wrote a table."""

import logging
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
# Pages of the site whose files stand outside of this folder.
ELSEWHERE = {
    "benchmarks/index.md": "benchmarks/README.md",
    "changes.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "releasing.md": "RELEASING.md",
    "security.md": "SECURITY.md",
}


class Examples(griffe.Extension):
    """Lets examples in docstrings, lines behind `>>>` and what they print, be code on the page."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Puts a fence around them; mkdocstrings calls this for every name."""
        if obj.docstring:
            example = re.compile(r"^>>> .*(?:\n(?!$).*)*", flags=re.M)
            obj.docstring.value = example.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)


def on_files(files: Any, config: Any) -> None:
    """Adds the pages that live elsewhere, with their links as they are from here."""
    for target, source in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        text = re.sub(r"\]\((?:\.\./)?docs/benchmarks\)", "](#the-tables)", text)
        text = re.sub(r"\]\((?:\.\./)?docs/", "](../" if "/" in target else "](", text)
        text = text.replace("](benchmarks/README.md)", "](benchmarks/index.md)")
        files.append(File.generated(config, target, content=text + (tables() if "/" in target else "")))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Says under a table which command wrote it, and writes the picture of the architecture without a script."""
    folder, _, name = page.file.src_uri.rpartition("/")
    command = commands().get(name.removesuffix(".md"))
    if folder == "benchmarks" and command:
        markdown += f"\n\nWritten by\n\n```sh\n{command}\n```\n"
    for target, source in ELSEWHERE.items():  # links of pages beside this file
        markdown = markdown.replace(f"](../{source})", f"]({target})")
    return re.sub(r"^```mermaid\n(.*?)^```$", lambda found: chain(found[1]), markdown, flags=re.M | re.S)


def on_page_content(html: str, page: Any, **_: Any) -> None:
    """Warns, which ends a strict build, where a name of the reference led to the module that has the same name."""
    modules = re.findall(r'id="([\w.]+)" class="doc doc-heading">\s*<code class="[^"]*doc-symbol-module', html)
    for name in set(modules) - {"tfprune.criteria", "tfprune.salience"}:
        logging.getLogger("mkdocs").warning("%s: %s is a module; write where it is defined", page.file.src_uri, name)


def commands() -> dict[str, str]:
    """The command that wrote each table of docs/benchmarks, by the table's name."""
    listed = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^(python benchmarks/.* --output docs/benchmarks/(\w+))$", listed, flags=re.M)
    return {name: command for command, name in found}


def tables() -> str:
    """A list of the tables, each by its title."""
    lines = [
        f"- [{re.search(r'^# (.*)$', path.read_text(encoding='utf-8'), flags=re.M)[1]}]({path.name})"  # type: ignore[index]
        for path in sorted((ROOT / "docs" / "benchmarks").glob("*.md"))
    ]
    return "\n".join(["\n## The tables\n", *lines, ""])


def chain(picture: str) -> str:
    """A flowchart that is one chain, as a list with what goes from each box to the next."""
    boxes = dict(re.findall(r'^ +(\w+)\["(.*)"\]$', picture, flags=re.M))
    arrows = dict(re.findall(r"^ +(\w+) -->\|(.*)\| \w+$", picture, flags=re.M))
    items = [f"<li>{box}<span>{arrows.get(name, '')}</span></li>" for name, box in boxes.items()]
    return f'<ol class="chain">{"".join(items)}</ol>'
