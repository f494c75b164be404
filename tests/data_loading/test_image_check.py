"""Decoding of every odd mode, and finding files that cannot be decoded."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets import open_dataset
from jgcl_ray.data.datasets.image_tree import image_tree
from jgcl_ray.data.datasets.reid_dataset import NamedImage, ReidDataset, labelled_split
from jgcl_ray.data.image_check import check_images, find_broken
from jgcl_ray.data.staging import stage_folder
from jgcl_ray.errors import UserError
from jgcl_ray.image_files import MEAN_COLOUR, UnreadableImage, read_rgb, verify

FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "bmp": "BMP", "webp": "WEBP"}


def smooth() -> Image.Image:
    down, right = np.mgrid[:40, :20]
    pixels = np.stack([5 * down, 10 * right, 255 - 5 * down], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(suffix: str, image: Image.Image | None = None) -> bytes:
    buffer = io.BytesIO()
    (image or smooth()).save(buffer, FORMATS[suffix])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("suffix", "mode", "tolerance"),
    [
        ("jpg", "RGB", 3),
        ("png", "RGB", 0),
        ("bmp", "RGB", 0),
        ("webp", "RGB", 4),
        ("jpg", "CMYK", 10),
        ("png", "P", 8),
        ("png", "RGBA", 0),
    ],
)
def test_modes_decode_to_the_same_picture(tmp_path, suffix, mode, tolerance):
    path = tmp_path / f"a.{suffix}"
    image = smooth().quantize(256) if mode == "P" else smooth().convert(mode)
    path.write_bytes(encoded(suffix, image))
    with Image.open(path) as stored:
        assert stored.mode == mode
    pixels = read_rgb(path, 40, 20)
    assert pixels.dtype == np.uint8 and pixels.shape == (40, 20, 3)
    assert np.abs(pixels.astype(int) - np.asarray(smooth())).mean() <= tolerance


def test_sixteen_bits_are_scaled(tmp_path):
    levels = np.linspace(0, 65535, 800).astype(np.uint16).reshape(40, 20)
    Image.fromarray(levels).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode.startswith("I")
    expected = np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png", 40, 20), expected)


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey(tmp_path, mode):
    smooth().convert("L").convert(mode).save(tmp_path / "a.png")
    pixels = read_rgb(tmp_path / "a.png", 40, 20)
    np.testing.assert_array_equal(pixels[..., 0], np.asarray(smooth().convert("L").convert(mode).convert("L")))
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("palette", [False, True])
def test_transparency_is_laid_over_the_mean(tmp_path, palette):
    pixels = np.full((8, 4, 4), 255, dtype=np.uint8)  # white, the upper half hidden
    pixels[:4] = (255, 0, 0, 0)
    image = Image.fromarray(pixels)
    (image.quantize(4) if palette else image).save(tmp_path / "a.png")
    decoded = read_rgb(tmp_path / "a.png", 8, 4)
    assert (decoded[:4] == MEAN_COLOUR).all() and (decoded[4:] >= 250).all()


def test_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), (10, 20, 30)).save(tmp_path / "a.png")
    assert (read_rgb(tmp_path / "a.png", 256, 128) == (10, 20, 30)).all()


def test_resizing_is_bicubic(tmp_path):
    smooth().save(tmp_path / "a.png")
    expected = np.asarray(smooth().resize((128, 256), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png", 256, 128), expected)


def test_large_jpeg_is_decoded_at_a_fraction(tmp_path):
    smooth().resize((320, 640)).save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        whole = np.asarray(image.resize((64, 128), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(read_rgb(tmp_path / "a.jpg", 128, 64) - whole).mean() < 2


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kept", [0, 5, 0.4, 0.8])
def test_cut_off_files_do_not_verify(tmp_path, suffix, kept):
    whole = encoded(suffix)
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(whole)
    verify(path)
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(UnreadableImage):
        verify(path)


@pytest.fixture
def broken_folder(tmp_path) -> Path:
    """Nine images from two cameras, three of them broken."""
    for camera in ("cam1", "cam2"):
        (tmp_path / camera).mkdir()
        for name in ("a", "c", "e"):
            (tmp_path / camera / f"{name}.jpg").write_bytes(encoded("jpg"))
    (tmp_path / "cam1" / "b.jpg").write_bytes(b"")
    (tmp_path / "cam1" / "d.jpg").write_bytes(encoded("jpg")[:-100])
    (tmp_path / "cam2" / "b.png").write_text("not an image")
    return tmp_path


def test_all_broken_images_are_named_at_once(broken_folder):
    dataset = open_dataset(DataConfig(name="folder", root=broken_folder))
    with pytest.raises(UserError) as caught:
        check_images(dataset, "error")
    message = str(caught.value)
    assert "\n" not in message and message.startswith("3 of 9 images cannot be read: ")
    assert f"{broken_folder / 'cam1/b.jpg'} (an empty file)" in message
    assert f"{broken_folder / 'cam1/d.jpg'} (image file is truncated" in message
    assert f"{broken_folder / 'cam2/b.png'} (not an image)" in message
    assert "data.on_bad_image=skip" in message


@pytest.mark.parametrize("threads", [1, 5])
def test_broken_images_come_in_the_order_of_rows(broken_folder, threads):
    split = open_dataset(DataConfig(name="folder", root=broken_folder)).train
    assert [split.paths[image.row] for image in find_broken(split, threads)] == [
        "cam1/b.jpg",
        "cam1/d.jpg",
        "cam2/b.png",
    ]


def test_skipped_images_leave_the_others_in_order(broken_folder):
    dataset = open_dataset(DataConfig(name="folder", root=broken_folder))
    with pytest.warns(UserWarning, match=r"3 of 9 images cannot be read.*left out"):
        kept = check_images(dataset, "skip")
    names = ("cam1/a.jpg", "cam1/c.jpg", "cam1/e.jpg", "cam2/a.jpg", "cam2/c.jpg", "cam2/e.jpg")
    assert kept.train.paths == names
    assert kept.train.cameras.tolist() == [1, 1, 1, 2, 2, 2]
    assert kept.camera_names == dataset.camera_names and kept.query is None
    assert check_images(kept, "error") is kept


def test_a_long_list_is_cut_but_counted(tmp_path):
    for number in range(130):
        (tmp_path / f"{number:03d}.jpg").touch()
    with pytest.raises(UserError, match=r"^130 of 130 .*/099\.jpg \(an empty file\) and 30 more"):
        check_images(open_dataset(DataConfig(name="folder", root=tmp_path)), "error")


def test_nothing_left(tmp_path):
    (tmp_path / "a.jpg").touch()
    dataset = open_dataset(DataConfig(name="folder", root=tmp_path))
    with pytest.warns(UserWarning), pytest.raises(UserError, match="none of the 1 image of train can be read"):
        check_images(dataset, "skip")


def test_labels_and_validation_follow_the_rows(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg", "q.jpg"):
        (tmp_path / name).write_bytes(b"" if name == "b.jpg" else encoded("jpg"))
    train = labelled_split(
        tmp_path, [NamedImage("c.jpg", 3, 1), NamedImage("a.jpg", 1, 1), NamedImage("b.jpg", 2, 2)]
    )
    test = labelled_split(tmp_path, [NamedImage("q.jpg", 9, 1)])
    dataset = ReidDataset("made", tmp_path, train, test, test, validation=train.take(np.array([1, 2])))
    with pytest.warns(UserWarning, match=r"1 of 5 images"):
        kept = check_images(dataset, "skip")
    assert kept.train.paths == ("a.jpg", "c.jpg") and kept.train.identities.tolist() == [1, 3]
    assert kept.validation.paths == ("c.jpg",) and kept.validation.identities.tolist() == [3]
    assert kept.query.paths == ("q.jpg",)


def test_a_file_that_vanished(tmp_path):
    split = labelled_split(tmp_path, [NamedImage("gone.jpg", 1, 1)])
    assert [image.reason for image in find_broken(split)] == ["no such file"]


def test_links_to_a_disk_that_is_not_there(tmp_path):
    root, disk = tmp_path / "crops", tmp_path / "disk"
    (root / "cam1").mkdir(parents=True)
    (root / "cam1" / "a.jpg").write_bytes(encoded("jpg"))
    (root / "cam1" / "b.jpg").symlink_to(disk / "b.jpg")
    dataset = open_dataset(DataConfig(name="folder", root=root))
    with pytest.raises(UserError, match=r"1 of 2 images cannot be read: .*b\.jpg \(a link to .*disk/b\.jpg"):
        check_images(dataset, "error")
    with pytest.warns(UserWarning, match="1 of 2"):
        assert check_images(dataset, "skip").left_out == {"train": 1}
    (root / "cam1" / "b.jpg").unlink()
    (root / "cam2").symlink_to(disk / "cam2")
    dataset = open_dataset(DataConfig(name="folder", root=root))
    with pytest.raises(UserError, match=r"cam2 \(a link to .*on_bad_image=skip"):
        check_images(dataset, "error")
    with pytest.warns(UserWarning, match=r"cam2 .*left out"):
        assert check_images(dataset, "skip").train.paths == ("cam1/a.jpg",)


def test_backslashes_in_names_are_refused(tmp_path):
    (tmp_path / "cam1\\a.jpg").write_bytes(encoded("jpg"))
    for read in (lambda: open_dataset(DataConfig(name="folder", root=tmp_path)), lambda: image_tree(tmp_path)):
        with pytest.raises(UserError, match="a backslash in its name"):
            read()


def test_each_folder_of_a_tree_comes_once_whatever_links_to_it(tmp_path):
    root, disk = tmp_path / "crops", tmp_path / "disk"
    for folder in (root / "cam1", disk):
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(encoded("jpg"))
    (root / "all").symlink_to(root)
    (root / "again").symlink_to(root / "cam1")
    (root / "cam2").symlink_to(disk)
    (root / "cam3").symlink_to(disk)
    assert image_tree(root) == ("cam1/a.jpg", "cam2/a.jpg")
    staged = stage_folder(root, tmp_path / "near")
    copied = {path.relative_to(staged).as_posix() for path in staged.rglob("*.jpg")}
    assert copied == {f"{camera}/a.jpg" for camera in ("again", "cam1", "cam2", "cam3")}
    assert not (staged / "cam2").is_symlink()
