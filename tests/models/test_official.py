"""Official checkpoints: they load under our names, fail by name, and come back as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden_weights import official_states

from jgcl_ray.config import DiscriminatorConfig, EncoderConfig, GeneratorConfig
from jgcl_ray.errors import UserError
from jgcl_ray.models import official
from jgcl_ray.models.discriminator import Discriminator
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.generator import Generator, StructureEncoder

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def states() -> dict[str, State]:
    return official_states()


def make_encoder(separate: bool = False) -> IdentityEncoder:
    return IdentityEncoder(EncoderConfig(weights="random", separate_batch_norm=separate))


def assert_equal(ours: State, theirs: State) -> None:
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def test_encoder_goes_there_and_back(states: dict[str, State], tmp_path: Path) -> None:
    theirs, ours = tmp_path / "id_1.pt", tmp_path / "id_2.pt"
    torch.save({"id": states["id"]}, theirs)
    encoder = make_encoder(separate=True)
    official.load_encoder(encoder, theirs)
    norm = encoder.backbone.layer4[2].bn3
    assert torch.equal(norm.generated_mean, states["id"]["layer4.2.bn3.running_mean"])
    official.save_encoder(encoder, ours)
    assert_equal(torch.load(ours, weights_only=True)["id"], states["id"])


def test_jvtc_encoder_loads_bare_and_from_a_parallel_wrapper(states: dict[str, State], tmp_path: Path) -> None:
    path = tmp_path / "jvtc.pth"
    torch.save({f"module.{name}": value for name, value in states["id"].items()}, path)
    encoder = make_encoder()
    official.load_encoder(encoder, path)
    assert torch.equal(encoder.embed.weight, states["id"]["feat.weight"])


def test_generator_goes_there_and_back(states: dict[str, State], tmp_path: Path) -> None:
    theirs, ours = tmp_path / "gen_1.pt", tmp_path / "gen_2.pt"
    torch.save({"gen": states["gen"]}, theirs)
    structure_encoder, generator = StructureEncoder(GeneratorConfig()), Generator(GeneratorConfig(), 8192)
    official.load_generator(structure_encoder, generator, theirs)
    official.save_generator(structure_encoder, generator, ours)
    unused = {name for name in states["gen"] if "running_" in name}
    written = torch.load(ours, weights_only=True)["gen"]
    assert set(written) == set(states["gen"])
    assert_equal(
        {name: value for name, value in written.items() if name not in unused},
        {name: value for name, value in states["gen"].items() if name not in unused},
    )
    for name in unused:
        assert torch.equal(written[name], torch.full((128,), float("var" in name)))


def test_discriminator_goes_there_and_back(states: dict[str, State], tmp_path: Path) -> None:
    theirs, ours = tmp_path / "dis_1.pt", tmp_path / "dis_2.pt"
    torch.save({"dis": states["dis"]}, theirs)
    discriminator = Discriminator(DiscriminatorConfig())
    official.load_discriminator(discriminator, theirs)
    official.save_discriminator(discriminator, ours)
    assert_equal(torch.load(ours, weights_only=True)["dis"], states["dis"])


@pytest.mark.parametrize("kind", ["id", "gen", "dis"])
def test_missing_surplus_and_misshapen_names_are_listed(kind: str, states: dict[str, State], tmp_path: Path) -> None:
    def load(state: State) -> None:
        path = tmp_path / f"{kind}_1.pt"
        torch.save({kind: state}, path)
        if kind == "id":
            official.load_encoder(make_encoder(), path)
        elif kind == "gen":
            official.load_generator(StructureEncoder(GeneratorConfig()), Generator(GeneratorConfig(), 8192), path)
        else:
            official.load_discriminator(Discriminator(DiscriminatorConfig()), path)

    name = next(name for name in states[kind] if name.endswith("weight"))
    others = {other: value for other, value in states[kind].items() if other != name}
    with pytest.raises(UserError, match=f"1 name missing: {name}"):
        load(others)
    with pytest.raises(UserError, match="1 name surplus: stowaway"):
        load(states[kind] | {"stowaway": torch.zeros(1)})
    with pytest.raises(UserError, match=r"1 tensor of another shape: .* \(2, 2\) instead of"):
        load(states[kind] | {name: torch.zeros(2, 2)})


def test_an_encoder_without_the_linear_head_says_which_one_it_takes(states: dict[str, State], tmp_path: Path) -> None:
    torch.save({"id": states["id"]}, tmp_path / "id_1.pt")
    encoder = IdentityEncoder(EncoderConfig(weights="random", head="pool"))
    with pytest.raises(UserError, match=r"encoder\.head=linear"):
        official.load_encoder(encoder, tmp_path / "id_1.pt")
