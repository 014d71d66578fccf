"""Silence over native code, from several threads."""

import os
import threading
import warnings

from tfprune.model.native import silence


def test_overlapping_silences_put_back_what_the_first_found():
    before, filters = os.fstat(2).st_ino, list(warnings.filters)
    entered, may_leave, texts = threading.Event(), threading.Event(), []

    def other():
        with silence() as spoken:
            os.write(2, b"of the other\n")
            entered.set()
            may_leave.wait(10)
        texts.append(spoken.text)

    thread = threading.Thread(target=other)
    with silence() as spoken:
        thread.start()
        entered.wait(10)
        os.write(2, b"of the first\n")
    may_leave.set()  # the first in is out before the second
    thread.join()
    assert "of the first" in spoken.text
    assert texts == ["of the other\nof the first\n"]
    assert os.fstat(2).st_ino == before
    assert warnings.filters == filters


def test_a_silence_within_another_hears_only_itself():
    with silence() as outer:
        os.write(2, b"one ")
        with silence() as inner:
            os.write(2, b"two")
    assert (inner.text, outer.text) == ("two", "one two")
