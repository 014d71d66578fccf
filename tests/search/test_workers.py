"""Workers: the same search as in one process; a worker that dies costs its candidate alone."""

import threading

import pytest
from search_models import X, Y, classifier
from search_objectives import deadly, kept

from tfprune import PruningError, genetic_search
from tfprune.search.problem import Problem

QUICK = {"population": 8, "generations": 1, "seed": 2}


@pytest.fixture(scope="module")
def model():
    return classifier()


def test_two_workers_find_what_one_process_finds(model, tmp_path):
    alone = genetic_search(model, (X, Y), (kept, "accuracy"), journal=tmp_path / "alone", **QUICK)
    shared = genetic_search(model, (X, Y), (kept, "accuracy"), journal=tmp_path / "shared", workers=2, **QUICK)
    assert [(c.genes, c.figures) for c in shared.evaluated] == [(c.genes, c.figures) for c in alone.evaluated]
    assert (tmp_path / "alone").read_bytes() == (tmp_path / "shared").read_bytes()


def test_two_workers_train_their_candidates_like_one_process(model):
    arguments = {"budget": {"macs": 0.6}, "fine_tune": 5, "train": (X, Y), **QUICK}
    alone = genetic_search(model, (X, Y), "loss", **arguments)
    shared = genetic_search(model, (X, Y), "loss", workers=2, **arguments)
    assert [c.genes for c in shared.evaluated] == [c.genes for c in alone.evaluated]
    assert [c["loss"] for c in shared.evaluated] == pytest.approx([c["loss"] for c in alone.evaluated], rel=1e-5)
    untrained = genetic_search(model, (X, Y), "loss", budget={"macs": 0.6}, **QUICK)
    assert shared.best["loss"] < untrained.best["loss"]


def test_a_search_that_is_interrupted_keeps_what_has_come_back_and_goes_on(model, tmp_path):
    arguments = {"journal": tmp_path / "journal", "workers": 2, **QUICK}
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        plain = Problem._add

        def interrupted(problem, *measured):
            if len(problem.evaluated) == 4:
                raise KeyboardInterrupt
            return plain(problem, *measured)

        patch.setattr(Problem, "_add", interrupted)
        genetic_search(model, (X, Y), (kept, "macs"), **arguments)
    assert len((tmp_path / "journal").read_text().splitlines()) == 5  # the header, and four candidates
    resumed = genetic_search(model, (X, Y), (kept, "macs"), **arguments)
    alone = genetic_search(model, (X, Y), (kept, "macs"), **QUICK)
    assert [c.genes for c in resumed.evaluated] == [c.genes for c in alone.evaluated]


def test_a_worker_that_dies_costs_its_candidate_alone(model):
    found = genetic_search(model, (X, Y), ("macs", deadly), workers=2, population=4, generations=0)
    failed = [candidate for candidate in found.evaluated if candidate.failure]
    assert failed and all("the worker that evaluated it died" in candidate.failure for candidate in failed)
    assert all(candidate["deadly"] >= 4000 for candidate in found.evaluated if not candidate.failure)
    assert len(found.evaluated) > len(failed) + 1


def test_a_module_that_workers_cannot_import_is_told_and_ends_the_search(model):
    class FromElsewhere:
        """An objective of a module that is on this machine alone."""

        __name__ = "elsewhere"

        def __call__(self, candidate):
            return kept(candidate)

        def __reduce__(self):
            return __import__, ("a_module_of_this_machine",)

    message = (
        r"cannot import 'a_module_of_this_machine'.*install it on every machine, or put its folder into PYTHONPATH"
    )
    with pytest.raises(PruningError, match=message):
        genetic_search(model, (X, Y), (FromElsewhere(), "macs"), workers=2, **QUICK)


def test_what_cannot_be_sent_is_told(model):
    lock = threading.Lock()

    def holds_a_lock(candidate):
        return float(lock.locked())

    with pytest.raises(PruningError, match="workers=2: the model or an objective cannot be sent to another process"):
        genetic_search(model, (X, Y), (holds_a_lock, "macs"), workers=2, **QUICK)
