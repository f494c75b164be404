"""SPIN's network: its names, its three corrections, the square it looks at, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mesh_samples import make_smpl_arrays
from PIL import Image
from scipy.spatial.transform import Rotation

from jgcl_ray.errors import UserError
from jgcl_ray.meshes.body_parameters import read_body_parameters
from jgcl_ray.meshes.drawing import ParameterProjections
from jgcl_ray.meshes.estimator.__main__ import main
from jgcl_ray.meshes.spin import ITERATIONS, SpinEstimator, SpinNetwork, _read, from_six


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the names and shapes of the release; the body upright, somewhat turned by chance."""
    torch.manual_seed(0)
    network = SpinNetwork()
    upright = torch.tensor([[1.0, 0, 0, 1, 0, 0]]).repeat(1, 24)
    upright[0, :6] = torch.tensor([1.0, 0, 0, -1, 0, 0])  # y down, facing the camera
    network.init_pose.copy_(upright)
    network.init_cam.copy_(torch.tensor([[0.9, 0.0, 0.1]]))
    for part in (network.decpose, network.decshape, network.deccam):
        torch.nn.init.normal_(part.weight, std=1e-4)
        torch.nn.init.zeros_(part.bias)
    path = tmp_path_factory.mktemp("spin") / "spin.pt"
    torch.save({"model": network.state_dict(), "epoch": 3}, path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.jpg", (120, 50)), ("b.png", (60, 90))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / name)
    return folder


def test_names_of_the_release(released: Path) -> None:
    names = set(torch.load(released, weights_only=True)["model"])
    assert {"conv1.weight", "bn1.running_var", "layer1.0.downsample.0.weight", "layer4.2.conv3.weight"} <= names
    assert {name for name in names if not name.startswith(("conv", "bn", "layer"))} == {
        f"{layer}.{kind}" for layer in ("fc1", "fc2", "decpose", "decshape", "deccam") for kind in ("weight", "bias")
    } | {"init_pose", "init_shape", "init_cam"}
    state = torch.load(released, weights_only=True)["model"]
    assert state["fc1.weight"].shape == (1024, 2048 + 144 + 13)


def test_three_corrections(released: Path) -> None:
    """Against the regressor written out, on the trunk's own features."""
    network = SpinNetwork().eval()
    network.load_state_dict(torch.load(released, weights_only=True)["model"])
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = network._trunk[0](x, "real")
        assert maps.shape == (2, 2048, 7, 7)
        pose, shape, camera = (t.repeat(2, 1) for t in (network.init_pose, network.init_shape, network.init_cam))
        for _ in range(3):
            h = network.fc2(network.fc1(torch.cat([maps.mean((2, 3)), pose, shape, camera], 1)))
            pose, shape, camera = pose + network.decpose(h), shape + network.decshape(h), camera + network.deccam(h)
        rotations, rest = network(x)
    assert ITERATIONS == 3
    torch.testing.assert_close(rest, torch.cat([shape, camera], 1))
    torch.testing.assert_close(rotations, from_six(pose.unflatten(1, (24, 6))))


def test_six_numbers_are_the_first_two_columns() -> None:
    matrices = torch.from_numpy(Rotation.random(50, random_state=0).as_matrix())
    torch.testing.assert_close(from_six(matrices[:, :, :2].flatten(1)), matrices)
    found = from_six(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(found @ found.mT, torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0)
    assert (torch.linalg.det(found) > 0.99).all()


def test_a_square_as_wide_as_the_longer_side(images: Path) -> None:
    square, size = _read(images / "a.jpg")
    assert size == (120, 50) and square.shape == (3, 224, 224)
    columns = (square != 0).any(0).any(0).nonzero()[:, 0]
    assert (columns.min(), columns.max()) == ((224 - 93) // 2, (224 - 93) // 2 + 92)
    assert (square[:, [0, -1], 112] != 0).any()


def test_from_the_command_to_projections(released: Path, images: Path, tmp_path: Path) -> None:
    out, smpl = tmp_path / "bodies.npz", tmp_path / "SMPL.npz"
    np.savez(smpl, **make_smpl_arrays(10))
    main(["estimate", "--images", str(images), "--checkpoint", str(released), "--out", str(out)])
    read = read_body_parameters(out)
    assert read.body == "smpl" and read.names == ("a.jpg", "b.png") and read.shape.shape == (2, 10)
    np.testing.assert_array_equal(read.size, [[120, 50], [60, 90]])
    grey = ParameterProjections(out, smpl, ["b.png"], 60, 90).load(0, 0)
    assert (grey != 128).sum() > 300


def test_wrong_checkpoints_are_named(released: Path, tmp_path: Path) -> None:
    state = torch.load(released, weights_only=True)["model"]
    for change, message in (
        ({"fc1.weight": torch.zeros(1024, 2048)}, r"fc1\.weight \(1024, 2048\) instead of \(1024, 2205\)"),
        ({"fc.weight": torch.zeros(1000, 2048)}, r"1 name surplus: fc\.weight"),
    ):
        torch.save({"model": {**state, **change}}, tmp_path / "wrong.pt")
        with pytest.raises(UserError, match=message):
            SpinEstimator(tmp_path / "wrong.pt")
    torch.save({"model": {name: value for name, value in state.items() if name != "init_cam"}}, tmp_path / "wrong.pt")
    with pytest.raises(UserError, match="1 name missing: init_cam"):
        SpinEstimator(tmp_path / "wrong.pt")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(UserError, match=r"text\.pt: not a readable file"):
        SpinEstimator(tmp_path / "text.pt")
