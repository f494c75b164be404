"""Where projections come from: folders, parameters, and drawing ahead from the command line."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mesh_samples import make_parameters
from PIL import Image
from rounding import assert_pictures_alike

from jgcl_ray.config import DataConfig, MeshesConfig
from jgcl_ray.errors import UserError
from jgcl_ray.meshes import drawing
from jgcl_ray.meshes.body_models import SMPLBody, smpl_body
from jgcl_ray.meshes.body_parameters import read_body_parameters
from jgcl_ray.meshes.cameras import Mesh
from jgcl_ray.meshes.embree_renderer import EmbreeRenderer
from jgcl_ray.meshes.projection_folders import VIEWS, png_names, view_folder
from jgcl_ray.meshes.projections import drawn_by_view, main, open_projections

NAMES = ["0001_c1s1_000001_00.jpg", "0002_c2s1_000001_00.jpg", "0003_c2s1_000001_00.jpg"]
NESTED = ["0000/0000_000_01_0303morning_0015_0.jpg", "0001/0001_000_02_0303noon_0015_0.jpg"]


@pytest.fixture(autouse=True)
def fresh_caches() -> Iterator[None]:
    yield
    for cache in (read_body_parameters, smpl_body, drawing._digest):
        cache.cache_clear()


def fill(root: Path, names: list[str], size: tuple[int, int] = (64, 32), suffix: str | None = None) -> None:
    """Pictures whose grey tells row and view."""
    for view_number, view in enumerate(VIEWS):
        for row, name in enumerate(names):
            path = view_folder(root, "train", view) / name
            path = path.with_suffix(suffix) if suffix else path
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full(size, 20 * row + 5 * view_number, np.uint8)).save(path)


def open_folders(root: Path, names: list[str], images: Path | None = None, **data: Any) -> Any:
    meshes = MeshesConfig(source="folders", root=root)
    return open_projections(meshes, DataConfig(**{"height": 64, "width": 32, **data}), names, "train", images)


@pytest.mark.parametrize("names", [NAMES, NESTED], ids=["flat", "sub-folders"])
@pytest.mark.parametrize("suffix", [None, ".png"], ids=["same name", "png"])
def test_folders_in_the_authors_layout(tmp_path: Path, names: list[str], suffix: str | None) -> None:
    fill(tmp_path, names, suffix=suffix)
    source = open_folders(tmp_path, names)
    for row in range(len(names)):
        for number, view in enumerate(VIEWS):
            grey = source.load(row, view)
            assert grey.shape == (64, 32) and grey.dtype == np.uint8
            assert abs(int(grey[30, 10]) - (20 * row + 5 * number)) <= 2  # JPEG
    with pytest.raises(ValueError):
        source.load(0, 30)
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.load(0, 45), source.load(0, 45))


def test_images_that_share_a_stem_have_projections_of_their_own(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "a.jpg.png", "b.jpg", "c/a.jpg"]
    pictures = ["a.jpg.png", "a.png.png", "a.jpg.png.png", "b.png", "c/a.png"]
    assert png_names(names) == pictures and png_names(names[2:]) == ["a.jpg.png", "b.png", "c/a.png"]
    fill(tmp_path, [*pictures[:2], "b.png"])
    source = open_folders(tmp_path, ["a.jpg", "a.png", "b.jpg"])
    assert [int(source.load(row, 0)[0, 0]) for row in range(3)] == [0, 20, 40]
    (tmp_path / "other").mkdir()
    fill(tmp_path / "other", ["a.png"])  # of a.jpg or of a.png?
    with pytest.raises(UserError, match=r"8 of 16 projections are missing, first .*render/a\.jpg"):
        open_folders(tmp_path / "other", ["a.jpg", "a.png"])


def test_the_authors_names_are_folders_as_written(tmp_path: Path) -> None:
    fill(tmp_path, NAMES)
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == sorted(
        ["render", *(f"render_{view}" for view in (45, 90, 135, 180, 225, 270, 315))]
    )


def test_the_walkers_own_lie_below_their_root(tmp_path: Path) -> None:
    fill(tmp_path / "meshes", NAMES)
    data = DataConfig(root=tmp_path, height=64, width=32)
    assert open_projections(MeshesConfig(), data, NAMES, "train").load(1, 0).shape == (64, 32)
    with pytest.raises(UserError, match=r"24 of 24 projections are missing, first .*test/render/0001"):
        open_projections(MeshesConfig(), data, NAMES, "test")
    with pytest.raises(UserError, match=r"data\.root is not set"):
        open_projections(MeshesConfig(), DataConfig(), NAMES, "train")


def test_missing_projections_are_counted_and_named(tmp_path: Path) -> None:
    fill(tmp_path, NAMES)
    shutil.rmtree(view_folder(tmp_path, "train", 315))
    (view_folder(tmp_path, "train", 45) / NAMES[1]).unlink()
    with pytest.raises(
        UserError, match=rf"4 of 24 projections are missing, first .*render_45/{NAMES[1]}, .*render_315"
    ):
        open_folders(tmp_path, NAMES)
    with pytest.raises(UserError, match=r"meshes\.root is not set"):
        open_projections(MeshesConfig(source="folders"), DataConfig(), NAMES, "train")


@pytest.mark.parametrize("view", [0, 90])
def test_a_projection_of_another_size_than_the_other_views_is_named(tmp_path: Path, view: int) -> None:
    fill(tmp_path, NAMES)
    odd = view_folder(tmp_path, "train", view) / NAMES[2]
    Image.fromarray(np.zeros((60, 32), np.uint8)).save(odd)
    with pytest.raises(UserError, match=rf"1 of 24 .* mis-sized, first {odd} \(60 x 32\): other views"):
        open_folders(tmp_path, NAMES)


def test_square_projections_of_upright_images_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, NAMES, size=(64, 64))
    with pytest.raises(UserError, match=r"24 of 24 .* mis-sized, .*\(64 x 64\).*: images have 2 times their width"):
        open_folders(tmp_path, NAMES)
    assert open_folders(tmp_path, NAMES, height=64, width=64).load(0, 0).shape == (64, 64)


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(16)], ids=["empty", "text", "zeros"]
)
def test_a_file_that_is_no_picture_is_named(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path, NAMES, suffix=".png")
    broken = view_folder(tmp_path, "train", 45) / NAMES[0].replace(".jpg", ".png")
    broken.write_bytes(content)
    with pytest.raises(UserError, match=str(broken)):
        open_folders(tmp_path, NAMES)


def test_what_breaks_after_the_check_is_named_too(tmp_path: Path) -> None:
    fill(tmp_path, NAMES, suffix=".png")
    source = open_folders(tmp_path, NAMES)
    path = view_folder(tmp_path, "train", 45) / NAMES[0].replace(".jpg", ".png")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 30])
    with pytest.raises(UserError, match=f"{path} cannot be read as a picture"):
        source.load(0, 45)
    path.unlink()
    with pytest.raises(UserError, match=f"{path} cannot be read as a picture"):
        source.load(0, 45)
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(path)
    with pytest.raises(UserError, match=f"{path} is 10 x 10 now and was 64 x 32"):
        source.load(0, 45)
    Image.fromarray(np.zeros((64, 32), np.uint16)).save(path)
    with pytest.raises(UserError, match=f"{path} cannot be read as a picture: more than 8 bits"):
        source.load(0, 45)


def test_a_photo_is_never_its_own_projection(tmp_path: Path) -> None:
    fill(tmp_path, NAMES)
    photos = tmp_path / "train" / "render"
    for images in (photos, tmp_path / "train" / "render" / "inner"):
        with pytest.raises(UserError, match="a photo is not its own projection"):
            open_folders(tmp_path, NAMES, images=images)
    shutil.rmtree(tmp_path / "train" / "render_45")
    (tmp_path / "train" / "render_45").symlink_to(photos)
    with pytest.raises(UserError, match=r"render and .*render_45 are one folder"):
        open_folders(tmp_path, NAMES)
    elsewhere = tmp_path / "bounding_box_train"
    photos.rename(elsewhere)
    photos.symlink_to(elsewhere)
    with pytest.raises(UserError, match="a photo is not its own projection"):
        open_folders(tmp_path, NAMES, images=elsewhere)


def write_parameters(folder: Path, names: list[str], **changes: np.ndarray | None) -> Path:
    np.savez(folder / "parameters.npz", **make_parameters(names, **changes))
    return folder / "parameters.npz"


def parameters_config(parameters: Path, smpl: Path | None) -> MeshesConfig:
    return MeshesConfig(source="parameters", parameters=parameters, smpl=smpl)


def test_projections_of_parameters_show_the_turned_body(tmp_path: Path, smpl_npz: Path) -> None:
    """The mask at a view is the hull of the body turned by hand about the image's vertical through the root."""
    parameters = write_parameters(tmp_path, NAMES)
    data = DataConfig(height=64, width=32)
    source = open_projections(parameters_config(parameters, smpl_npz), data, NAMES[1:], "train")
    read, body = read_body_parameters(parameters), SMPLBody(smpl_npz)
    for row in range(2):
        posed = body.posed(read.shape[row + 1 : row + 2], read.pose[row + 1 : row + 2])
        for view in (0, 45, 270):
            x, y, z = (posed.vertices[0] - posed.root[0]).T
            cosine, sine = np.cos(np.radians(view)), np.sin(np.radians(view))
            # y points down: counter-clockwise from above takes what is near (-z) to the right (+x).
            turned = np.stack([cosine * x - sine * z, y, sine * x + cosine * z], axis=1) + posed.root[0]
            grey = source.load(row, view)
            assert grey.shape == (64, 32) and grey.dtype == np.uint8
            scene = Mesh(turned.astype(np.float32), body.faces), [read.camera_of(row + 1, 64, 32)]
            (expected,) = EmbreeRenderer().render([drawing.Scene(*scene)], 64, 32)
            assert 0.05 < expected.mask.mean() < 0.9
            assert np.abs(grey / 255 - expected.grey[0]).mean() < 0.01
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.load(0, 90), source.load(0, 90))
    with pytest.raises(ValueError):
        source.load(0, 30)


