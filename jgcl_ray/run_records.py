"""A line of metrics.jsonl: stage, epoch and step, and numbers by name."""

from __future__ import annotations

import json
import sys
from typing import Any

Record = dict[str, Any]  # stage: str, epoch: int, step: int, and numbers by name (None where not finite)

RECORD_KEYS = ("stage", "epoch", "step")  # the other keys are metrics


def parse_record(line: bytes) -> Record | None:
    """The record in a line; None where it is none, or only a part of one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("stage"), str):
        return None
    counts = all(isinstance(record.get(key), int) and _is_number(record[key]) for key in ("epoch", "step"))
    numbers = all(value is None or _is_number(value) for key, value in record.items() if key not in RECORD_KEYS)
    return record if counts and numbers else None


def _is_number(value: object) -> bool:
    """Finite: not NaN, which Python's json reads, nor an integer that no float holds."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max
