"""Files that say what their encoder is built from, as starts of runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from jgcl_ray.config import EncoderConfig
from jgcl_ray.errors import UserError
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.encoder_files import METADATA, EncoderSpec, check_fits, check_start, load_encoder, start_from
from jgcl_ray.models.origin import packed

pytestmark = pytest.mark.usefixtures("one_thread")

ARCHITECTURE = EncoderConfig(backbone="osnet_x0_25", head="pool", weights="random", separate_batch_norm=False)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    spec = json.dumps(EncoderSpec(ARCHITECTURE, 48, 24).document())
    save_file(packed(IdentityEncoder(ARCHITECTURE)), path, {METADATA: spec})
    return path


def test_an_encoder_with_statistics_for_generated_images_starts_from_a_file_without(file: Path) -> None:
    config = ARCHITECTURE.model_copy(update={"separate_batch_norm": True})
    encoder = IdentityEncoder(config)
    load_encoder(encoder, config, file, "X")
    state = encoder.state_dict()
    generated = [name for name in state if name.endswith("generated_mean")]
    assert generated
    for name in generated:
        assert torch.equal(state[name], state[name.replace("generated", "running")])


def test_another_encoder_is_told_what_to_set(file: Path) -> None:
    check_fits(file, ARCHITECTURE.model_copy(update={"embedding": 7, "separate_batch_norm": True}), "X")
    wanted = EncoderConfig(backbone="resnet18", weights="random")
    said = "^X holds another encoder .* set encoder.backbone=osnet_x0_25 encoder.head=pool$"
    with pytest.raises(UserError, match=said):
        load_encoder(IdentityEncoder(wanted), wanted, file, "X")


@pytest.mark.parametrize("separate", [False, True])
def test_a_resnet_with_ibn_starts_from_the_plain_one(tmp_path: Path, separate: bool) -> None:
    plain = EncoderConfig(backbone="resnet18", head="pool", weights="random", separate_batch_norm=False)
    given = IdentityEncoder(plain)
    for tensor in given.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    path = tmp_path / "plain.safetensors"
    save_file(given.state_dict(), path, {METADATA: json.dumps(EncoderSpec(plain, 48, 24).document())})

    config = plain.model_copy(update={"backbone": "resnet18_ibn_a", "separate_batch_norm": separate})
    encoder = IdentityEncoder(config)
    check_start(path, config, "X")
    start_from(encoder, config, path, "X")
    old, new = given.state_dict(), encoder.state_dict()
    norm = "backbone.layer1.0.bn1"
    assert torch.equal(torch.cat([new[f"{norm}.IN.weight"], new[f"{norm}.BN.weight"]]), old[f"{norm}.weight"])
    assert torch.equal(torch.cat([new[f"{norm}.IN.bias"], new[f"{norm}.BN.bias"]]), old[f"{norm}.bias"])
    assert torch.equal(new[f"{norm}.BN.running_var"], old[f"{norm}.running_var"][32:])
    same = [name for name in new if name in old and ".layer4." in name]
    assert same and all(torch.equal(new[name], old[name]) for name in same)
    with pytest.raises(UserError, match="another encoder"):
        load_encoder(encoder, config, path, "X")
