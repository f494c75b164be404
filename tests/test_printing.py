"""File names on the terminal, whatever they hold."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jgcl_ray import progress
from jgcl_ray.errors import UserError, exit_on_user_error, legible
from jgcl_ray.progress import bars, plain_console, tracked
from jgcl_ray.retrieval.answers import Answer


@pytest.mark.parametrize("text", ["x[/y]", "[night] shift", ":smile: [bold]x"])
def test_path_is_no_markup(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain_console().print(f"runs/{text}")
    assert list(tracked([1, 2], f"images of {text}")) == [1, 2]
    assert capsys.readouterr().err == f"runs/{text}\n"


def test_direction_of_the_text_is_no_names_to_turn() -> None:
    assert legible("cam\u202egpj.exe") == r"cam\u202egpj.exe" and legible("ü中 \u200d") == "ü中 \u200d"


def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    for _ in tracked(range(1200), "[night] photos"):
        now[0] += 0.125
    assert capsys.readouterr() == (
        "",
        "".join(f"[night] photos: {done:,} of 1,200\n" for done in (240, 480, 720, 960, 1200)),
    )
    with bars(shown=False) as add:
        moved = add("quiet")
        now[0] += 100
        moved(1, None)
    with bars() as add:
        moved = add("frames")
        now[0] += 100
        moved(1000, None)
    assert capsys.readouterr() == ("", "frames: 1,000\n")


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", rb"\xe4\u4e2d" + b"\xff"), ("utf-8", "ä中".encode() + b"\xff")]
)
def test_name_that_the_terminal_lacks(encoding: str, shown: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding, write_through=True))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding, write_through=True))
    with pytest.raises(SystemExit), exit_on_user_error():
        print("ä中\udcff")
        raise UserError("ä中\udcff")
    assert out.getvalue() == shown + b"\n" and err.getvalue() == b"error: " + shown + b"\n"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.EFBIG])
def test_what_is_wrong_with_a_place_is_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, exit_on_user_error():
        raise OSError(number, os.strerror(number), "runs/x")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: runs/x: {os.strerror(number)}; ")


_TALKS = """
import sys
from jgcl_ray.errors import exit_on_user_error
with exit_on_user_error():
    for line in range(int(sys.argv[1])):
        print("x" * 1000)
"""


@pytest.mark.parametrize("lines", [3, 3000])
def test_reader_that_has_gone_is_no_error(lines: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", _TALKS, str(lines)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_output_that_takes_no_more_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", _TALKS, "1"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: No space left") and done.stderr.count("\n") == 1


def test_names_do_not_move_the_terminal() -> None:
    assert str(UserError("two  blanks\n   and a line\x1b[31m")) == "two  blanks and a line\\x1b[31m"
    answer = Answer("q.jpg", ("a\tb\nc\x1b[2J\udcff ä.jpg",), (0.5,), ("door/1\n2",), ((0.0, 1.0),))
    assert answer.lines() == ["1\t0.5000\tdoor/1\\n2\t0 to 1\ta\\tb\\nc\\x1b[2J\udcff ä.jpg"]
