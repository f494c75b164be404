"""Features of all images by one worker and by two."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from jgcl_ray.batches import ImageBatch
from jgcl_ray.config import EncoderConfig
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.pseudo_labels.extract import CodeMoments, extract_features

ROWS = 61


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.frozen = nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout().eval()

    def forward(self, image: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(embedding=self.frozen(self.norm(self.linear(image.flatten(1)))))


def encoder() -> Encoder:
    torch.manual_seed(0)
    model = Encoder()
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2)
    return model


def images() -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    people = torch.randn(6, 3, 2, 2, generator=random)[torch.arange(ROWS) % 6]
    return people + 0.1 * torch.randn(ROWS, 3, 2, 2, generator=random)


def batches(rows: range, size: int = 7) -> list[ImageBatch]:
    return [
        ImageBatch(images()[list(part)], torch.tensor(list(part)))
        for part in (rows[i : i + size] for i in range(0, len(rows), size))
    ]


def test_features_in_the_order_of_the_data_set() -> None:
    model = encoder()
    features = extract_features(model, reversed(batches(range(ROWS))), ROWS)
    expected = nn.functional.normalize(model.eval()(images()).embedding.detach(), dim=1)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-6)
    assert not features.requires_grad


def test_modes_and_statistics_are_left_as_they_were() -> None:
    model = encoder()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    extract_features(model, batches(range(ROWS)), ROWS)
    assert [module.training for module in model.modules()] == modes
    assert sum(modes) == len(modes) - 1
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)

    def broken():
        yield from batches(range(5))
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        extract_features(model, broken(), ROWS)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([range(ROWS - 1)], "1 of 61 rows did not arrive exactly once, the first is row 60, 0 times"),
        ([range(ROWS), range(3, 5)], "2 of 61 rows did not arrive exactly once, the first is row 3, 2 times"),
    ],
)
def test_rows_that_are_missing_or_doubled_are_named(shards: list[range], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        extract_features(encoder(), [batch for shard in shards for batch in batches(shard)], ROWS)


def test_statistics_of_codes_are_those_of_all_images_whatever_the_batches() -> None:
    torch.manual_seed(0)
    model = IdentityEncoder(EncoderConfig(weights="random", backbone="resnet18", embedding=4)).train()
    images = torch.randn(9, 3, 32, 16)
    parts = [ImageBatch(images[rows], torch.tensor(rows)) for rows in ([0, 1, 2, 3], [4, 5, 6, 7, 8])]
    moments = CodeMoments(model.code_width, torch.device("cpu"))
    extract_features(model, parts, 9, moments)
    mean, deviation = moments.statistics()
    assert model.training and model.backbone.bn1.training
    codes = model.eval()(images).code.detach()
    torch.testing.assert_close(mean, codes.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(deviation, codes.std(0, correction=0), rtol=1e-3, atol=1e-5)


def test_mirrored_is_the_mean_with_the_mirror_image() -> None:
    model = encoder()
    features = extract_features(model, batches(range(ROWS)), ROWS, mirrored=True)
    model.eval()
    plain, mirrored = (
        nn.functional.normalize(model(x).embedding.detach(), dim=1) for x in (images(), images().flip(3))
    )
    torch.testing.assert_close(features, nn.functional.normalize(plain + mirrored, dim=1), rtol=0, atol=1e-6)
    assert (features - plain).abs().max() > 0.01


def test_mirrored_features_of_an_image_and_its_mirror_image_are_one() -> None:
    both = [ImageBatch(x[:20], torch.arange(20)) for x in (images(), images().flip(3))]
    first, second = (extract_features(encoder(), [batch], 20, mirrored=True) for batch in both)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
