"""Searches on Dask and on Ray: the result and the journal of one process, a worker killed in the middle included."""

import os
import sys
from contextlib import contextmanager

import pytest
from search_models import X, Y, classifier
from search_objectives import Recorded

from tfprune import genetic_search


@contextmanager
def dask():
    distributed = pytest.importorskip("distributed")
    import joblib

    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster), joblib.parallel_config(backend="dask"):
        yield


@contextmanager
def ray():
    package = pytest.importorskip("ray")
    import joblib
    from ray.util.joblib import register_ray

    register_ray()
    paths = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}  # of the objectives' module
    package.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=paths)
    try:
        with joblib.parallel_config(backend="ray"):
            yield
    finally:
        package.shutdown()


def searched(model, folder, **arguments):
    folder.mkdir()
    if "workers" in arguments:
        (folder / "fuse").touch()
    objectives = (Recorded(folder), "accuracy")
    found = genetic_search(
        model, (X, Y), objectives, population=8, generations=1, seed=2, journal=folder / "journal", **arguments
    )
    return [(each.genes, each.figures, each.failure) for each in found.evaluated]


@pytest.mark.parametrize("cluster", [dask, ray])
def test_a_cluster_finds_what_one_process_finds_also_when_a_worker_is_killed(cluster, tmp_path):
    with cluster():
        model = classifier()
        shared = searched(model, tmp_path / "shared", workers=2)
    alone = searched(model, tmp_path / "alone")
    assert shared == alone
    assert (tmp_path / "shared" / "journal").read_bytes() == (tmp_path / "alone" / "journal").read_bytes()
    notes = [line.split() for line in (tmp_path / "shared" / "notes").read_text().splitlines()]
    places = {what: [int(pid) for kind, pid in notes if kind == what] for what in ("evaluated", "unpacked", "killed")}
    assert len(places["killed"]) == 1
    assert places["evaluated"].count(os.getpid()) == 1  # the unpruned model, by which the others are judged
    assert len(set(places["evaluated"])) >= 2
    # What candidates are measured with is unpacked once in each worker.
    unpacked = places["unpacked"]
    assert sorted(unpacked) == sorted(set(unpacked)) and set(places["evaluated"]) <= {*unpacked, os.getpid()}
