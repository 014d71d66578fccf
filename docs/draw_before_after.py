"""Draws docs/before_after.svg from what `tfprune demo --dataset fashion_mnist` measured.

tfprune demo --dataset fashion_mnist --output measured
cp measured/report.json docs/benchmarks/demo_fashion_mnist.json
python docs/draw_before_after.py
"""

import json
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE / "benchmarks" / "demo_fashion_mnist.json"
TARGET = HERE / "before_after.svg"

WIDTH, ROW, TOP, LEFT, LONGEST = 860, 66, 64, 190, 420
FILE, DOWNLOAD, INK, QUIET = "#c9d7e8", "#2b6cb0", "#1a202c", "#4a5568"


def drawing(report: dict) -> str:
    """The SVG text for a demo report."""
    rows = report["rows"]
    height = TOP + ROW * len(rows) + 24
    scale = LONGEST / max(row["bytes"] for row in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="Helvetica, Arial, sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
        _text(24, 30, "A small CNN on Fashion-MNIST, before and after", 17, INK, "bold"),
        _text(WIDTH - 24, 30, "accuracy", 13, QUIET, anchor="end"),
        _text(
            24, 50, "light: bytes of the .tflite file; dark: the same file compressed, as it is downloaded", 13, QUIET
        ),
    ]
    for index, row in enumerate(rows):
        y = TOP + 8 + ROW * index
        size, download = (max(2, round(row[key] * scale)) for key in ("bytes", "gzip_bytes"))
        parts += [
            _text(24, y + 25, row["model"], 15, INK),
            f'<rect x="{LEFT}" y="{y}" width="{size}" height="18" fill="{FILE}"/>',
            f'<rect x="{LEFT}" y="{y + 20}" width="{download}" height="18" fill="{DOWNLOAD}"/>',
            _text(LEFT + size + 8, y + 14, f"{row['bytes'] / 1000:,.0f} kB", 13, QUIET),
            _text(LEFT + download + 8, y + 34, f"{row['gzip_bytes'] / 1000:,.0f} kB compressed", 13, QUIET),
            _text(WIDTH - 24, y + 25, f"{row['lite_accuracy']:.1%}", 15, INK, "bold", anchor="end"),
        ]
    return "\n".join([*parts, "</svg>", ""])


def _text(x: int, y: int, text: str, size: int, colour: str, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{text}</text>'
    )


if __name__ == "__main__":
    TARGET.write_text(drawing(json.loads(SOURCE.read_text())), encoding="utf-8")
