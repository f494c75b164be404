"""Counts in words."""

from __future__ import annotations


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 crop`, `2 crops`, `1,500 boxes`; many: the plural where it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
