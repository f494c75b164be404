"""The encoder that the package ships: its name in place of a file, its header, and runs that start from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jgcl_ray import Encoder
from jgcl_ray import export as export_command
from jgcl_ray.config import load_config
from jgcl_ray.errors import UserError
from jgcl_ray.models.encoder_files import read_tensors
from jgcl_ray.models.shipped import SHIPPED, shipped_metadata
from jgcl_ray.retrieval.request import Request, search_gallery

pytestmark = pytest.mark.usefixtures("one_thread")

NAME = "rendered"


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (64, 32, 3), dtype=np.uint8)) for _ in range(3)]


def test_the_package_holds_it_and_how_it_was_made() -> None:
    assert SHIPPED[NAME].stat().st_size <= 12e6
    made = shipped_metadata(NAME)
    assert made["command"].startswith("python -m jgcl_ray.pretrain encoder ") and float(made["minutes"]) > 0
    assert json.loads(made["recipe"])["seed"] >= 0 and {"machine", "versions"} <= made.keys()
    assert all(torch.isfinite(tensor).all() for tensor in read_tensors(SHIPPED[NAME]).values())


def test_its_name_loads_it_wherever_one_is(
    pictures: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()  # a folder of that name does not stand in its way
    found = Encoder.load(NAME, "cpu").embed(pictures)
    assert found.shape == (3, Encoder.load(Path(NAME), "cpu").width_of_embedding)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(found, Encoder.load(SHIPPED[NAME], "cpu").embed(pictures))
    with pytest.raises(UserError, match=r"rendred: no such file or folder; .* or rendered, which comes with"):
        Encoder.load("rendred")


def test_commands_take_its_name(pictures: list[Image.Image], tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    export_command.main(["--checkpoint", NAME, "--format", "safetensors", "--out", str(out)])
    embedded = [Encoder.load(path, "cpu").embed(pictures) for path in (NAME, out)]
    np.testing.assert_allclose(*embedded, atol=1e-6)
    (tmp_path / "crops").mkdir()
    for place, picture in enumerate(pictures):
        picture.save(tmp_path / "crops" / f"{place}.png")
    query = tmp_path / "crops" / "1.png"
    request = Request(
        index=tmp_path / "people.idx",
        checkpoint=Path(NAME),
        gallery=tmp_path / "crops",
        query=(query,),
        device="cpu",
        k=1,
    )
    [answer] = search_gallery(request)
    assert Path(answer.paths[0]).name == "1.png"


def test_its_name_in_a_config_is_no_path() -> None:
    assert load_config(None, ["run.init_from=rendered"]).run.init_from == NAME
    assert load_config(None, ["run.init_from=other"]).run.init_from == Path.cwd() / "other"
