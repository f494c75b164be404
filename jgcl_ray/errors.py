"""The one error that a user can fix, and how an entry point ends on it."""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import signal
import sys
import threading
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any


class UserError(Exception):
    """Bad input: the message is one line that names the thing and the remedy. Entry points exit with code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(in_one_line(message))


def in_one_line(text: str) -> str:
    """Lines joined by blanks, and all of it legible."""
    return legible(" ".join(line.strip() for line in text.splitlines()))


def as_text(name: str) -> str:
    """What can be written in UTF-8: of a path, bytes that are no text by their numbers."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


_DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def legible(name: str) -> str:
    """What would move or colour a terminal, as Python writes it: names of files may hold anything."""
    return "".join(sign.encode("unicode_escape").decode("ascii") if _moves(sign) else sign for sign in name)


def _moves(sign: str) -> bool:
    """Control characters, ends of lines, and what turns the direction of the text after it."""
    return unicodedata.category(sign) in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(sign) in _DIRECTIONS


# Of a place rather than of the program; most places are tried ahead (jgcl_ray/places.py), and some fill up later.
_OF_PLACES = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EFBIG),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP),
    *(errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.EMFILE, errno.ENFILE),
}

_LEGIBLE = "jgcl_ray.legible"


def _legible(error: UnicodeError) -> tuple[str | bytes, int]:
    """Of a file name: bytes that are no text as they are, characters that the terminal lacks by their numbers."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    code = ord(error.object[error.start])
    if 0xDC80 <= code <= 0xDCFF:
        return bytes([code - 0xDC00]), error.start + 1
    return error.object[error.start].encode("ascii", "backslashreplace").decode("ascii"), error.start + 1


codecs.register_error(_LEGIBLE, _legible)


def _is_read() -> bool:
    """Whether there is somebody at the other end of standard output; of a file or a terminal always."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _takes_no_more() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _drop_output() -> None:
    """Python flushes standard output at its end, and would fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


_PACKAGE = str(Path(__file__).parent)
_of_python = warnings.formatwarning


def _as_note(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of this package for who gave a command: a line without the code that it comes from."""
    if category is UserWarning and filename.startswith(_PACKAGE):
        return f"note: {in_one_line(str(message))}\n"
    return _of_python(message, category, filename, lineno, line)


class Terminated(KeyboardInterrupt):
    """SIGTERM, to all that know how to end on Ctrl-C."""


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM ends what runs here as Ctrl-C does, with whatever is to be tidied up; a second signal ends it at once.

    After a first one the handlers stay as they are: the process is about to end, and that may take a while, too.
    A handler that somebody has set already stays.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    ours = [number for number, handler in usual.items() if signal.getsignal(number) is handler]
    owner, heard = os.getpid(), False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        heard = True
        for each in ours:
            signal.signal(each, signal.SIG_DFL)
        if os.getpid() != owner:  # a process forked off: its parent tidies up
            signal.raise_signal(number)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def again(lost: sys.UnraisableHookArgs) -> None:
        """Where Python drops exceptions, as in __del__ and about a fork, the signal would be lost."""
        if os.getpid() != owner or not issubclass(lost.exc_type, KeyboardInterrupt):
            dropped(lost)
            return
        number = signal.SIGTERM if lost.exc_type is Terminated else signal.SIGINT
        signal.signal(number, stop)
        threading.Timer(0.05, os.kill, (owner, number)).start()

    dropped, sys.unraisablehook = sys.unraisablehook, again
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        sys.unraisablehook = dropped
        for number in ours:
            if not heard and signal.getsignal(number) is stop:
                signal.signal(number, usual[number])


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a UserError into one line on standard error and exit code 2, and so a full or read-only disk and a file
    that may not be touched; every other error keeps its traceback.

    Ctrl-C ends in one word and with exit code 130, as shells have it, SIGTERM with 143, a second signal at once; a
    reader of standard output that has gone (`| head`) in no word and with exit code 141.

    Whatever a file is called, from here on its name can be printed. The package's own warnings are notes of a line.
    """
    warnings.formatwarning = _as_note
    # Pillow's, of large pictures, from half the size on at which it refuses them: image_files names those.
    warnings.filterwarnings("ignore", r"Image size \(\d+ pixels\) exceeds limit")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_LEGIBLE)
    try:
        with _stopped_by_signals():
            yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:
        if _is_read():
            raise
        _drop_output()
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        if error.errno not in _OF_PLACES:
            raise
        if sys.stdout is not None and _takes_no_more():
            _drop_output()
        place = "" if error.filename is None else f"{error.filename}: "
        print(f"error: {place}{error.strerror}; make room or fix that, or give another place", file=sys.stderr)
        raise SystemExit(2) from None
    except Terminated:
        print("terminated", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    finally:
        warnings.formatwarning = _of_python
