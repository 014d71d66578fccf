"""The migration page: tfmot's blocks run in a process with Keras 2, tfprune's on the files that they leave."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune

PAGE = (Path(__file__).parents[1] / "docs" / "from_tfmot.md").read_text(encoding="utf-8")
# Every call of tfmot's comprehensive guide to pruning, and of its guides beside it.
CALLS = [
    *("prune_low_magnitude", "ConstantSparsity", "PolynomialDecay", "UpdatePruningStep", "PruningSummaries"),
    *("PrunableLayer", "prune_scope", "strip_pruning", "PruneForLatencyOnXNNPack", "sparsity_m_by_n", "block_size"),
    *("clone_function", "on_train_batch_begin", "gzip", "TFLiteConverter", "quantize_model"),
    "Default8BitPrunePreserveQuantizeScheme",
]


def sections():
    """Title -> the code of tfmot and that of tfprune."""
    found = {}
    for part in PAGE.split("\n## ")[1:]:
        title = part.splitlines()[0]
        found[title] = re.findall(r"^```python\n(.*?)^```$", part, flags=re.M | re.S)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where tfmot has left its files."""
    folder = tmp_path_factory.mktemp("from_tfmot")
    theirs = "\n".join(blocks[0] for blocks in sections().values())
    (folder / "theirs.py").write_text(theirs, encoding="utf-8")
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    done = subprocess.run(
        [sys.executable, "theirs.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def names(folder):
    """What tfprune's blocks have left behind."""
    names = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for title, blocks in sections().items():
            exec(compile(blocks[1], title, "exec"), names)
    finally:
        os.chdir(before)
    return names


def zeros(model):
    return {key: float(1 - mask.mean()) for key, mask in tfprune.get_masks(model).items() if key.endswith("kernel")}


def test_every_section_has_both_sides_and_every_call_is_there():
    assert all(len(blocks) == 2 for blocks in sections().values()) and len(sections()) > 10
    theirs = "\n".join(blocks[0] for blocks in sections().values())
    assert [call for call in CALLS if call not in theirs] == []


def test_whole_models_and_some_layers(names):
    assert zeros(names["model"]) == {"conv/kernel": 0.5, "hidden/kernel": 0.5, "scores/kernel": 0.5}
    assert tfprune.summary(names["wrapped"]).sparsity == pytest.approx(0.5, abs=1e-3)
    for model in (names["some"], names["clone"]):
        assert set(zeros(model)) == {"hidden/kernel", "scores/kernel"}
        assert sum(np.count_nonzero(~mask) for mask in tfprune.get_masks(model).values()) == 2336
    assert zeros(names["own"]) == {"mine/kernel": 0.5}
    assert np.count_nonzero(keras.ops.convert_to_numpy(names["own"].layers[-1].bias) == 0) == 5
    assert [type(layer).__name__ for layer in names["inside"].layers] == ["PrunedLayer"]


def test_training(names):
    assert zeros(names["ramped"]) != {} and names["history"][-1] == pytest.approx(0.8, abs=1e-3)
    assert tfprune.summary(names["looped"]).sparsity == pytest.approx(0.5, abs=1e-3)
    assert names["decay"].bind(16).steps() == [0, 4, 8, 12]


def test_patterns_and_plans(names):
    kernel = keras.ops.convert_to_numpy(names["blocks"].get_layer("hidden").kernel)
    blocks = (kernel.reshape(-1, 4, 16) != 0).sum(1)
    assert set(np.unique(blocks)) == {0, 4}
    assert zeros(names["two_of_four"]) == {"hidden/kernel": 0.5}
    assert zeros(names["for_xnnpack"])["point/kernel"] >= 0.8


def test_models_of_tfmot_come_over_and_go_on(names, folder):
    theirs = tfprune.LiteModel.load(folder / "tfmot.tflite").inspect().weights
    counted = {key: int(np.count_nonzero(~mask)) for key, mask in tfprune.get_masks(names["brought"]).items()}
    assert set(counted) == {"conv/kernel", "hidden/kernel", "scores/kernel"}
    assert sum(counted.values()) == sum(weight.zeros for weight in theirs)
    assert zeros(names["final"]) == zeros(names["brought"])  # an epoch of training later
    assert zeros(names["loaded"]) == zeros(names["wrapped"])
    assert names["compressed"] < names["lite"].size
    assert names["in_int8"].inspect().float_ops == {}
    kept = tfprune.verify(names["quantized"], names["in_int8"], names["x"])
    assert kept.zeros_kept == kept.zeros > 0
