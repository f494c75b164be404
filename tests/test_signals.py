"""Signals to a command, as a terminal and a supervisor send them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

_COMMAND = """
import sys, time
from pathlib import Path
from jgcl_ray.atomic import replacing
from jgcl_ray.errors import exit_on_user_error

class Busy:
    def __del__(self):
        print("begun", flush=True)
        time.sleep(1)

with exit_on_user_error():
    with replacing(Path(sys.argv[1])) as partial:
        partial.write_text("half")
        try:
            {work}
        finally:
            {tidy}
"""
_WAIT = "print('begun', flush=True); time.sleep(60)"


def _ended(file: Path, number: int, times: int = 1, work: str = _WAIT, tidy: str = "pass") -> tuple[int, str]:
    command = [sys.executable, "-c", _COMMAND.format(work=work, tidy=tidy), str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(times):
            assert process.stdout.readline() == "begun\n"
            process.send_signal(number)
        return process.wait(30), process.communicate()[1]


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "terminated\n")]
)
def test_a_signal_ends_a_command_in_a_word_and_leaves_no_half_file(
    number: int, code: int, word: str, tmp_path: Path
) -> None:
    assert _ended(tmp_path / "out.json", number) == (code, word)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_wait_for_the_tidying_up(number: int, tmp_path: Path) -> None:
    assert _ended(tmp_path / "out.json", number, times=2, tidy=_WAIT) == (-number, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_where_python_drops_exceptions_is_not_lost(number: int, code: int, tmp_path: Path) -> None:
    ended, said = _ended(tmp_path / "out.json", number, work="Busy(); time.sleep(20)")
    assert ended == code and "Traceback" not in said


def test_a_handler_that_somebody_has_set_stays() -> None:
    from jgcl_ray.errors import exit_on_user_error

    def mine(number: int, frame: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with exit_on_user_error():
            assert signal.getsignal(signal.SIGTERM) is mine
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