def test_parameters_and_body_must_belong_together(tmp_path: Path, smpl_npz: Path) -> None:
    data = DataConfig(height=64, width=32)
    parameters = write_parameters(tmp_path, NAMES)
    with pytest.raises(UserError, match="holds betas: give the SMPL file"):
        open_projections(parameters_config(parameters, None), data, NAMES, "train")
    with pytest.raises(UserError, match=r"no SMPL file .*absent\.pkl"):
        open_projections(parameters_config(parameters, tmp_path / "absent.pkl"), data, NAMES, "train")
    with pytest.raises(UserError, match=r"meshes\.parameters is not set"):
        open_projections(MeshesConfig(source="parameters"), data, NAMES, "train")
    with pytest.raises(UserError, match=r"no parameters for 1 of 1 image, first other\.jpg"):
        open_projections(parameters_config(parameters, smpl_npz), data, ["other.jpg"], "train")
    read_body_parameters.cache_clear()
    write_parameters(tmp_path, NAMES, betas=np.zeros((3, 12)))
    with pytest.raises(UserError, match=r"holds 12 betas, .* has 10"):
        open_projections(parameters_config(parameters, smpl_npz), data, NAMES, "train")
    read_body_parameters.cache_clear()
    write_parameters(tmp_path, NAMES, betas=None, phenotypes=np.full((3, 6), 0.5), pose=np.zeros((3, 104, 3)))
    with pytest.raises(UserError, match="holds phenotypes, which are Anny's"):
        open_projections(parameters_config(parameters, smpl_npz), data, NAMES, "train")


