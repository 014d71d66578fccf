"""The lines that measure a file on a phone, and what its tool prints, read back."""

import pytest

from tfprune.errors import PruningError
from tfprune.lite import benchmark, phone_lines
from tfprune.lite.measure.phone import read_phone_output

# As benchmark_model prints it.
PRINTED = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Num threads: [2]
INFO: Graph: [/data/local/tmp/model.tflite]
INFO: Initialized session in 19.515ms.
INFO: Running benchmark for at least 5 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=9 first=87112 curr=51629 min=51629 max=87112 avg=58147.4 std=11478 p5=51629 median=51962 p95=87112

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=2162 curr=2085 min=2008 max=2600 avg=2143.2 std=60 p5=2020 median=2091 p95=2428

INFO: Inference timings in us: Init: 119515, First inference: 87112, Warmup (avg): 58147.4, Inference (avg): 2143.2
INFO: Memory footprint delta from the start of the tool (MB): init=5.4961 overall=6.5
"""


def test_the_lines_hold_the_settings_and_run_one_after_the_other():
    lines = phone_lines("out/my model.tflite", runs=20, threads=4, warmup=3, xnnpack=False).splitlines()
    assert lines[0].startswith("#")
    assert [line.split()[:2] for line in lines[1:]] == [
        ["adb", "push"],
        ["adb", "shell"],
        ["adb", "push"],
        ["adb", "shell"],
    ]
    assert lines[3] == "adb push 'out/my model.tflite' /data/local/tmp"
    assert lines[4] == (
        "adb shell /data/local/tmp/benchmark_model --graph='/data/local/tmp/my model.tflite' --num_threads=4 "
        "--num_runs=20 --warmup_runs=3 --use_xnnpack=false --report_peak_memory_footprint=true "
        "> 'out/my model.phone.txt' 2>&1"
    )


def test_what_the_tool_printed_is_read(tmp_path):
    path = tmp_path / "model.phone.txt"
    path.write_text(PRINTED)
    run = read_phone_output(path)
    assert (run.runs, run.threads, run.graph) == (50, 2, "/data/local/tmp/model.tflite")
    assert (run.median, run.fastest, run.slowest) == (2.091, 2.008, 2.6)
    assert run.mean == pytest.approx(2.1432)
    assert run.memory == round(6.5 * 2**20)
    peak = "INFO: Overall peak memory footprint (MB) via periodic monitoring: 12.5\n"
    path.write_text(PRINTED + peak)
    assert read_phone_output(path).memory == round(12.5 * 2**20)


def test_older_tools_and_equal_runs_are_read(tmp_path):
    path = tmp_path / "old.log"
    path.write_text(
        "count=15 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930\n"
        "count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450\n"
        "Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 33209.4\n"
    )
    run = read_phone_output(path)
    assert (run.runs, run.median, run.memory, run.threads) == (50, 33.2094, None, None)
    path.write_text("count=3 curr=120\nInference timings in us: Init: 8, First inference: 1, Inference (avg): 120\n")
    run = read_phone_output(path)
    assert (run.runs, run.median, run.fastest, run.slowest) == (3, 0.12, 0.12, 0.12)


def test_a_phone_stands_in_the_same_table(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text(PRINTED)
    second.write_text(PRINTED.replace("median=2091", "median=4182"))
    report = benchmark({"small": first, "large": str(second)})
    assert [row["time_ratio"] for row in report.rows()] == [1.0, 2.0]
    assert report.rows()[0]["memory_bytes"] == round(6.5 * 2**20)
    text = " ".join(str(report).split())
    assert "'small' is read from a phone's text: 50 runs, 2 threads of /data/local/tmp/model.tflite." in text
    assert "taken in turns" not in text
    assert "Running 'small' adds 6,815,744 bytes to a process, at its peak." in text


def test_a_text_without_a_measurement_is_refused(tmp_path):
    with pytest.raises(PruningError, match="is not a file. Save what benchmark_model prints"):
        read_phone_output(tmp_path / "none.txt")
    path = tmp_path / "failed.txt"
    path.write_text("INFO: STARTING!\nERROR: Failed to mmap model\n")
    with pytest.raises(PruningError, match="no finished measurement .* It ends with: '.*Failed to mmap model'"):
        benchmark({"phone": path})
