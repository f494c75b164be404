"""Some of CONTRIBUTING.md's changes, made in a copy of the package in at most two files, and used by their names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import write_run

import jgcl_ray

PACKAGE = Path(jgcl_ray.__file__).parent
Change = tuple[str, str, str]  # file of the package, text that is there once, text in its place; '' for a new file


@pytest.fixture
def run_changed(tmp_path: Path) -> Callable[..., str]:
    """Runs Python with the changed copy; gives what it printed."""

    def run(changes: list[Change], *command: str) -> str:
        assert len({file for file, _, _ in changes}) <= 2
        copy = tmp_path / "changed" / PACKAGE.name
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        for file, old, new in changes:
            assert (copy / file).exists() == bool(old)
            text = (copy / file).read_text(encoding="utf-8") if old else ""
            assert not old or text.count(old) == 1, f"{file}: {old!r}"
            (copy / file).write_text(text.replace(old, new), encoding="utf-8")
        # Compiling for a copy takes longer than interpreting a few rows.
        environment = {**os.environ, "PYTHONPATH": str(copy.parent), "NUMBA_DISABLE_JIT": "1"}
        done = subprocess.run(
            [sys.executable, *command], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_data_set(run_changed: Callable[..., str], tmp_path: Path) -> None:
    """Its file, and its line in choices.py."""
    for name in ("1-1.jpg", "1-2.jpg", "2-1.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / name).touch()
    reader = """
from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets.reid_dataset import NamedImage, ReidDataset, existing_root, image_names, labelled_split

def read_dashes(data: DataConfig) -> ReidDataset:
    root = existing_root(data.root, "PERSON-CAMERA.jpg")
    images = [NamedImage(name, int(name[0]), int(name[2])) for name in image_names(root)]
    return ReidDataset("dashes", root, labelled_split(root, images))
"""
    changes = [
        ("data/datasets/dashes.py", "", reader),
        (
            "choices.py",
            "DATA_SETS = {\n",
            'DATA_SETS = {\n    "dashes": "jgcl_ray.data.datasets.dashes:read_dashes",\n',
        ),
    ]
    code = """