@pytest.fixture
def command(tmp_path: Path, smpl_npz: Path) -> Callable[..., None]:
    """The command line for the made-up body, without Ray."""
    parameters = write_parameters(tmp_path, [*NAMES, *NESTED])

    def run(*extra: str, **changes: Path) -> None:
        paths = {"parameters": parameters, "smpl": smpl_npz, "out": tmp_path / "out", **changes}
        given = [text for name, path in paths.items() for text in (f"--{name}", str(path))]
        main([*given, "--size", "64x32", "--workers", "0", *extra])

    return run


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {str(path.relative_to(folder)): np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))}


def test_drawn_ahead_is_what_is_drawn_on_demand(
    tmp_path: Path, smpl_npz: Path, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command()
    assert "40 pictures drawn, 0 kept" in capsys.readouterr().out
    names = [NESTED[1], NAMES[0]]
    ahead = open_folders(tmp_path / "out", names, images=tmp_path)
    data = DataConfig(height=64, width=32)
    demand = open_projections(parameters_config(tmp_path / "parameters.npz", smpl_npz), data, names, "train")
    for row in range(2):
        for view in VIEWS:
            assert_pictures_alike(ahead.load(row, view), demand.load(row, view))
        with pytest.raises(AssertionError, match="of the pixels differ"):
            assert_pictures_alike(ahead.load(row, 0), demand.load(row, 45))


def test_drawing_goes_on_where_it_was_stopped(
    tmp_path: Path,
    command: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command(out=tmp_path / "whole")
    saved, save = [], Image.Image.save

    def stop_in_the_middle(picture: Image.Image, path: Path, **options: Any) -> None:
        save(picture, path, **options)
        saved.append(path)
        if len(saved) == 11:
            path.write_bytes(path.read_bytes()[:40])
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", stop_in_the_middle)
    with pytest.raises(SystemExit) as stopped:
        command()
    assert stopped.value.code == 130 and "the same command goes on" in capsys.readouterr().err
    begun, whole = pictures(tmp_path / "out"), pictures(tmp_path / "whole")
    assert len(begun) == 10 and begun.keys() <= whole.keys()  # no half file, not even under another name
    assert {path.name for path in (tmp_path / "out" / "train").iterdir() if path.name.startswith(".")} == set()
    monkeypatch.undo()
    command()
    assert "30 pictures drawn, 10 kept" in capsys.readouterr().out
    finished = pictures(tmp_path / "out")
    assert finished.keys() == whole.keys()
    for name, picture in whole.items():
        assert_pictures_alike(finished[name], picture)
    command()
    assert "0 pictures drawn, 40 kept" in capsys.readouterr().out


def test_bad_command_lines_end_in_one_line(
    tmp_path: Path, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command()
    cases: list[tuple[list[str], dict[str, Path], str]] = [
        (["--size", "32x16"], {}, "projections of other parameters, another body or another size"),
        ([], {"parameters": tmp_path / "none.npz"}, "no parameter file"),
        ([], {"smpl": tmp_path / "none.npz"}, "no SMPL file"),
        ([], {"out": tmp_path / "parameters.npz"}, "cannot write to"),
        (["--size", "256"], {}, "is not HEIGHTxWIDTH"),
        (["--workers", "-1"], {}, "is not a whole number from 0"),
    ]
    for extra, changes, message in cases:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            command(*extra, **changes)
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_views_are_drawn_row_after_row() -> None:
    """A source keeps but the last body ready: view after view each would be built eight times."""
    asked: list[tuple[int, int]] = []

    def draw(row: int, view: int) -> np.ndarray:
        asked.append((row, view))
        return np.full((2, 3), row + view)

    drawn = drawn_by_view(draw, [4, 7], {90, 0})
    assert [row for row, _ in asked] == [4, 4, 7, 7] and len(set(asked)) == 4
    assert {view: pictures[:, 0, 0].tolist() for view, pictures in drawn.items()} == {0: [4, 7], 90: [94, 97]}
