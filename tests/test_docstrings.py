"""Every public name says what it does, and every example in a docstring runs."""

import doctest
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest

import tfprune

MODULES = [
    "tfprune",
    *(
        module.name
        for module in pkgutil.walk_packages(tfprune.__path__, "tfprune.")
        if module.name != "tfprune.__main__"
    ),
]


def public_members(module):
    """The public classes and functions that a module defines, and their public methods and properties."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing) or inspect.isclass(thing):
            yield name, thing
        if inspect.isclass(thing):
            for attribute, member in vars(thing).items():
                function = getattr(member, "__func__", member)
                is_method = inspect.isfunction(function) or isinstance(member, property)
                # What overrides a method of Keras is explained there.
                foreign = [base for base in thing.__mro__ if not base.__module__.startswith("tfprune")]
                if (
                    is_method
                    and not attribute.startswith("_")
                    and not any(hasattr(base, attribute) for base in foreign)
                ):
                    yield f"{name}.{attribute}", getattr(thing, attribute)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_and_method_has_a_docstring(name):
    module = importlib.import_module(name)
    bare = [member for member, thing in public_members(module) if not inspect.getdoc(thing)]
    assert module.__doc__ and not bare


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name, capsys):
    module = importlib.import_module(name)
    names = {"np": np, "tfprune": tfprune, **vars(module)}
    result = doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0, capsys.readouterr().out


def test_examples_are_found():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for test in finder.find(importlib.import_module("tfprune.deciding.schedules.ramps")) if test.examples]
    assert len(found) > 5


@pytest.mark.parametrize("name", MODULES)
def test_descriptions_of_arguments_begin_with_a_capital(name):
    small = [
        line.strip()
        for _, thing in public_members(importlib.import_module(name))
        for section in re.findall(
            r"^(?:Args|Attributes):\n((?:(?: +.*)?\n?)*)", inspect.getdoc(thing) or "", flags=re.M
        )
        for line in re.findall(r"^    \S[\w*, ]*: [a-z].*", section, flags=re.M)
    ]
    assert not small
