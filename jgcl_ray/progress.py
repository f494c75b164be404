"""Standard error: lines as they stand, and a bar while something long goes on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import TextColumn, track

Item = TypeVar("Item")


def plain_console() -> Console:
    """Standard error, on which brackets and colons of a path are no markup and lines are broken by the terminal."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)


def description_column() -> TextColumn:
    """What a bar is about, as it stands."""
    return TextColumn("{task.description}", markup=False)


def tracked(items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
    """The items, watched on their way; silent where standard error is no terminal.

    total: how many they are, where they have no length.
    """
    console = plain_console()
    return track(items, escape(what), total, console=console, transient=True, disable=not console.is_terminal)
