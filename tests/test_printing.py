"""File names on the terminal, whatever they hold."""

from __future__ import annotations

import io
import sys

import pytest

from jgcl_ray.errors import UserError, exit_on_user_error
from jgcl_ray.progress import plain_console, tracked


@pytest.mark.parametrize("text", ["x[/y]", "[night] shift", ":smile: [bold]x"])
def test_path_is_no_markup(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain_console().print(f"runs/{text}")
    assert list(tracked([1, 2], f"images of {text}")) == [1, 2]
    assert capsys.readouterr().err == f"runs/{text}\n"


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
