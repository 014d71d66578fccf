"""Another answer in one thread: the others keep the plain one, and it is there again afterwards, whoever ends first."""

import threading
import types

import pytest

from tfprune.model.substitutes import attribute, instead, property_instead


@pytest.fixture
def owner():
    return types.SimpleNamespace(answer=lambda: "plain")


def test_only_this_thread_hears_the_other_answer(owner):
    heard = []
    with instead(owner, "answer", lambda plain: lambda: plain() + " no more"):
        thread = threading.Thread(target=lambda: heard.append(owner.answer()))
        thread.start()
        thread.join()
        assert owner.answer() == "plain no more"
    assert heard == ["plain"] and owner.answer() == "plain"


def test_the_plain_one_is_back_whoever_ends_first_and_after_an_error(owner):
    plain, begun = owner.answer, threading.Event()

    def other():
        begun.set()
        with instead(owner, "answer", lambda _: lambda: "other"):
            assert owner.answer() == "other"

    thread = threading.Thread(target=other)
    with pytest.raises(ZeroDivisionError), instead(owner, "answer", lambda _: lambda: "mine"):
        thread.start()
        begun.wait()
        assert owner.answer() == "mine"
        raise ZeroDivisionError
    thread.join()
    assert owner.answer is plain


def test_what_a_class_inherits_is_inherited_again():
    class Base:
        @property
        def value(self):
            return 1

        def __call__(self):
            return 2

    class Child(Base):
        pass

    ten = property_instead(Base, "value", lambda plain: lambda of: plain(of) + 10)
    with ten, instead(Child, "__call__", lambda plain: lambda of: plain(of) + 20):
        assert (Child().value, Child()(), Base()()) == (11, 22, 2)
    assert (Child().value, Child()()) == (1, 2) and "__call__" not in vars(Child)


def test_an_attribute_is_there_inside_of_the_outermost_block_only():
    class Kind:
        pass

    with attribute(Kind, "order", 1):
        with attribute(Kind, "order", 2):
            assert Kind.order == 1
        assert Kind.order == 1
    assert not hasattr(Kind, "order")
