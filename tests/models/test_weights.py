"""Weights on disk: ImageNet's, our own, and what is neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from jgcl_ray.config import EncoderConfig
from jgcl_ray.errors import UserError
from jgcl_ray.meshes.estimator import WEIGHTS as ESTIMATOR
from jgcl_ray.meshes.estimator import load_estimator
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.shipped import SHIPPED
from jgcl_ray.models.textured_generator import WEIGHTS as VIEWS
from jgcl_ray.models.textured_generator import load_views
from jgcl_ray.models.weights import build_encoder, load_weights, read_state, save_weights

SMALL = EncoderConfig(backbone="resnet18", embedding=8, weights="random")


def load_into_encoder(path: Path) -> None:
    load_weights(build_encoder(SMALL), path)


def imagenet_state() -> dict[str, torch.Tensor]:
    """As torchvision writes it: a plain ResNet and its classifier."""
    torch.manual_seed(1)
    backbone = IdentityEncoder(SMALL.model_copy(update={"separate_batch_norm": False})).backbone.state_dict()
    return backbone | {"fc.weight": torch.randn(1000, 512), "fc.bias": torch.randn(1000)}


def test_imagenet_file_fills_the_backbone_and_nothing_else(tmp_path: Path) -> None:
    state, path = imagenet_state(), tmp_path / "resnet18.pth"
    torch.save(state, path)
    encoder = build_encoder(SMALL.model_copy(update={"weights": "imagenet", "weights_file": path}))
    assert torch.equal(encoder.backbone.layer3[1].conv2.weight, state["layer3.1.conv2.weight"])
    assert torch.equal(encoder.backbone.bn1.generated_var, state["bn1.running_var"])


@pytest.mark.parametrize(
    ("load", "file", "said"),
    [
        (
            load_views,
            ESTIMATOR,
            "of an estimator of bodies; expected a generator of views: give a file of .*pretrain g",
        ),
        (load_views, SHIPPED["rendered"], "of an encoder; expected a generator of views"),
        (
            load_estimator,
            VIEWS,
            "of a generator of views; expected an estimator of bodies: give .*pretrain estimator",
        ),
        (load_estimator, SHIPPED["rendered"], "of an encoder; expected an estimator of bodies"),
        (load_into_encoder, VIEWS, "of a generator of views; expected an encoder"),
    ],
)
def test_weights_of_another_network_are_told_by_their_kind(load: Any, file: Path, said: str) -> None:
    with pytest.raises(UserError, match=f"{file}: weights {said}") as caught:
        load(file)
    assert "bias" not in str(caught.value) and len(str(caught.value)) < 300 + len(str(file))


@pytest.mark.parametrize("load", [load_views, load_estimator, load_into_encoder])
def test_weights_that_are_not_there(load: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.safetensors: no such file; give"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match=f"{tmp_path}: a folder; give"):
        load(tmp_path)


def test_imagenet_file_of_another_network_lists_names(tmp_path: Path) -> None:
    state, path = imagenet_state(), tmp_path / "resnet18.pth"
    del state["layer1.0.conv1.weight"]
    torch.save(state | {"layer9.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"missing: layer1\.0\.conv1\.weight; 1 name surplus: layer9\.weight"):
        build_encoder(SMALL.model_copy(update={"weights": "imagenet", "weights_file": path}))


def test_offline_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def offline(url: str, **options: Any) -> None:
        asked.update(options, url=url)
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(
        UserError, match=r"resnet18-f37072fd\.pth.*encoder\.weights_file=PATH.*encoder\.weights=random"
    ):
        build_encoder(SMALL.model_copy(update={"weights": "imagenet"}))
    assert asked["check_hash"] is True
    assert asked["weights_only"] is True


def test_a_file_that_does_not_match_its_checksum_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(url: str, **options: Any) -> None:
        raise RuntimeError("invalid hash value")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", damaged)
    with pytest.raises(UserError, match="invalid hash value"):
        build_encoder(SMALL.model_copy(update={"weights": "imagenet"}))


def test_our_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    saved, loaded = (build_encoder(SMALL) for _ in range(2))
    save_weights(saved, tmp_path / "encoder.safetensors")
    load_weights(loaded, tmp_path / "encoder.safetensors")
    for name, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_our_weights_of_another_config_or_no_weights_at_all_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_weights(build_encoder(SMALL), path)
    with pytest.raises(UserError, match=r"another shape: embed\.weight \(8, 512\) instead of \(9, 512\)"):
        load_weights(build_encoder(SMALL.model_copy(update={"embedding": 9})), path)
    path.write_bytes(b"not weights")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_weights(build_encoder(SMALL), path)


def test_files_with_anything_but_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "numbers.pt")
    with pytest.raises(UserError, match="no mapping of names to tensors"):
        read_state(tmp_path / "numbers.pt")
    torch.save({"path": Path()}, tmp_path / "object.pt")
    with pytest.raises(UserError, match="not a readable file of PyTorch weights"):
        read_state(tmp_path / "object.pt")
    torch.save({1: torch.zeros(2)}, tmp_path / "numbered.pt")
    with pytest.raises(UserError, match="no mapping of names to tensors"):
        read_state(tmp_path / "numbered.pt")
    with pytest.raises(UserError, match=r"absent\.pt: no such file"):
        read_state(tmp_path / "absent.pt")


def test_an_export_that_runs_by_itself_is_no_file_of_weights(tmp_path: Path) -> None:
    module, example = torch.nn.Linear(2, 2), torch.zeros(1, 2)
    torch.jit.trace(module, example).save(str(tmp_path / "x.ts"))
    torch.export.save(torch.export.export(module, (example,)), tmp_path / "x.pt2")
    for path in (tmp_path / "x.ts", tmp_path / "x.pt2"):
        with pytest.raises(UserError, match=rf"{path}: an export that runs by itself.*--format safetensors") as said:
            read_state(path)
        assert "weights_only" not in str(said.value)


def test_weights_in_whole_numbers_are_refused(tmp_path: Path) -> None:
    state = build_encoder(SMALL).state_dict()
    state["embed.weight"] = state["embed.weight"].to(torch.int32)
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"of another kind: embed\.weight torch\.int32 instead of torch\.float"):
        load_weights(build_encoder(SMALL), tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("photo.pth", b"\xff\xd8\xff\xe0JPEG" + bytes(40)),
        ("cut.safetensors", b"\xff" * 64),
        ("empty.pth", b""),
        ("text.pth", b"hello world, this is text\n" * 50),
    ],
)
def test_what_is_no_file_of_weights_is_said_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: not a readable file of PyTorch weights") as said:
        read_state(path)
    assert "weights_only" not in str(said.value)
