"""The front page, docs/ and benchmarks/README.md: links, files, commands, options and settings that exist."""

from __future__ import annotations

import importlib
import importlib.util
import io
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest

import jgcl_ray
from jgcl_ray.__main__ import COMMANDS
from jgcl_ray.config import Config

CHECKOUT = Path(jgcl_ray.__file__).parents[1]
FRONT = CHECKOUT / "README.md"
PAGES = [FRONT, *sorted((CHECKOUT / "docs").glob("*.md")), CHECKOUT / "benchmarks" / "README.md"]
KEPT = ("jgcl_ray/", "configs/", "cluster/", "docs/", "benchmarks/", "tests/", ".ci/", "results/")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(CHECKOUT).as_posix())


def _code(page: Path) -> Iterator[str]:
    """Lines of code blocks, fenced or indented, and what stands between backticks."""
    fenced = False
    prose = []
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.partition(" # ")[0].strip()
        else:
            prose.append(line)
    yield from (" ".join(inline.split()) for inline in re.findall(r"`([^`]+)`", "\n".join(prose)))


def _commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """(what python runs, its arguments) of each command."""
    for code in _code(page):
        for step in re.split(r"&&|;", code):
            called = re.search(r"\bpython3? (?:-m (jgcl_ray[\w.]*)|(benchmarks/\w+\.py))(.*)", step)
            if called:
                yield called[1] or called[2], shlex.split(called[3])


PARTS = {"estimator": ["estimate"], "pretrain": ["encoder", "generator", "estimator"]}  # of commands that have some


@cache
def _help(module: str) -> str:
    """What `--help` of a command says, and of its subcommands."""
    name = next(name for name, (target, _) in COMMANDS.items() if target == module)
    parts = [[], *([part] for part in PARTS.get(name, []))]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        for part in parts:
            patch.setattr(sys, "argv", [name, *part, "--help"])
            with pytest.raises(SystemExit) as ended:
                _entry(module)()
            assert ended.value.code == 0
    return said.getvalue()


def _entry(module: str) -> Callable[[], None]:
    package = importlib.util.find_spec(module)
    assert package is not None
    runs = f"{module}.__main__" if package.submodule_search_locations else module
    main: Callable[[], None] = importlib.import_module(runs).main
    return main


def test_the_front_page_is_a_page() -> None:
    lines = FRONT.read_text().splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 200
    linked = re.findall(r"\]\((docs/[^)#]+)", FRONT.read_text())
    assert {CHECKOUT / link for link in linked} == set((CHECKOUT / "docs").glob("*.md")), "every page is linked"


def test_the_test_command_stands_between_its_marks() -> None:
    found = re.findall(r"<!-- the test command -->\n```bash\n(.+)\n```\n", FRONT.read_text())
    assert len(found) == 1
    assert "pytest" in found[0]


@pages
def test_links_lead_to_files(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    local = [link for link in links if not link.startswith("https://")]
    assert [link for link in local if not (page.parent / link.partition("#")[0]).exists()] == []


@pages
def test_files_that_are_named_exist(page: Path) -> None:
    named = {word for code in _code(page) for word in code.split() if word.startswith(KEPT)}
    files = {word.rstrip(",.:;") for word in named if not re.search(r"[A-Z*{]{2,}|[*{]", word.replace("README", ""))}
    bases = (CHECKOUT, page.parent)
    assert sorted(name for name in files if not any((base / name).exists() for base in bases)) == []


@pages
def test_commands_and_their_options_exist(page: Path) -> None:
    modules = {module for module, _ in COMMANDS.values()} | {"jgcl_ray"}
    for called, arguments in _commands(page):
        script = CHECKOUT / called
        assert called in modules or script.is_file(), called
        options = {word.partition("=")[0] for word in arguments if re.match(r"--?[a-z]", word)} - {"--help"}
        if options:
            known = script.read_text() if script.is_file() else _help(called)
            assert [option for option in options if not re.search(rf"{option}(?![\w-])", known)] == [], called


@pages
def test_settings_that_are_named_exist(page: Path) -> None:
    sections = {name: field.annotation for name, field in Config.model_fields.items()}
    settings = re.findall(r"(?<![\w./])([a-z_]+)\.([a-z_0-9]+)(?==)", "\n".join(_code(page)))
    unknown = {f"{a}.{b}" for a, b in settings if b not in getattr(sections.get(a), "model_fields", {})}
    assert unknown <= {"section.field"}
