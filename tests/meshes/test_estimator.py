"""The mesh estimator: its conventions, its answers with the package's weights, and what it refuses."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.stats import vonmises

from jgcl_ray.config import MeshesConfig
from jgcl_ray.errors import UserError
from jgcl_ray.estimator_training.truth import read_truth
from jgcl_ray.meshes import estimated_bodies
from jgcl_ray.meshes.body_models import AnnyBody
from jgcl_ray.meshes.body_parameters import read_body_parameters, write_body_parameters
from jgcl_ray.meshes.cameras import Camera
from jgcl_ray.meshes.drawing import ParameterProjections
from jgcl_ray.meshes.estimated_bodies import ensure_estimated
from jgcl_ray.meshes.estimator import WEIGHTS, BodyEstimates, BodyEstimator, load_estimator, weights_metadata
from jgcl_ray.meshes.estimator.__main__ import main
from jgcl_ray.meshes.estimator_network import BodyEstimate, circular_deviation
from jgcl_ray.meshes.projection_folders import view_folder


@pytest.fixture(scope="module")
def estimator() -> BodyEstimator:
    return BodyEstimator()


@pytest.fixture(scope="module")
def truth(walkers: Path, anny: AnnyBody) -> BodyEstimates:
    return read_truth(walkers, anny)


def silhouettes(parameters: Path, names: Sequence[str], view: int) -> np.ndarray:
    drawn = ParameterProjections(parameters, None, names, 80, 40, light=True)
    return np.stack([drawn.load(row, view) != 128 for row in range(len(names))])


def overlaps(walkers: Path, parameters: Path, names: Sequence[str], view: int) -> np.ndarray:
    """Intersection over union of drawn bodies and the walkers' own projections."""
    split = {name: "train" if name.startswith("bounding_box_train") else "test" for name in names}
    files = [view_folder(walkers / "meshes", split[name], view) / f"{Path(name).stem}.png" for name in names]
    true = np.stack([np.asarray(Image.open(file)) != 128 for file in files])
    drawn = silhouettes(parameters, names, view)
    overlap: np.ndarray = (true & drawn).sum(axis=(1, 2)) / (true | drawn).sum(axis=(1, 2))
    return overlap


