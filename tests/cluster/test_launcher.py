"""`ray up`, `ray submit`, `ray down` with cluster/local.yaml, for real, against an SSH server on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from tiny_run import arguments, records

from jgcl_ray.data.walkers import WalkersSize, render

CHECKOUT = Path(__file__).parents[2]
HOST = Path(__file__).with_name("ssh_host.sh")
PATIENCE = 400  # seconds


def why_not() -> str | None:
    for tool in ("/usr/sbin/sshd", "ssh", "rsync", "unshare"):
        if shutil.which(tool) is None:
            return f"there is no {Path(tool).name} (Debian: apt-get install openssh-server rsync)"
    unshare = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "true"]
    if subprocess.run(unshare, capture_output=True).returncode:
        return "namespaces of its own are not allowed here (unshare)"
    return None


REASON = why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=REASON or "")]

LAPTOP = """
set -euo pipefail
ray get-auth-token --generate > /dev/null
ray up --yes {cluster}
echo; echo "=== SUBMIT"
ray submit {cluster} jgcl_ray/train.py -- {arguments} 'run.log_every=$(cat {folder}/one)'
echo; echo "=== WRONG"
ray submit {cluster} jgcl_ray/train.py -- --config walkers run.nmae=x && exit 1
echo; echo "=== STRANGER"
(export HOME={folder}/stranger RAY_AUTH_MODE=disabled; ! timeout 60 ray status --address 127.0.0.1:6379)
echo; echo "=== RESULTS"
ray rsync-down {cluster} {folder}/runs/walkers/ {folder}/results/
ray down --yes {cluster}
pgrep -fa raylet && exit 1
echo ALL DONE
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("host")
    walkers = folder / "walkers"
    render(walkers, WalkersSize(train=4, test=2, images=4, true_views=0, height=80), seed=2, workers=1)
    for name in ("laptop/tmp", "stranger", "results", "home"):
        (folder / name).mkdir(parents=True)
    a_python_with_dependencies(folder / "home")
    text = (CHECKOUT / "cluster" / "local.yaml").read_text()
    for key, value in {"head_ip": "127.0.0.1", "ssh_user": "root", "ssh_private_key": folder / "key"}.items():
        text, changed = re.subn(rf"^(  {key}:) .*  # FILL IN$", rf"\1 {value}", text, flags=re.M)
        assert changed == 1, key
    cluster = folder / "local.yaml"
    cluster.write_text(text)
    (folder / "one").write_text("1")  # what the head's shell puts in, as gpu.yaml does with MLflow's address
    given = " ".join(arguments(walkers, folder / "runs", "scaling.threads_per_worker=1", "run.log_every=99"))
    script = LAPTOP.format(cluster=cluster, folder=folder, arguments=given)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHON"))}
    environment |= {
        "HOME": str(folder / "laptop"),
        "TMPDIR": str(folder / "laptop" / "tmp"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "TERM": "dumb",
    }
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [HOST, folder, "bash", "-c", script],
        cwd=CHECKOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
    )
    (folder / "said").write_bytes(done.stdout)
    return folder


def a_python_with_dependencies(home: Path) -> None:
    """What `python3 -m venv` and a download of torch would give: local.yaml's own commands install the package in it.

    It sees this environment's packages, and has what builds the package at hand.
    """
    wheels = home / "wheels"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", wheels, "hatchling>=1.26"]
    subprocess.run(download, check=True)
    (home / ".config" / "pip").mkdir(parents=True)
    (home / ".config" / "pip" / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {wheels}\n")
    venv = home / "jgcl_ray_venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    own = next(venv.glob("lib/python*/site-packages"))
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name, module in (("pip", "pip"), ("ray", "ray.scripts.scripts")):
        command = venv / "bin" / name
        command.write_text(f'#!/bin/sh\nexec {venv}/bin/python -m {module} "$@"\n')
        command.chmod(0o755)


def part(folder: Path, title: str) -> str:
    """What was said after a title, up to the next one."""
    pieces = re.split(r"^=== ([A-Z]+)$", (folder / "said").read_text().replace("\r", ""), flags=re.M)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))[title]


def test_everything_was_done(session: Path) -> None:
    said = (session / "said").read_text()
    assert said.strip().endswith("ALL DONE"), said[-6000:]


def test_the_run_ends_on_its_scores_and_comes_back(session: Path) -> None:
    assert re.search(r"^mAP 0\.\d+ rank-1 \d\.\d+$", part(session, "SUBMIT"), re.M)
    results = session / "results"
    assert records(results) == records(session / "runs" / "walkers")
    assert "log_every: 1" in (results / "config.yaml").read_text()
    assert {record["stage"] for record in records(results)} == {"warmup", "generation", "joint"}
    assert (results / "checkpoints" / "latest" / "encoder.safetensors").is_file()


def test_it_was_the_installed_package_that_ran(session: Path) -> None:
    installed = next((session / "home" / "jgcl_ray_venv").glob("lib/python*/site-packages/jgcl_ray"))
    assert (installed / "configs" / "walkers.yaml").is_file()
    assert (session / "home" / "train.py").is_file()
    assert not (session / "home" / "jgcl_ray").exists()


def test_a_mistake_is_one_line(session: Path) -> None:
    said = part(session, "WRONG")
    assert "error: run.nmae='x': no such field; did you mean run.name?" in said
    assert "Traceback" not in said


def test_a_stranger_is_refused(session: Path) -> None:
    assert "Authentication token is missing or incorrect" in part(session, "STRANGER")
