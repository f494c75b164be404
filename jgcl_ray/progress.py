"""Standard error: lines as they stand, and a bar while something long goes on.

Where it is no terminal but a file or a pipe, a line now and then says that the command lives and how far it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from time import monotonic
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
Moved = Callable[[int, int | None], None]  # how much is done, of how much; None: not known

LINE_EVERY = 30.0  # seconds at least between two lines; what is quicker prints none


def plain_console() -> Console:
    """Standard error, on which brackets and colons of a path are no markup and lines are broken by the terminal."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)


def description_column() -> TextColumn:
    """What a bar is about, as it stands."""
    return TextColumn("{task.description}", markup=False)


class LinesNowAndThen:
    """In place of a bar, on a console that is no terminal; on a terminal nothing."""

    def __init__(self, console: Console) -> None:
        self._console, self._last = console, monotonic()

    def printed(self) -> None:
        """Something else was: the next line waits from now on."""
        self._last = monotonic()

    def tell(self, what: str, done: int, total: int | None) -> None:
        """Print how far something is, unless the last line is younger than LINE_EVERY."""
        if self._console.is_terminal or monotonic() - self._last < LINE_EVERY:
            return
        self.printed()
        line = f"{what}: {done:,}" if total is None else f"{what}: {done:,} of {total:,}"
        self._console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


class Add(Protocol):
    """One more thing that goes on; the answer is called as it moves."""

    def __call__(self, what: str, total: int | None = None, done: int = 0) -> Moved: ...


@contextmanager
def bars(*columns: ProgressColumn, transient: bool = True, shown: bool = True) -> Iterator[Add]:
    """Bars on standard error while it lasts, or lines; columns: of the bars, after what they are about."""
    console = plain_console()
    lines = LinesNowAndThen(console)
    columns = columns or (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(elapsed_when_finished=True))
    hidden = not (shown and console.is_terminal)
    with Progress(description_column(), *columns, console=console, transient=transient, disable=hidden) as progress:

        def add(what: str, total: int | None = None, done: int = 0) -> Moved:
            task = progress.add_task(what, total=total, completed=done)

            def moved(done: int, total: int | None) -> None:
                progress.update(task, completed=done, total=total)
                if shown:
                    lines.tell(what, done, total)

            return moved

        yield add


def tracked(items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
    """The items, watched on their way.

    total: how many they are, where they have no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bars() as add:
        moved = add(what, total)
        for done, item in enumerate(items, start=1):
            yield item
            moved(done, total)
