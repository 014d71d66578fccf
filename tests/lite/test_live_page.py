"""The page of the docs that runs a dense and a sparse file live: a real browser counts what LiteRT counts here."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfprune.lite import LiteModel
from tfprune.lite.measure import web

LIVE = Path(__file__).parents[2] / "docs" / "live"
ADDRESS = "/live/index.html?litertjs=/package/&run"
# Reads the page's text when it has come to its verdict, or says that it did not work.
READER = f"""<!doctype html><iframe src="{ADDRESS}"></iframe><script>
const text = (id) => document.querySelector("iframe").contentDocument.getElementById(id)?.textContent ?? "";
const names = ["verdict", "state"];
for (const file of ["dense", "sparse"]) names.push(`${{file}}-size`, `${{file}}-time`, `${{file}}-right`);
setInterval(() => {{
  if (!text("verdict") && !text("state").includes("not work")) return;
  const told = Object.fromEntries(names.map((name) => [name, text(name)]));
  fetch("/done", {{ method: "POST", body: JSON.stringify(told) }});
}}, 200);
</script>"""
FILES = ("dense.tflite", "sparse.tflite", "images.bin")


def shown(files):
    """What the page shows in the end, served with these files."""
    served = {f"/live/{name}": content for name, content in files.items()}
    served |= {ADDRESS: (LIVE / "index.html").read_bytes(), "/live/live.js": (LIVE / "live.js").read_bytes()}
    package = web.find_package(browser=True)
    with web._serving({**served, "/": READER.encode()}, package.parent) as (address, received, done):
        web._run(web.find_program(browser=True), address, True, done, 300.0)
        return json.loads(received["/done"])


@pytest.fixture(scope="module")
def files():
    return {name: (LIVE / name).read_bytes() for name in FILES}


@pytest.mark.skipif(not web.is_present(browser=True), reason="Chromium or @litertjs/core is missing")
def test_the_page_counts_what_litert_counts_and_tells_both_times(files):
    page = shown(files)
    content = np.frombuffer(files["images.bin"], "uint8")
    count = len(content) // 785
    images, labels = content[: 784 * count].reshape(count, 28, 28, 1), content[784 * count :]
    larger = tf.image.resize(images / np.float32(255), (96, 96)).numpy().repeat(3, axis=-1) * 2 - 1
    for name in ("dense", "sparse"):
        lite = LiteModel(files[f"{name}.tflite"])
        right = int((lite(larger).argmax(axis=-1) == labels).sum())
        assert page[f"{name}-right"] == f"{right} of {count}"
        assert page[f"{name}-size"].replace(",", "") == str(round(lite.size / 1000))
        assert float(page[f"{name}-time"]) > 0
    assert re.match(r"Here the network with zeros is \d+\.\d\d times as fast, and right on", page["verdict"])
    assert page["state"] == f"{count} of {count} images"


@pytest.mark.skipif(not web.is_present(browser=True), reason="Chromium or @litertjs/core is missing")
def test_a_page_without_its_files_says_which_is_missing(files):
    page = shown({"dense.tflite": files["dense.tflite"]})
    assert page["state"] == "This did not work: sparse.tflite: 404" and not page["verdict"]


def test_the_version_of_litertjs_is_the_one_that_figures_come_from():
    assert f"@{web.VERSION}/" in (LIVE / "index.html").read_text(encoding="utf-8")


def test_the_sparse_file_has_the_zeros_that_the_page_names(files):
    kernels = [weight for weight in LiteModel(files["sparse.tflite"]).inspect().weights if weight.zeros]
    zeros, entries = sum(weight.zeros for weight in kernels), sum(weight.entries for weight in kernels)
    assert zeros / entries == pytest.approx(0.9, abs=0.005)