from jgcl_ray.config import load_config
from jgcl_ray.data.datasets import open_dataset
dataset = open_dataset(load_config(None, ["data.name=dashes", "data.root=photos"]).data)
print(dataset.train.identities, dataset.train.cameras)
"""
    assert run_changed(changes, "-c", code).strip() == "[1 1 2] [1 2 1]"


def test_a_loss_term(run_changed: Callable[..., str]) -> None:
    """Its function and its line in a table, and its weight; G draws what it needs, and nothing where it weighs 0."""
    term = """def squared_loss(generated: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    return (generated - image).square().mean()


IMAGE_TERMS: dict[str, tuple[Fake, Loss]] = {
    "squared_novel": ("novel", squared_loss),
"""
    changes = [
        ("losses/reconstruction.py", "IMAGE_TERMS: dict[str, tuple[Fake, Loss]] = {\n", term),
        (
            "learning_sections.py",
            "    image_cycle: float",
            '    squared_novel: float = Field(0.0, ge=0, description="Weight.")\n    image_cycle: float',
        ),
    ]
    code = """
import torch
from jgcl_ray.config import LossesConfig
from jgcl_ray.losses.joint import JointOutputs, StepPlan, reconstruction_terms, weighted_sum
from jgcl_ray.models.encoder import EncoderOutput
weights = dict.fromkeys(LossesConfig.model_fields.keys() - {"formulation"}, 0)
assert not StepPlan.of(LossesConfig(**weights), contrasts=True).drawn
losses = LossesConfig(**weights | {"squared_novel": 0.5})
plan, real = StepPlan.of(losses, contrasts=True), EncoderOutput(torch.zeros(1, 8), torch.zeros(1, 4))
outputs = JointOutputs(real, {fake: torch.full((1, 3, 8, 4), 4.0) for fake in plan.drawn}, {})
print(plan.drawn, weighted_sum(reconstruction_terms(outputs, torch.ones(1, 3, 8, 4), plan), losses).item())
"""
    assert run_changed(changes, "-c", code).strip() == "('novel',) 4.5"


def test_a_tracker_format(run_changed: Callable[..., str], tmp_path: Path) -> None:
    """One file."""
    (tmp_path / "boxes.txt").write_text("0;7;10;20;30;60\n1;7;11;20;30;60\n")
    reader = """def read_semicolons(path: Path) -> Rows:
    lines = [[float(value) for value in line.split(";")] for _, line in text_lines(path)]
    frames, tracks, boxes = [x[0] for x in lines], [x[1] for x in lines], [x[2:] for x in lines]
    return make_rows("semicolons", frames, tracks, boxes, corners=False, first_frame=0)


FORMATS: dict["""
    changes = [
        ("footage/formats.py", "import Rows, ", "import Rows, make_rows, "),
        ("footage/formats.py", "FORMATS: dict[", reader),
        (
            "footage/formats.py",
            '"csv": read_csv,',
            '"semicolons": lambda path, _: read_semicolons(path), "csv": read_csv,',
        ),
    ]
    code = "from pathlib import Path; from jgcl_ray.footage.formats import read_rows; "
    code += "print(len(read_rows(Path('boxes.txt'), 'semicolons')))"
    assert run_changed(changes, "-c", code).strip() == "2"


def test_a_clustering_method(run_changed: Callable[..., str]) -> None:
    """Its function and its line beside the others', and its name in the configuration."""
    method = """def components(encoding: Encoding, config: PseudoLabelsConfig, units: Units | None) -> PseudoLabels:
    from scipy.sparse.csgraph import connected_components

    return _labelling(connected_components(encoding.within(0.9), directed=False)[1], 0.9)


METHODS: dict["""
    changes = [
        ("pseudo_labels/clustering.py", "METHODS: dict[", method),
        ("pseudo_labels/clustering.py", '"hdbscan": hdbscan,', '"hdbscan": hdbscan, "components": components,'),
        ("learning_sections.py", 'Literal["dbscan", "hdbscan"]', 'Literal["dbscan", "hdbscan", "components"]'),
    ]
    code = """
import numpy as np
from jgcl_ray.config import load_config
from jgcl_ray.pseudo_labels.clustering import advice, pseudo_labels
config = load_config(overrides=["pseudo_labels.method=components", "pseudo_labels.k1=8", "pseudo_labels.k2=2"])
features = np.eye(3, dtype=np.float32)[np.arange(24) // 8] + np.random.default_rng(0).normal(0, 0.01, (24, 3))
features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
found = pseudo_labels(features, config.pseudo_labels)
print((found.labels == np.arange(24) // 8).all(), advice(found, config.pseudo_labels))
"""
    assert run_changed(changes, "-c", code).split() == ["True", "None"]


def test_an_export_format(run_changed: Callable[..., str], tmp_path: Path) -> None:
    """How it is written and read back, and its name in the command."""
    run, file = write_run(tmp_path / "run"), tmp_path / "encoder.pickle"
    how = """def _write_pickle(module: PixelsToEmbeddings, example: torch.Tensor, _: object, path: Path) -> None:
    torch.save(module, path)


FORMATS = {
    "pickle": Format(_write_pickle, lambda path: torch.load(path, weights_only=False)),
"""
    changes = [
        ("export_formats.py", "FORMATS = {\n", how),
        ("export.py", '"torchscript", "safetensors"), ', '"torchscript", "safetensors", "pickle"), '),
    ]
    command = ["--checkpoint", str(run), "--format", "pickle", "--out", str(file)]
    printed = run_changed(changes, "-m", "jgcl_ray.export", *command)
    assert "pickle of" in printed and file.stat().st_size > 10**6
