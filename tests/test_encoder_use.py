"""`Encoder.load(PATH).embed(IMAGES)` from every kind of file, against the network called by hand."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checkpoints import SMALL
from golden_weights import official_states
from PIL import Image, ImageOps
from safetensors.torch import save_file

from jgcl_ray import CameraMeans, Encoder
from jgcl_ray import encoder as encoder_module
from jgcl_ray.config import Config, load_config
from jgcl_ray.data.transforms import normalise_images
from jgcl_ray.errors import UserError
from jgcl_ray.export_formats import export
from jgcl_ray.meshes.estimator import WEIGHTS as ESTIMATOR
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.networks import Networks, build_networks
from jgcl_ray.models.resnet import ARCHITECTURES, ResNet
from jgcl_ray.models.textured_generator import WEIGHTS as VIEWS
from jgcl_ray.training.checkpoint import Checkpoints, Position, Saved

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(None, SMALL)


@pytest.fixture(scope="module")
def networks(config: Config) -> Networks:
    torch.manual_seed(0)
    networks = build_networks(config)
    networks.encoder.embed_norm.running_mean.normal_()  # unlike the statistics of a network never trained
    return networks


@pytest.fixture(scope="module")
def run(config: Config, networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a best checkpoint, and a latest one of other weights."""
    folder = tmp_path_factory.mktemp("run")
    saved = Saved(Position(), config.model_dump(mode="json"), {})
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.mark_best(checkpoints.save("first", networks, saved))
    torch.manual_seed(1)
    checkpoints.save("second", build_networks(config), saved)
    return folder


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = [(80, 40), (80, 40), (100, 37), (31, 90), (80, 40)]
    return [Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


@torch.no_grad()
def by_hand(module: IdentityEncoder, pictures: list[Image.Image], height: int, width: int) -> np.ndarray:
    resized = [picture.resize((width, height), Image.Resampling.BICUBIC) for picture in pictures]
    embedding = module.eval()(normalise_images([np.array(picture) for picture in resized])).embedding
    return F.normalize(embedding).numpy()


def test_flip_averages_image_and_mirror_image(run: Path, networks: Networks, pictures: list[Image.Image]) -> None:
    plain = by_hand(networks.encoder, pictures, 80, 40)
    mirrored = by_hand(networks.encoder, [ImageOps.mirror(picture) for picture in pictures], 80, 40)
    expected = plain + mirrored
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    encoder = Encoder.load(run, flip=True)
    found = encoder.embed(pictures, batch_size=2)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found - plain).max() > 1e-3
    tensor = normalise_images([encoder.read(picture) for picture in pictures])
    np.testing.assert_allclose(encoder.embed_tensor(tensor).numpy(), expected, atol=1e-4)
    for both in (encoder, Encoder.load(run)):
        for embeddings, right in zip(both.embed_with_mirror(pictures), (plain, expected), strict=True):
            np.testing.assert_allclose(embeddings, right, atol=1e-4)


def test_multi_scale_averages_three_sizes(
    run: Path, networks: Networks, pictures: list[Image.Image], tmp_path: Path
) -> None:
    sizes = [by_hand(networks.encoder, pictures, *size) for size in ((80, 40), (64, 32), (104, 56))]
    expected = F.normalize(torch.from_numpy(sum(sizes[1:], sizes[0]))).numpy()
    encoder = Encoder.load(run, multi_scale=True)
    assert encoder.sizes == ((80, 40), (64, 32), (104, 56)) and "80 x 40, 64 x 32, 104 x 56," in encoder.description
    found = encoder.embed(pictures, batch_size=2)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found - sizes[0]).max() > 1e-3
    path = tmp_path / "first.png"
    pictures[0].save(path)
    for given in (path, path.read_bytes()):
        np.testing.assert_allclose(encoder.embed([given]), expected[:1], atol=1e-4)
    mirrored = [ImageOps.mirror(picture) for picture in pictures]
    both = Encoder.load(run, multi_scale=True, flip=True).embed(pictures)
    of_both = F.normalize(torch.from_numpy(expected + encoder.embed(mirrored))).numpy()
    np.testing.assert_allclose(both, of_both, atol=1e-4)
    assert encoder.read(pictures[0]).shape == (80, 40, 3)
    with pytest.raises(ValueError, match="a tensor is an image at one size"):
        encoder.embed_tensor(torch.zeros(1, 3, 80, 40))


