"""Fails unless a wheel holds the package tfprune, its licence and its metadata, and nothing else."""

import sys
import zipfile
from pathlib import Path

path = Path(sys.argv[1])
names = zipfile.ZipFile(path).namelist()
roots = {name.split("/")[0] for name in names}
foreign = sorted(root for root in roots if root != "tfprune" and not root.endswith(".dist-info"))
tests = [name for name in names if "test" in Path(name).name]
missing = [
    wanted
    for wanted in (
        *("tfprune/py.typed", "tfprune/command/cli.py", "tfprune/lite/convert/convert.py"),
        "tfprune/lite/measure/litertjs.mjs",
    )
    if wanted not in names
]
if foreign or tests or missing or not any(name.endswith("licenses/LICENSE") for name in names):
    sys.exit(f"{path.name}: foreign {foreign}, tests {tests}, missing {missing}, or no licence")
print(f"{path.name}: {len(names)} files, {path.stat().st_size:,} bytes")
