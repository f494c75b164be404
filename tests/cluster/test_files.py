"""The files in cluster/, checked against Ray's and KubeRay's own definitions; Slurm's script with stand-ins."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from jgcl_ray.config import Config, find_config

CHECKOUT = Path(__file__).parents[2]
CLUSTER = CHECKOUT / "cluster"
KUBERAY = json.loads((CHECKOUT / "tests/data/kuberay_v1.json").read_text())
FILES = sorted(path.name for path in CLUSTER.iterdir())
LAUNCHER_FILES = [name for name in FILES if "\ncluster_name:" in (CLUSTER / name).read_text()]


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_launcher_files_fit_rays_schema(name: str) -> None:
    config = prepare_config(yaml.safe_load((CLUSTER / name).read_text()))
    validate_config(config)
    mounted = [source for source in config["file_mounts"].values() if not source.startswith("~")]
    assert all((CHECKOUT / source).exists() for source in mounted)
    assert {"jgcl_ray", "configs", "pyproject.toml", "README.md", "LICENSE"} <= set(mounted), "what pip needs"


def test_a_misspelt_key_does_not_fit_rays_schema() -> None:
    config = yaml.safe_load((CLUSTER / "gpu.yaml").read_text())
    config["setup_command"] = []
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(config))


def test_machines_on_aws_share_image_and_storage() -> None:
    config = yaml.safe_load((CLUSTER / "gpu.yaml").read_text())
    head, workers = config["available_node_types"]["head"], config["available_node_types"]["gpu"]
    assert head["node_config"]["ImageId"] == workers["node_config"]["ImageId"], "one Python on all"
    assert head["resources"]["GPU"] == 0 and workers["resources"]["GPU"] > 0
    assert workers["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert workers["max_workers"] == config["max_workers"] > workers["min_workers"]


def kuberay_documents() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text())}


def test_kuberay_documents_fit_the_operators_definitions() -> None:
    documents = kuberay_documents()
    assert set(documents) == {"PersistentVolumeClaim", "RayCluster", "RayJob"}
    for kind in ("RayCluster", "RayJob"):
        assert documents[kind]["apiVersion"] == "ray.io/v1"
        jsonschema.validate(documents[kind]["spec"], definition(kind))
    claim, cluster, job = (documents[kind] for kind in ("PersistentVolumeClaim", "RayCluster", "RayJob"))
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    workers = cluster["spec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert workers["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    for pod in (cluster["spec"]["headGroupSpec"]["template"]["spec"], workers):
        claims = {
            v["name"]: v["persistentVolumeClaim"]["claimName"]
            for v in pod["volumes"]
            if len(v) and "shared" in v["name"]
        }
        assert claims == {"shared": claim["metadata"]["name"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts == {"shared": "/shared", "memory": "/dev/shm"}


def test_a_misspelt_field_does_not_fit_the_operators_definition() -> None:
    spec = kuberay_documents()["RayCluster"]["spec"]
    group = spec["workerGroupSpecs"][0]
    group["replica"] = group.pop("replicas")
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        jsonschema.validate(spec, definition("RayCluster"))


def definition(kind: str) -> dict[str, Any]:
    return {**KUBERAY[kind], "definitions": KUBERAY["definitions"]}


@pytest.mark.parametrize("name", FILES)
def test_fields_and_configs_that_the_files_name_exist(name: str) -> None:
    text = (CLUSTER / name).read_text()
    named = set(re.findall(r"\b([a-z_]+)\.([a-z_]+)=", text))
    assert named
    for section, field in named:
        assert field in Config.model_fields[section].annotation.model_fields, f"{section}.{field}"
    assert all(find_config(config) for config in re.findall(r"--config (\w+)", text))


@pytest.mark.parametrize("name", FILES)
def test_dashboards_listen_on_localhost(name: str) -> None:
    starts = [line for line in (CLUSTER / name).read_text().splitlines() if "ray start --head" in line]
    assert all("--dashboard-host=127.0.0.1" in line for line in starts)
    assert len(starts) == (name in LAUNCHER_FILES or name == "slurm.sh")


def test_slurms_script_is_sound() -> None:
    subprocess.run(["bash", "-n", CLUSTER / "slurm.sh"], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", CLUSTER / "slurm.sh"], check=True)


STAND_INS = {  # of commands: each call is a line of $CALLS
    "scontrol": 'echo "scontrol $*" >> $CALLS; [ "$1" = show ] && printf "one\\ntwo\\n" || true',
    "srun": 'echo "srun $*" >> $CALLS; exec sleep 60',
    "ray": 'echo "ray $*" >> $CALLS',
    "python": """[ "$1" = -c ] && { echo secret; exit; }
echo "python $*" >> $CALLS
trap 'echo "checkpoint" >> $CALLS; exit 143' TERM
for i in $(seq $SECONDS_OF_TRAINING); do sleep 0.1; done""",
}


def slurm_job(folder: Path, tenths: int) -> subprocess.Popen[bytes]:
    commands = folder / "venv" / "bin"
    commands.mkdir(parents=True)
    for name, body in STAND_INS.items():
        (commands / name).write_text(f"#!/bin/bash\n{body}\n")
        (commands / name).chmod(0o755)
    environment = {**os.environ, "VENV": str(folder / "venv"), "CALLS": str(folder / "calls")}
    environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "one,two", "SECONDS_OF_TRAINING": str(tenths)}
    return subprocess.Popen(["bash", CLUSTER / "slurm.sh", "--config", "market1501"], env=environment)


def test_slurms_script_starts_ray_on_all_nodes_and_trains(tmp_path: Path) -> None:
    assert slurm_job(tmp_path, 1).wait(60) == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    started = sorted(call.split("ray start ")[1].split()[0] for call in calls if "ray start" in call)
    assert started == ["--address=one:6379", "--head"]
    assert calls.count("python -m jgcl_ray.train scaling.wait_seconds=300 --config market1501") == 1
    assert not any("requeue" in call for call in calls)


def test_a_preempted_slurm_job_saves_and_goes_back_to_the_queue(tmp_path: Path) -> None:
    job = slurm_job(tmp_path, 600)
    calls = tmp_path / "calls"
    while not calls.exists() or "python -m" not in calls.read_text():
        assert job.poll() is None
        time.sleep(0.05)
    time.sleep(0.2)  # until the stand-in has set its trap
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == 143
    said = calls.read_text().splitlines()
    assert said[-2:] == ["checkpoint", "scontrol requeue 7"]