def test_cameras_means_are_taken_off(run: Path, pictures: list[Image.Image]) -> None:
    encoder = Encoder.load(run)
    plain, cameras = encoder.embed(pictures), ["door", "hall", "door", "hall", "door"]
    means = CameraMeans.of(plain, cameras)
    expected = means.centred(plain, cameras)
    np.testing.assert_allclose(encoder.embed(pictures, cameras=cameras), expected, atol=1e-5)
    some = encoder.embed(pictures[:2], cameras=["hall", None], camera_means=means)
    np.testing.assert_allclose(some, means.centred(plain[:2], ["hall", None]), atol=1e-5)
    with_stranger = encoder.embed(pictures, cameras=[*cameras[:4], None])
    np.testing.assert_allclose(
        with_stranger, CameraMeans.of(plain[:4], cameras[:4]).centred(plain, [*cameras[:4], None]), atol=1e-5
    )


def test_embeddings_are_those_of_the_network_whatever_the_batches(
    run: Path, networks: Networks, pictures: list[Image.Image]
) -> None:
    encoder = Encoder.load(run)
    expected = by_hand(networks.encoder, pictures, 80, 40)
    for batch_size in (1, 2, 64):
        found = encoder.embed(pictures, batch_size)
        assert found.dtype == np.float32 and found.shape == (5, 16)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert encoder.embed([]).shape == (0, 16)
    assert not encoder.module.training


def test_paths_bytes_and_modes_give_the_same(run: Path, pictures: list[Image.Image], tmp_path: Path) -> None:
    encoder = Encoder.load(run)
    grey = pictures[0].convert("L")
    path = tmp_path / "grey.png"
    grey.save(path)
    found = encoder.embed([grey, path, str(path), path.read_bytes(), grey.convert("RGB")], progress=True)
    np.testing.assert_allclose(found, found[:1].repeat(5, 0), atol=1e-6)


def test_folders_lead_to_the_checkpoint(run: Path, config: Config) -> None:
    checkpoints = run / "checkpoints"
    first, second = Encoder.load(checkpoints / "first"), Encoder.load(checkpoints / "latest")
    assert first.fingerprint != second.fingerprint
    for path in (run, checkpoints, checkpoints / "best", checkpoints / "first" / "encoder.safetensors"):
        assert Encoder.load(str(path)).fingerprint == first.fingerprint
    assert first.config == config
    assert (first.height, first.width, first.width_of_embedding) == (80, 40, 16)
    manifest = json.loads((checkpoints / "first" / "checkpoint.json").read_text())
    assert first.fingerprint == manifest["sha256"]["encoder.safetensors"]
    other_size = Encoder.load(run, height=96, width=48)
    assert (other_size.height, other_size.width) == (96, 48) and other_size.fingerprint == first.fingerprint


def test_run_without_a_best_checkpoint_gives_its_latest(config: Config, networks: Networks, tmp_path: Path) -> None:
    Checkpoints(tmp_path / "checkpoints").save(
        "only", networks, Saved(Position(), config.model_dump(mode="json"), {})
    )
    assert Encoder.load(tmp_path).fingerprint == Encoder.load(tmp_path / "checkpoints" / "only").fingerprint


def test_official_encoder(tmp_path: Path, pictures: list[Image.Image]) -> None:
    state = official_states()["id"]
    torch.save({"id": state}, tmp_path / "id_1.pt")
    encoder = Encoder.load(tmp_path / "id_1.pt", height=64, width=32)
    assert torch.equal(encoder.module.embed.weight, state["feat.weight"])
    found = encoder.embed(pictures[:2])
    np.testing.assert_allclose(found, by_hand(encoder.module, pictures[:2], 64, 32), atol=1e-5)
    assert (encoder.config, encoder.width_of_embedding) == (None, 512)
    assert (Encoder.load(tmp_path / "id_1.pt").height, Encoder.load(tmp_path / "id_1.pt").width) == (256, 128)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@torch.no_grad()
def test_bare_resnet_gives_its_pooled_last_map(
    backbone: str, suffix: str, pictures: list[Image.Image], tmp_path: Path
) -> None:
    resnet = ResNet(ARCHITECTURES[backbone], separate=False).eval()
    channels = ARCHITECTURES[backbone].channels
    state = {name: value for name, value in resnet.state_dict().items() if not name.endswith("tracked")}
    state |= {"fc.weight": torch.zeros(1000, channels), "fc.bias": torch.zeros(1000)}
    path = tmp_path / f"resnet.{suffix}"
    torch.save(state, path) if suffix == "pth" else save_file(state, path)
    encoder = Encoder.load(path, height=64, width=32)
    images = normalise_images([np.array(picture.resize((32, 64), Image.Resampling.BICUBIC)) for picture in pictures])
    expected = F.normalize(resnet(images, "real").mean((2, 3)))
    np.testing.assert_allclose(encoder.embed(pictures), expected.numpy(), atol=1e-5)


