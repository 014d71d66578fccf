"""Draws docs/before_after.svg from what `benchmarks/first_page.py` measured.

python benchmarks/first_page.py --output docs/benchmarks/first_page
python docs/draw_before_after.py
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = HERE / "benchmarks" / "first_page.json"
TARGET = HERE / "before_after.svg"

WIDTH, ROW, TOP = 860, 54, 92
NAME, ACCURACY, BYTES, TIME = 24, 290, 322, 640  # where the columns begin; that of the accuracy ends there
LONGEST_BYTES, LONGEST_TIME = 214, 130
# Blue and orange stay apart for every kind of sight; the page may be light or dark.
STYLE = """<style>
.page { fill: #ffffff } .ink { fill: #1a202c } .quiet { fill: #4a5568 }
.file { fill: #c3d9ec } .download { fill: #0072b2 } .time { fill: #d55e00 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } .ink { fill: #f0f6fc } .quiet { fill: #a9b4c0 }
.file { fill: #2b4a66 } .download { fill: #56b4e9 } .time { fill: #e69f00 }
}
</style>"""


def drawing(report: dict[str, Any]) -> str:
    """The SVG text for a table of `benchmarks/first_page.py`."""
    rows = report["rows"]
    height = TOP + ROW * len(rows) + 12
    by_byte = LONGEST_BYTES / max(row["bytes"] for row in rows)
    by_time = LONGEST_TIME / max(row["milliseconds"] for row in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="Helvetica, Arial, sans-serif" role="img" '
        'aria-label="Accuracy, bytes and milliseconds of one network in five files">',
        STYLE,
        f'<rect width="{WIDTH}" height="{height}" rx="8" class="page"/>',
        _text(NAME, 32, "One network on Fashion-MNIST, five files, measured", 17, "ink", "bold"),
        _text(ACCURACY, 66, "accuracy", 13, "quiet", anchor="end"),
        _text(BYTES, 58, "bytes: light, of the file;", 13, "quiet"),
        _text(BYTES, 74, "dark, compressed, as downloaded", 13, "quiet"),
        _text(TIME, 66, "ms for an image, one thread", 13, "quiet"),
    ]
    for index, row in enumerate(rows):
        y = TOP + ROW * index
        size, download = (max(2, round(row[key] * by_byte)) for key in ("bytes", "gzip_bytes"))
        time = max(2, round(row["milliseconds"] * by_time))
        parts += [
            _text(NAME, y + 23, row["file"], 15, "ink"),
            _text(ACCURACY, y + 23, f"{row['accuracy']:.1%}", 15, "ink", "bold", anchor="end"),
            f'<rect x="{BYTES}" y="{y}" width="{size}" height="17" class="file"/>',
            f'<rect x="{BYTES}" y="{y + 18}" width="{download}" height="17" class="download"/>',
            _text(BYTES + size + 7, y + 13, f"{row['bytes'] / 1e6:.2f} MB", 13, "quiet"),
            _text(BYTES + download + 7, y + 31, f"{row['gzip_bytes'] / 1e6:.2f} MB", 13, "quiet"),
            f'<rect x="{TIME}" y="{y + 9}" width="{time}" height="17" class="time"/>',
            _text(TIME + time + 7, y + 23, f"{row['milliseconds']:.3f}", 13, "quiet"),
        ]
    return "\n".join([*parts, "</svg>", ""])


def _text(x: int, y: int, text: str, size: int, kind: str, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" class="{kind}" '
        f'text-anchor="{anchor}">{text}</text>'
    )


if __name__ == "__main__":
    TARGET.write_text(drawing(json.loads(SOURCE.read_text(encoding="utf-8"))[0]), encoding="utf-8")
