"""One writer for a folder, of a run or of a command's results: a lock that says who holds it, and outlives nobody.

A file made exclusively, with process, host and time in it, and a thread that touches it while the holder lives: run
folders lie on network file systems, too, where flock() of one machine is not seen by another. It is stale where its
process of this machine is gone, or where another machine has not touched it for STALE_AFTER seconds; then it is taken
over.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from jgcl_ray.errors import UserError
from jgcl_ray.stored_files import parse_json

LOCK, CLAIM = "lock.json", ".lock.json.claim"
ANOTHER_NAME = "give this run another run.name"
BEAT, STALE_AFTER = 10.0, 120.0  # seconds
WRITTEN_WITHIN = 5.0  # seconds after which half a lock is a killed process's

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """Who holds a lock."""

    process: int
    host: str
    since: str  # local time, for people

    @classmethod
    def me(cls) -> Owner:
        """This process."""
        return cls(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S"))

    def is_gone(self, silent_for: float) -> bool:
        """Whether it has ended, as far as is known; silent_for: seconds since it touched the file."""
        if silent_for > STALE_AFTER or not 0 < self.process < 2**31:
            return True
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # it lives, and is another user's
            pass
        return False


@contextmanager
def only_writer(folder: Path, otherwise: str = ANOTHER_NAME, lock: str = LOCK) -> Iterator[None]:
    """Hold the lock of a folder, which is made. UserError where another process holds it.

    otherwise: what else than waiting helps then. lock: name of the lock, where a folder has several parts.
    """
    file, mine = folder / lock, json.dumps(asdict(Owner.me()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while not (_made(file, mine) or _taken_over(file, mine, otherwise)):
            time.sleep(0.01)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to: {error.strerror}") from None
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(file, ended), name="run lock", daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        with suppress(FileNotFoundError):
            if file.read_bytes() == mine.encode():  # not taken over while this machine slept
                file.unlink()


def _made(file: Path, text: str) -> bool:
    try:
        with file.open("x", encoding="utf-8") as lock:
            lock.write(text)
    except FileExistsError:
        return False
    return True


def _taken_over(file: Path, text: str, otherwise: str) -> bool:
    """Whether a stale lock was replaced by text. UserError where its owner lives.

    One at a time judges and replaces: who makes the claim, which then becomes the lock in one rename. So there is no
    moment without a lock in which a third could make one that is then overwritten.
    """
    if _stale_owner(file, otherwise) is None:
        return False
    claim = file.with_name(f".{file.name}.claim")
    if not _made(claim, text):
        with suppress(FileNotFoundError):
            if time.time() - claim.stat().st_mtime > STALE_AFTER:
                raise UserError(f"{claim}: a process was killed while it took a lock over; delete this file")
        return False
    owner = None
    try:
        owner = _stale_owner(file, otherwise)  # another may have taken it over since
    finally:
        if owner is None:
            claim.unlink()
    if owner is None:
        return False
    claim.replace(file)
    logger.warning("%s: process %d on %s left its lock behind; taken over", file.parent, owner.process, owner.host)
    return True


def _stale_owner(file: Path, otherwise: str) -> Owner | None:
    """Who left the lock behind; None where there is none now, or where it is being written. UserError: it lives."""
    if file.is_symlink() or (file.exists() and not file.is_file()):  # a pipe would be waited for, and a lost link
        raise UserError(f"{file}: no lock of jgcl_ray's; take it away, or {otherwise}")
    try:
        silent_for, content = time.time() - file.stat().st_mtime, file.read_bytes()
    except FileNotFoundError:  # given back meanwhile
        return None
    try:
        owner = parse_json(content, Owner, str(file), "")
    except UserError:
        begun = json.dumps(asdict(Owner(0, "", ""))).partition(":")[0].encode()
        if content[: len(begun)] != begun[: len(content)]:
            raise UserError(f"{file}: no lock of jgcl_ray's; take it away, or {otherwise}") from None
        if silent_for < WRITTEN_WITHIN:
            return None
        owner = Owner(0, "an unknown machine", "an unknown time")
    if not owner.is_gone(silent_for):
        raise UserError(
            f"{file.parent}: process {owner.process} on {owner.host} writes there since {owner.since}; wait for it, "
            f"stop it, or {otherwise}"
        )
    return owner


def _beat(file: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with suppress(FileNotFoundError):
            os.utime(file)