def differences(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Between angles, degrees in [0, 180]."""
    return np.abs((one - other + 180) % 360 - 180)


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (90, 0), (-60, 25), (170, -5)])
def test_yaw_and_pitch_are_those_of_the_walkers(yaw: float, pitch: float) -> None:
    angle, down = math.radians(yaw), math.radians(pitch)
    eye = 5 * np.array([0, -math.cos(down), math.sin(down)])
    expected = Camera.look_at(eye, np.zeros(3), focal=1.0, center=(0.0, 0.0)).turned(yaw, np.zeros(3)).rotation
    direction = 3 * torch.tensor([[math.cos(angle), math.sin(angle)]])
    empty = torch.zeros(1, 0)
    standing = BodyEstimate(direction, torch.tensor([down]), empty, empty, torch.ones(1), torch.zeros(1, 2))
    np.testing.assert_allclose(standing.turns()[0].numpy(), expected, atol=1e-6)
    assert math.degrees(float(standing.yaw)) == pytest.approx(yaw, abs=1e-4)
    assert float(standing.concentration) == pytest.approx(3)


def test_deviation_of_the_von_mises_distribution() -> None:
    kappa = np.array([0.1, 1.0, 10.0, 200.0])
    resultant = [vonmises.expect(np.cos, args=(k,), lb=-np.pi, ub=np.pi) for k in kappa]
    expected = np.degrees(np.sqrt(-2 * np.log(resultant)))
    np.testing.assert_allclose(circular_deviation(torch.from_numpy(kappa)).numpy(), expected, rtol=1e-4)


def test_true_parameters_draw_the_true_silhouettes(walkers: Path, truth: BodyEstimates, tmp_path: Path) -> None:
    """But for perspective, which parameters do not have, and for the light body; turned, too."""
    write_body_parameters(truth.to_parameters(), tmp_path / "true.npz")
    for view in (0, 90, 225):
        overlap = overlaps(walkers, tmp_path / "true.npz", truth.names, view)
        assert overlap.mean() > 0.9 and overlap.min() > 0.8


def test_walkers_are_estimated(walkers: Path, truth: BodyEstimates, estimator: BodyEstimator, tmp_path: Path) -> None:
    """People, clothes, scenes and cameras that no training has seen."""
    found = estimator.estimate(walkers, truth.names)
    error = differences(found.yaw, truth.yaw)
    assert np.median(error) < 20 and (error > 90).mean() < 0.12
    assert error[found.deviation < 20].max(initial=0) < 90  # it knows when it knows
    write_body_parameters(found.to_parameters(), tmp_path / "found.npz")
    assert overlaps(walkers, tmp_path / "found.npz", truth.names, 0).mean() > 0.65


def test_a_mirror_image_faces_the_other_way(walkers: Path, estimator: BodyEstimator, tmp_path: Path) -> None:
    names = sorted(path.name for path in (walkers / "bounding_box_train").iterdir())
    for name in names:
        with Image.open(walkers / "bounding_box_train" / name) as image:
            image.resize((48, 96)).save(tmp_path / f"{name}.png")
            image.resize((48, 96)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / f"{name}.flip.png")
    here = estimator.estimate(tmp_path, [f"{name}.png" for name in names])
    there = estimator.estimate(tmp_path, [f"{name}.flip.png" for name in names])
    assert differences(here.yaw, -there.yaw).max() < 0.5
    np.testing.assert_allclose(here.deviation, there.deviation, rtol=0.02)
    np.testing.assert_allclose(here.root * [-1, 1], there.root, atol=0.01)
    write_body_parameters(here.to_parameters(), tmp_path / "here.npz")
    write_body_parameters(there.to_parameters(), tmp_path / "there.npz")
    drawn = silhouettes(tmp_path / "here.npz", here.names, 0)
    mirrored = silhouettes(tmp_path / "there.npz", there.names, 0)[:, :, ::-1]
    assert (drawn & mirrored).sum() > 0.93 * (drawn | mirrored).sum()


def test_estimates_are_kept_until_something_changes(
    walkers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, file = tmp_path / "images", tmp_path / "bodies.npz"
    images.mkdir()
    names = ["a.jpg", "b.jpg", "c.jpg"]
    for name, photo in zip(names, sorted((walkers / "query").iterdir())[:3], strict=True):
        (images / name).write_bytes(photo.read_bytes())
    made: list[int] = []

    class Counting(BodyEstimator):
        def estimate(self, folder: Path, names: Sequence[str], watch: object = iter) -> BodyEstimates:
            made.append(len(names))
            return super().estimate(folder, names)

    monkeypatch.setattr(estimated_bodies, "BodyEstimator", Counting)
    first = ensure_estimated(file, images, names, MeshesConfig())
    again = ensure_estimated(file, images, names, MeshesConfig())
    assert made == [3]
    assert again.names == first.names == tuple(names)
    np.testing.assert_array_equal(again.deviation, first.deviation)
    ensure_estimated(file, images, names[:2], MeshesConfig())
    os.utime(images / "a.jpg", ns=(1, 1))
    ensure_estimated(file, images, names[:2], MeshesConfig())
    assert made == [3, 2, 2]
    weights = tmp_path / "other.safetensors"
    save_file({name: tensor * 1.001 for name, tensor in load_file(WEIGHTS).items()}, weights)
    ensure_estimated(file, images, names[:2], MeshesConfig(weights=weights))
    assert made == [3, 2, 2, 2]
    assert read_body_parameters(file).names == ("a.jpg", "b.jpg")
    file.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"bodies\.npz: damaged .*; delete it"):
        ensure_estimated(file, images, names[:2], MeshesConfig())


def test_the_command_writes_what_projections_are_drawn_from(walkers: Path, tmp_path: Path) -> None:
    out, sheet = tmp_path / "bodies.npz", tmp_path / "sheet.png"
    main(["estimate", "--images", str(walkers / "query"), "--out", str(out), "--sheet", str(sheet)])
    read = read_body_parameters(out)
    assert set(read.names) == {path.name for path in (walkers / "query").iterdir()}
    assert read.body == "anny" and read.up is not None
    with Image.open(sheet) as picture:
        assert picture.width > 500


def test_the_package_says_how_its_weights_were_made() -> None:
    made = weights_metadata()
    assert made["command"].startswith("python -m jgcl_ray.pretrain estimator ") and "--seed " in made["command"]
    assert float(made["minutes"]) < 60 and "cores" in made["machine"]
    assert WEIGHTS.stat().st_size < 8 * 2**20


def test_wrong_images_and_weights_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    command = ["estimate", "--images", str(images), "--out", str(tmp_path / "x.npz")]

    def refused(*more: str) -> str:
        with pytest.raises(SystemExit) as end:
            main([*command, *more])
        assert end.value.code == 2
        return capsys.readouterr().err

    assert "holds no image" in refused()
    (images / "a.jpg").write_bytes(b"no image")
    assert "a.jpg cannot be read as an image" in refused()
    (images / "a.jpg").unlink()
    Image.new("RGB", (20, 50)).save(images / "b.png")
    assert "x.txt: the name of a file of body parameters must end in .npz" in refused(
        "--out", str(tmp_path / "x.txt")
    )
    assert "--smpl is for SPIN's bodies" in refused("--smpl", "x.npz")
    assert "needs their model" in refused("--checkpoint", "x.pt", "--sheet", str(tmp_path / "x.png"))
    assert "SPIN's is a file of torch.save" in refused("--checkpoint", "x.safetensors")
    assert "no such file; give weights of" in refused("--weights", str(tmp_path / "none.safetensors"))
    (tmp_path / "text.safetensors").write_text("text")
    assert "text.safetensors: not a readable safetensors file" in refused(
        "--weights", str(tmp_path / "text.safetensors")
    )
    state = load_file(WEIGHTS)
    del state["head.0.weight"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match=r"part\.safetensors: does not fit .* missing: head\.0\.weight"):
        load_estimator(tmp_path / "part.safetensors")
