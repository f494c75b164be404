"""Whoever reads an image reads it alike: upright, 16 bits as 8, transparency over the mean, bombs refused."""

import ast
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import jgcl_ray
from jgcl_ray.config import EncoderConfig
from jgcl_ray.data.datasets.reid_dataset import NamedImage, labelled_split
from jgcl_ray.data.image_check import find_broken
from jgcl_ray.data.image_store import ImageStore
from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import UserError
from jgcl_ray.footage.video import FrameFolder, ReadProgress
from jgcl_ray.image_files import (
    MEAN_COLOUR,
    UnreadableImage,
    as_rgb,
    image_size,
    read_grey,
    read_image,
    read_rgb,
    verify,
)
from jgcl_ray.meshes import estimator, spin
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.retrieval.answers import Answer, answer_sheet

ORIENTATION = 0x0112
HEIGHT, WIDTH = 40, 20


def picture() -> Image.Image:
    """Upright, all four corners unlike."""
    down, right = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([5 * down, 10 * right, 255 - 5 * down], axis=-1).astype(np.uint8))


def turned(orientation: int) -> tuple[Image.Image, Image.Exif]:
    """As a camera in another position stores it, and what it notes."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that undoes what the viewer is to do
    return picture() if orientation == 1 else picture().transpose(Image.Transpose(back[orientation])), exif


def sixteen_bits(path: Path) -> np.ndarray:
    levels = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    Image.fromarray(levels).save(path)
    return np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, axis=2)


def transparent(path: Path) -> np.ndarray:
    pixels = np.dstack([np.asarray(picture()), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    pixels[: HEIGHT // 2] = (255, 0, 0, 0)
    Image.fromarray(pixels).save(path)
    expected = pixels[..., :3].copy()
    expected[: HEIGHT // 2] = MEAN_COLOUR
    return expected


def phone(path: Path) -> np.ndarray:
    stored, exif = turned(6)
    stored.save(path, exif=exif)
    return np.asarray(picture())


ODD = {"sixteen bits": sixteen_bits, "transparent": transparent, "phone": phone}


def by_store(path: Path) -> np.ndarray:
    return ImageStore(labelled_split(path.parent, [NamedImage(path.name, 1, 1)]), HEIGHT, WIDTH).load(0)


def by_frames(path: Path) -> np.ndarray:
    footage = FrameFolder(path.parent, None)
    assert (footage.footage.height, footage.footage.width) == (HEIGHT, WIDTH)
    [frame] = footage.frames([1], ReadProgress())
    return frame.pixels


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "read", [by_store, by_frames, lambda path: read_rgb(path, HEIGHT, WIDTH)], ids=["store", "frames", "read_rgb"]
)
def test_odd_images_are_read_alike(tmp_path: Path, odd: str, read: Callable[[Path], np.ndarray]) -> None:
    expected = ODD[odd](tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("odd", ODD)
def test_networks_are_shown_what_the_encoder_is_shown(tmp_path: Path, odd: str) -> None:
    path = tmp_path / "a.png"
    plain = tmp_path / "plain.png"
    Image.fromarray(ODD[odd](path)).save(plain)
    for read in (estimator._read, spin._read):
        (pixels, size), (wanted, usual) = read(path), read(plain)
        assert size == usual == (HEIGHT, WIDTH)
        np.testing.assert_array_equal(np.asarray(pixels), np.asarray(wanted))
    architecture = EncoderConfig(backbone="resnet18", weights="random")
    encoder = Encoder(IdentityEncoder(architecture), architecture, HEIGHT, WIDTH, device="cpu")
    for given in (path, path.read_bytes(), Image.open(path)):
        np.testing.assert_array_equal(encoder.read(given), np.asarray(Image.open(plain)))
    sheets = [
        np.asarray(answer_sheet([Answer("", (str(at),), (0.0,))]).crop((150, 0, 300, 195))) for at in (path, plain)
    ]
    np.testing.assert_array_equal(*sheets)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored, exif = turned(orientation)
    path = tmp_path / f"a.{suffix}"
    stored.resize((8 * stored.width, 8 * stored.height)).save(path, exif=exif, quality=95)
    whole = read_image(path)
    assert (whole.height, whole.width) == image_size(path) == (8 * HEIGHT, 8 * WIDTH)
    assert whole.rgb.size == (8 * WIDTH, 8 * HEIGHT)
    small = read_rgb(path, HEIGHT, WIDTH).astype(int)  # of a JPEG decoded at a fraction
    assert np.abs(small - np.asarray(picture())).mean() < 4
    with Image.open(path) as opened:
        np.testing.assert_array_equal(
            np.asarray(whole.rgb), np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        )


def test_a_jpeg_on_its_side_is_never_decoded_below_what_is_asked_for(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("RGB", (400, 100)).save(tmp_path / "a.jpg", exif=exif)  # 400 high
    assert read_image(tmp_path / "a.jpg", (200, 50)).rgb.size == (50, 200)
    assert read_image(tmp_path / "a.jpg", (400, 20)).rgb.size == (100, 400)


@pytest.mark.parametrize(
    "note", [b"Exif\x00\x00nonsense", b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff", b"Exif\x00\x00"]
)
def test_a_damaged_note_spoils_no_picture(tmp_path: Path, note: bytes) -> None:
    picture().save(tmp_path / "a.jpg", exif=b"Exif\x00\x00" + note)
    verify(tmp_path / "a.jpg")
    assert read_rgb(tmp_path / "a.jpg", HEIGHT, WIDTH).shape == (HEIGHT, WIDTH, 3)


def test_transparency_of_sixteen_bits(tmp_path: Path) -> None:
    levels = np.full((4, 4), 40_000, np.uint16)
    levels[0] = 1_000
    Image.fromarray(levels).save(tmp_path / "a.png", transparency=1_000)
    pixels = read_rgb(tmp_path / "a.png", 4, 4)
    assert (pixels[0] == MEAN_COLOUR).all() and (pixels[1:] == 40_000 >> 8).all()


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_white_of_thirty_two_bits_is_not_guessed(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.full((HEIGHT, WIDTH), 1, kind)).save(path)
    for read in (read_image, verify, image_size, lambda path: as_rgb(Image.open(path))):
        with pytest.raises(UnreadableImage, match="32 bits a pixel"):
            read(path)


def test_a_bomb_is_a_bad_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    picture().save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH // 3)
    for read in (verify, read_image, image_size, read_grey):
        with pytest.raises(UnreadableImage, match="decompression bomb"):
            read(path)
    for read in (estimator._read, spin._read, by_store):
        with pytest.raises(UserError, match=r"a\.png:? cannot be read.*bomb"):
            read(path)
    [broken] = find_broken(labelled_split(tmp_path, [NamedImage("a.png", 1, 1)]))
    assert "bomb" in broken.reason


def test_reasons(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("text")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "away" / "a.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    reasons = {}
    for name in ("empty.jpg", "text.jpg", "folder.jpg", "link.jpg", "loop.jpg", "none.jpg"):
        with pytest.raises(UnreadableImage) as caught:
            verify(tmp_path / name)
        reasons[name] = str(caught.value)
    assert reasons == {
        "empty.jpg": "an empty file",
        "text.jpg": "not an image",
        "folder.jpg": "a folder, not a file",
        "link.jpg": f"a link to {tmp_path / 'away' / 'a.jpg'}, which is not there",
        "loop.jpg": "Too many levels of symbolic links",
        "none.jpg": "no such file",
    }
    with pytest.raises(UnreadableImage, match="not an image"):
        read_image(io.BytesIO(b"text"))


def test_nobody_else_opens_images() -> None:
    """One exception would be one more way to read 16 bits, transparency and orientation."""
    package = Path(jgcl_ray.__file__).parent
    openers = {"imread", "imreadmulti", "imdecode", "decode_image", "decode_jpeg", "decode_png", "fromqimage"}
    found = []
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and (
                node.attr in openers
                or (node.attr == "open" and ast.unparse(node.value).rpartition(".")[2] in ("Image", "PIL"))
            ):
                found.append(file.name)
            elif isinstance(node, ast.ImportFrom) and node.module in (
                "PIL.Image",
                "cv2",
                "imageio",
                "matplotlib.image",
            ):
                found += [file.name for name in node.names if name.name in {*openers, "open"}]
    assert found == ["image_files.py"]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for name, reason in (("pipe.jpg", "a pipe or a device, not a file"), ("folder.jpg", "a folder, not a file")):
        for read in (read_image, verify, image_size, read_grey):
            with pytest.raises(UnreadableImage, match=reason):
                read(tmp_path / name)
