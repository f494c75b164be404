"""The one error that a user can fix, and how an entry point ends on it."""

from __future__ import annotations

import codecs
import errno
import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Bad input: the message is one line that names the thing and the remedy. Entry points exit with code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


# Of a place rather than of the program; most places are tried ahead (jgcl_ray/places.py), and some fill up later.
_OF_PLACES = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG}

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


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a UserError into one line on standard error and exit code 2, and so a full or read-only disk and a file
    that may not be touched; every other error keeps its traceback.

    Ctrl-C ends in one word and with exit code 130, as shells have it.

    Whatever a file is called, from here on its name can be printed.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_LEGIBLE)
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno not in _OF_PLACES:
            raise
        place = "" if error.filename is None else f"{error.filename}: "
        print(f"error: {place}{error.strerror}; make room or fix that, or give another place", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