def test_what_is_no_encoder_is_named(run: Path, networks: Networks, tmp_path: Path) -> None:
    cases = {
        tmp_path: "no checkpoint here",
        tmp_path / "absent": "no such file or folder",
        run / "checkpoints" / "first" / "generator.safetensors": "of a run's generator; expected an encoder",
    }
    torch.save({"gen": {"enc_content.model.0.conv.weight": torch.zeros(1)}}, tmp_path / "gen_1.pt")
    cases[tmp_path / "gen_1.pt"] = "give their encoder"
    incomplete = dict(ResNet(ARCHITECTURES["resnet18"], separate=False).state_dict())
    del incomplete["layer1.0.conv1.weight"]
    torch.save(incomplete, tmp_path / "incomplete.pth")
    cases[tmp_path / "incomplete.pth"] = "no encoder that is known"
    torch.save(incomplete | {"feat.weight": torch.zeros(512, 2048)}, tmp_path / "half.pt")
    cases[tmp_path / "half.pt"] = "names missing: "
    cases[ESTIMATOR] = "of an estimator of bodies; expected an encoder: give a file of python -m jgcl_ray.pretrain e"
    cases[VIEWS] = "of a generator of views; expected an encoder"
    (tmp_path / "text.pth").write_text("hello")
    cases[tmp_path / "text.pth"] = "not a readable file of PyTorch weights"
    (tmp_path / "text.safetensors").write_text("hello")
    cases[tmp_path / "text.safetensors"] = "not a readable safetensors file"
    for path, message in cases.items():
        with pytest.raises(UserError, match=message):
            Encoder.load(path)


def test_altered_weights_are_refused(config: Config, networks: Networks, tmp_path: Path) -> None:
    checkpoint = Checkpoints(tmp_path).save("one", networks, Saved(Position(), config.model_dump(mode="json"), {}))
    weights = checkpoint / "encoder.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match="damaged or altered"):
        Encoder.load(checkpoint)


def test_unreadable_images_are_named(run: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(run)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.jpg: cannot be read"):
        encoder.embed([tmp_path / "broken.jpg"])
    buffer = io.BytesIO()
    Image.new("RGB", (4, 8)).save(buffer, "png")
    with pytest.raises(UserError, match=r"image 1 \(2 bytes\): cannot be read"):
        encoder.embed([buffer.getvalue(), b"ab"])
    with pytest.raises(UserError, match="device 'gpu' is unknown"):
        Encoder.load(run, device="gpu")


def test_an_encoder_that_diverged_is_told(run: Path, pictures: list[Image.Image]) -> None:
    encoder = Encoder.load(run)
    with torch.no_grad():
        encoder.module.embed.bias[0] = torch.nan
    with pytest.raises(UserError, match="its training diverged"):
        encoder.embed(pictures)
    with pytest.raises(UserError, match="its training diverged"):
        export(encoder, run / "x.safetensors", "safetensors")
    assert not (run / "x.safetensors").exists()
    with torch.no_grad():
        for parameter in encoder.module.parameters():
            parameter.zero_()
    with pytest.raises(UserError, match="length 0, its training collapsed"):
        encoder.embed(pictures)


def snippets() -> list[str]:
    """The code of the module's docstring, and of docs/encoder.md where it speaks of Encoder."""
    assert encoder_module.__doc__ is not None
    shown = textwrap.dedent("\n".join(line for line in encoder_module.__doc__.splitlines() if line[:4] == " " * 4))
    page = Path(encoder_module.__file__).parents[1] / "docs" / "encoder.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text() if page.is_file() else "", re.DOTALL)
    return [shown, *(block for block in blocks if "Encoder.load" in block)]


@pytest.mark.parametrize("code", snippets())
def test_what_the_documentation_shows_runs(
    code: str, run: Path, pictures: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "walkers").symlink_to(run)
    (tmp_path / "crops").mkdir()
    for name, picture in zip(("crops/a.jpg", "crops/b.jpg", "someone.jpg"), pictures[:3], strict=True):
        picture.save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    assert isinstance(names["embeddings"], np.ndarray) and names["embeddings"].shape == (2, 16)


def test_importing_the_package_brings_no_torch() -> None:
    check = (
        "import sys, jgcl_ray; assert 'torch' not in sys.modules; jgcl_ray.Encoder; assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (8, 16)])
def test_a_size_that_leaves_a_point_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="would be a point; give a height and a width of 32 and 16"):
        Encoder.load("rendered", "cpu", *size)
