"""The house stays readable: small files and functions, few arguments, and one thing under each name."""

import ast
import collections
import re
from pathlib import Path

import tfprune

PACKAGE = Path(tfprune.__file__).parent
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}

# Functions that users call, or that take the arguments of one on their way: each argument has its documented place.
PUBLIC = {
    *tfprune.__all__,
    "greedy_search",
    "netadapt_search",
}


def functions(tree, inside=""):
    """Every function of a module under its whole name, with those inside classes and functions."""
    for node in ast.iter_child_nodes(tree):
        named = isinstance(node, (ast.FunctionDef, ast.ClassDef))
        name = f"{inside}.{node.name}".lstrip(".") if named else inside
        if isinstance(node, ast.FunctionDef):
            yield name, node
        yield from functions(node, name)


def lines_of(function):
    """The lines of a function, its docstring not counted."""
    docstring = ast.get_docstring(function, clean=False)
    first = function.body[0]
    return function.end_lineno - function.lineno + 1 - (first.end_lineno - first.lineno + 1 if docstring else 0)


def arguments_of(function):
    listed = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [argument.arg for argument in listed if argument.arg not in ("self", "cls")]


def is_public(name):
    return any(part in PUBLIC for part in name.split("."))


def test_no_file_is_longer_than_400_lines():
    long = {path for path in TREES if len((PACKAGE / path).read_text(encoding="utf-8").splitlines()) > 400}
    assert long == set()


def test_no_function_is_longer_than_60_lines():
    long = {f"{path}:{name}" for path, tree in TREES.items() for name, f in functions(tree) if lines_of(f) > 60}
    assert long == set()


def test_no_inner_function_takes_more_than_8_arguments():
    many = {
        f"{path}:{name}"
        for path, tree in TREES.items()
        for name, function in functions(tree)
        if len(arguments_of(function)) > 8 and not is_public(name)
    }
    assert many == set()


def test_no_two_classes_have_one_name():
    places = collections.defaultdict(set)
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].add(path)
    assert {name for name, where in places.items() if len(where) > 1} == set()


def test_no_two_test_files_have_one_name():
    names = collections.Counter(path.name for path in Path(__file__).parent.rglob("*.py"))
    assert {name for name, number in names.items() if number > 1} == set()  # pytest imports them by their names alone


def test_each_room_says_in_three_sentences_what_it_does():
    rooms = [path for path in TREES if path.count("/") == 1 and path.endswith("__init__.py")]
    assert len(rooms) == 8
    said = {path.split("/")[0]: ast.get_docstring(TREES[path]) for path in rooms}
    assert {room for room, text in said.items() if len(re.findall(r"\.(?=\s|$)", text)) < 3} == set()
