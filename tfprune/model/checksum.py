"""A checksum in what is written as JSON, so that a damaged record is not taken for another one."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "checksum"


def checksum(value: Any) -> str:
    """A digest of plain values, the same before they are written as JSON and after they are read.

    >>> checksum({"b": (1, 2.5), "a": None}) == checksum({"a": None, "b": [1, 2.5]})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with its checksum."""
    return {**record, KEY: checksum(dict(record))}


def opened(record: Any, needs: bool = False) -> dict[str, Any]:
    """A record without its checksum.

    Args:
        record: As it was read.
        needs: Whether there has to be one; records that earlier versions wrote have none.

    Raises:
        ValueError: It is no record, or another one than was written.

    >>> opened(sealed({"genes": "01"}))
    {'genes': '01'}
    """
    if not isinstance(record, dict):
        raise ValueError("it is no record")
    plain = {name: value for name, value in record.items() if name != KEY}
    if (needs or KEY in record) and record.get(KEY) != checksum(plain):
        raise ValueError("its checksum is not that of what it holds")
    return plain
