from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import jgcl_ray
from jgcl_ray import pretrain
from jgcl_ray.__main__ import COMMANDS, main
from jgcl_ray.arguments import Parser, finite, positive, whole
from jgcl_ray.data.walkers import __main__ as walkers

PACKAGE = Path(jgcl_ray.__file__).parent
BENCHMARKS = PACKAGE.parent / "benchmarks"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "jgcl_ray", *arguments], capture_output=True, text=True)


def _is_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def test_every_module_that_runs_is_a_command_by_its_own_name() -> None:
    runnable = set()
    for file in PACKAGE.rglob("*.py"):
        if any(map(_is_guard, ast.parse(file.read_text()).body)) and file != PACKAGE / "__main__.py":
            parts = [part for part in file.relative_to(PACKAGE.parent).with_suffix("").parts if part != "__main__"]
            runnable.add(".".join(parts))
    assert runnable == {module for module, _ in COMMANDS.values()}
    for name, (module, sentence) in COMMANDS.items():
        assert module.rpartition(".")[2] == name
        assert re.fullmatch(r"[A-Z].*\.", sentence)


def test_the_list_names_every_command_and_imports_nothing_heavy() -> None:
    code = "import sys; from jgcl_ray.__main__ import main; main([])"
    code += "; print(*(name in sys.modules for name in ('torch', 'ray')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
    for name, (_, sentence) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(sentence)}$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_asking_for_help_is_asking_for_the_list(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(arguments)
    assert "usage: jgcl COMMAND" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out.strip() == jgcl_ray.__version__


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "config"])
def test_exit_codes_stand_in_the_help_and_mistakes_are_one_line(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = COMMANDS[name][0]
    found = importlib.import_module(module)
    run = (importlib.import_module(f"{module}.__main__") if hasattr(found, "__path__") else found).main
    for arguments, code in (["--help"], 0), (["--no-such-option", "1"], 2):
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(SystemExit) as ended:
            run()
        told = capsys.readouterr()
        assert ended.value.code == code
        if code:
            assert told.err.startswith("error: ") and told.err.endswith("--help\n") and told.err.count("\n") == 1
        else:
            assert re.search(r"exit codes: 0 .*2 ", told.out, re.DOTALL)


def test_warnings_of_the_package_are_notes(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import warnings; from jgcl_ray import errors\n"
    code += "with errors.exit_on_user_error():\n"
    code += "    warnings.warn_explicit('two\\nlines', UserWarning, errors.__file__, 1)\n"
    code += "    warnings.warn_explicit('of others', UserWarning, '/elsewhere.py', 7)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[0] == "note: two lines"
    assert done.stderr.splitlines()[1] == "/elsewhere.py:7: UserWarning: of others"


def test_a_commands_help_and_output_are_its_own() -> None:
    assert "usage: python -m jgcl_ray.export" in _run("export", "--help").stdout
    printed = _run("config")
    assert printed.returncode == 0
    assert printed.stdout == (PACKAGE.parent / "configs" / "base.yaml").read_text()


def test_a_commands_arguments_and_exit_code_are_passed_through() -> None:
    wrong = _run("train", "--config", "walkers", "run.nmae=x")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: run.nmae='x': no such field; did you mean run.name?")


def test_the_settings_are_printed_and_take_no_arguments() -> None:
    assert "  weights_file: null\n" in _run("config").stdout
    refused = _run("config", "data.root=crops")
    assert refused.returncode == 2 and not refused.stdout
    assert "data.root=crops" in refused.stderr and refused.stderr.count("\n") == 1


def test_an_unknown_command_is_named_with_the_one_that_is_meant() -> None:
    wrong = _run("trian")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: trian: no such command; did you mean train? known: train, evaluate,")


def test_the_console_script_is_this_function() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["jgcl"].partition(":")
    assert importlib.util.find_spec(module) is not None
    assert getattr(sys.modules[module], function) is main


@pytest.mark.parametrize("script", sorted(path.name for path in BENCHMARKS.glob("bm_*.py")))
def test_a_benchmarks_bad_argument_is_one_line_as_a_commands(script: str) -> None:
    tree = ast.parse((BENCHMARKS / script).read_text())
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert "Parser" in called and "argparse.ArgumentParser" not in called
    assert "exit_on_user_error" in called


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "NaN", "1e999", "two", ""])
def test_what_is_no_finite_number_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number"):
        finite(text)
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number above 0"):
        positive(text)
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number from 1 to 1,000,000,000"):
        whole(1)(text)


def test_no_command_takes_a_number_as_python_does() -> None:
    for file in [*PACKAGE.rglob("*.py"), *BENCHMARKS.glob("bm_*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("add_argument"):
                types = [ast.unparse(word.value) for word in node.keywords if word.arg == "type"]
                chosen = any(word.arg == "choices" for word in node.keywords)
                assert chosen or "float" not in types, f"{file}: {ast.unparse(node)}"


def test_an_empty_path_is_not_the_current_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """What a shell makes of an unset variable: --remove "" would take all images out of an index."""
    parser = Parser(prog="it")
    parser.add_argument("--remove", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    assert parser.parse_args(["--remove", ".", "--out", "x"]).remove == [Path()]
    for given in (["--remove", "a", ""], ["--out", ""], ["--out="]):
        with pytest.raises(SystemExit) as exit_:
            parser.parse_args(given)
        assert exit_.value.code == 2
        assert re.match(rf"error: argument {given[0].strip('=')}: an empty path; .*\n$", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        (walkers.main, "--true-views 10000000", "--true-views 10000000: must be"),
        (walkers.main, "--identities 8 --images 4 --true-views 33", "the set has 32 photos, give at most as many"),
        (walkers.main, "--identities 9999 --images 9999", "99,980,001 photos, a set has at most 1,000,000"),
        (walkers.main, "--true-views 900 --height 4096", "148 GiB of pictures in one file"),
        (pretrain.main, "encoder --people 1000000000 --images 4", "is not a whole number from 2 to 10,000"),
        (pretrain.main, "encoder --figures 1000000000", "is not a whole number from 2 to 1,000,000"),
        (pretrain.main, "generator --photos 1000000000", "is not a whole number from 1 to 10,000"),
        (pretrain.main, "estimator --batch 1000000000", "is not a whole number from 1 to 10,000"),
    ],
)
def test_counts_that_no_machine_holds_are_refused_before_anything_is_made(
    tmp_path: Path, command: Any, arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command([*arguments.split(), "--out", str(tmp_path / "out.safetensors")])
    assert said in capsys.readouterr().err and not any(tmp_path.iterdir())
