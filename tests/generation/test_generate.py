"""The command on a handful of photos with projections beside them, laid out as walkers are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import SMALL, write_run
from golden_weights import write_checkpoints
from PIL import Image
from safetensors.torch import save_file

from jgcl_ray.batches import NOVEL_VIEWS
from jgcl_ray.config import load_config
from jgcl_ray.data.transforms import denormalise_images, normalise_images, normalise_meshes
from jgcl_ray.errors import UserError
from jgcl_ray.generate import main
from jgcl_ray.generation import pictures as module
from jgcl_ray.generation.people import open_people
from jgcl_ray.generation.request import spread
from jgcl_ray.generation.scores import inception_features, read_true_views, score_views
from jgcl_ray.generation.similarity import frechet_distance
from jgcl_ray.generation.view_generator import ViewGenerator
from jgcl_ray.meshes.estimator import BodyEstimator
from jgcl_ray.meshes.projection_folders import VIEWS, view_folder
from jgcl_ray.models.networks import build_networks
from jgcl_ray.models.origin import halved
from jgcl_ray.models.textured_generator import TexturedGenerator
from jgcl_ray.training.checkpoint import Checkpoints, Position, Saved
from jgcl_ray.writer_lock import only_writer

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = [f"000{i}_c1s1_00000{i}_00.jpg" for i in range(5)]
SEEN = [1, 3, 4]  # rows with true views


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in place of people: photos in query/, projections for them, true views for some."""
    root, random = tmp_path_factory.mktemp("walkers"), np.random.default_rng(0)
    (root / "query").mkdir()
    for name in NAMES:
        Image.fromarray(random.integers(0, 256, (90, 45, 3), dtype=np.uint8)).save(root / "query" / name)
        for view in VIEWS:
            folder = view_folder(root / "meshes", "test", view)
            folder.mkdir(parents=True, exist_ok=True)
            grey = np.full((80, 40), 128, np.uint8)
            grey[20:60, 10:30] = random.integers(129, 256, (40, 20))
            Image.fromarray(grey).save(folder / Path(name).with_suffix(".png"))
    np.savez(
        root / "views.npz",
        names=np.array(["bounding_box_train/0001_c1s1_000001_00.jpg", *(f"query/{name}" for name in NAMES)]),
        photo_rows=np.array([0, *(row + 1 for row in SEEN)]),
        photo_views=np.array(NOVEL_VIEWS),
        photos=random.integers(0, 256, (1 + len(SEEN), 7, 80, 40, 3), dtype=np.uint8),
    )
    return root


def call(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


@torch.no_grad()
def by_hand(run: Path, walkers: Path, body: int, colours: int, view: int) -> np.ndarray:
    generator = ViewGenerator.load(run)
    photo = Image.open(walkers / "query" / NAMES[colours]).resize((40, 80), Image.Resampling.BICUBIC)
    mesh = view_folder(walkers / "meshes", "test", view) / NAMES[body].replace(".jpg", ".png")
    code = generator.encoder(normalise_images([np.asarray(photo)])).code
    structure = generator.structure_encoder(normalise_meshes([opened(mesh)]))
    return denormalise_images(generator.generator(structure, code))[0].numpy()


def test_views_are_the_generator_s_and_lie_as_projections_do(run: Path, walkers: Path, tmp_path: Path) -> None:
    call("--checkpoint", run, "--images", walkers / "query", "--out", tmp_path, "--gif", "--views", 4, "--first", 3)
    folders = {path.name for path in (tmp_path / "test").iterdir()}
    assert folders == {"render", "render_90", "render_180", "render_270"}
    for row, name in enumerate(NAMES):
        for view in (0, 90, 180, 270):
            path = view_folder(tmp_path, "test", view) / name.replace(".jpg", ".png")
            assert path.is_file() == (row < 3)
            if row < 3:
                difference = opened(path).astype(int) - by_hand(run, walkers, row, row, view)
                assert abs(difference).max() <= 1  # batches round in another order
    with Image.open(tmp_path / "turntables" / NAMES[0].replace(".jpg", ".gif")) as turntable:
        assert turntable.n_frames == 4 and turntable.size == (2 * 2 * 40, 2 * 80)
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > 5 * 96 and grid.height > 3 * 192
    assert not (tmp_path / "mix.png").exists() and not (tmp_path / "scores.json").exists()


def test_the_sheet_is_of_photos_from_all_over_the_folder() -> None:
    """Twelve tracks of ten crops each, sorted: not the first track alone."""
    rows = spread(120, 12)
    assert len(rows) == 12 and len({row // 10 for row in rows}) == 12 and rows[0] == 0 and rows[-1] == 119
    assert spread(3, 12) == [0, 1, 2] and spread(1, 12) == [0] and spread(0, 12) == []


def test_without_a_generator_photos_move_along_the_surface(walkers: Path, tmp_path: Path) -> None:
    small = ("data.height=80", "data.width=40", "meshes.source=upright")
    given = ("--surface", "--images", walkers / "query", "--out", tmp_path, "--views", 4, "--first", 2)
    call(*given, "--gif", *small)
    photo = np.asarray(Image.open(walkers / "query" / NAMES[0]).resize((40, 80), Image.Resampling.BICUBIC))
    views = [opened(view_folder(tmp_path, "train", v) / NAMES[0].replace(".jpg", ".png")) for v in (0, 90, 180, 270)]
    np.testing.assert_array_equal(views[0], photo)
    assert all(view.shape == (80, 40, 3) and (view != photo).any(axis=2).mean() > 0.1 for view in views[1:])
    with Image.open(tmp_path / "turntables" / NAMES[1].replace(".jpg", ".gif")) as turntable:
        assert turntable.n_frames == 4
    assert (tmp_path / "grid.png").is_file()
    assert not (view_folder(tmp_path, "train", 90) / NAMES[2].replace(".jpg", ".png")).exists()


def test_views_along_the_surface_are_refined_drafts(walkers: Path, tmp_path: Path) -> None:
    given = ("--surface", "--images", walkers / "query", "--views", 2, "--first", 1)
    small = ("data.height=80", "data.width=40", "meshes.source=upright")
    call(*given, "--out", tmp_path / "views", *small)
    call(*given, "--out", tmp_path / "drafts", "--drafts", *small)
    torch.manual_seed(0)
    unlearnt = tmp_path / "unlearnt.safetensors"
    save_file(halved(TexturedGenerator()), unlearnt)
    call(*given, "--out", tmp_path / "unlearnt", "--views-from", unlearnt, *small)
    name = NAMES[0].replace(".jpg", ".png")
    views, drafts, same = (
        opened(view_folder(tmp_path / kind, "train", 180) / name) for kind in ("views", "drafts", "unlearnt")
    )
    assert np.array_equal(drafts, same)  # what has learnt nothing adds nothing
    changed = np.abs(views.astype(int) - drafts).mean()
    assert 0.5 < changed < 60, changed


def test_of_the_first_photos_alone_bodies_are_estimated(
    walkers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimated: list[list[str]] = []

    def estimate(self: BodyEstimator, folder: Path, names: Sequence[str], watch: object) -> None:
        estimated.append(list(names))
        raise UserError("enough")

    monkeypatch.setattr(BodyEstimator, "estimate", estimate)
    monkeypatch.setenv("JGCL_RAY_CACHE", str(tmp_path / "cache"))
    for count in (2, 99, 0):
        with pytest.raises(SystemExit):
            call("--surface", "--images", walkers / "query", "--out", tmp_path / "out", "--first", count)
    assert estimated == [NAMES[:2], NAMES, NAMES[:1]]


@pytest.mark.slow
def test_ray_workers_draw_the_same_pictures(walkers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of two photos, on two workers and in this process: the same files and the same sheet."""
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr(module, "BATCH", 2)
    given = ("--surface", "--images", walkers / "query", "--views", 4)
    small = ("data.height=80", "data.width=40", "meshes.source=upright")
    call(*given, "--out", tmp_path / "here", "--workers", 0, *small)
    call(*given, "--out", tmp_path / "ray", "--workers", 2, *small)
    here, ray = (
        {path.relative_to(tmp_path / place): path for path in (tmp_path / place).rglob("*.png")}
        for place in ("here", "ray")
    )
    assert here.keys() == ray.keys() and len(here) == 5 * 4 + 1  # and the sheet
    for name, path in here.items():
        difference = opened(path).astype(int) - opened(ray[name])
        assert abs(difference).max() <= 1, name  # workers may have other numbers of threads


def test_the_surface_needs_bodies_a_fitting_size_and_no_score(
    walkers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ("meshes.source=folders", f"meshes.root={walkers / 'meshes'}", "data.height=80", "data.width=40")
    cases = {
        "do not tell which point": folders,
        "need a run's generator": ("--score",),
        "--drafts are not refined": ("--drafts", "--views-from", "mine.safetensors"),
        "mine.safetensors": ("--views-from", "mine.safetensors", "meshes.source=upright"),
        "(--drafts) may have any size": ("meshes.source=upright", "data.height=84", "data.width=40"),
    }
    for message, others in cases.items():
        with pytest.raises(SystemExit) as exit_:
            call("--surface", "--images", walkers / "query", "--out", tmp_path, *others)
        error = capsys.readouterr().err
        assert exit_.value.code == 2 and message in error and "Traceback" not in error, error
    with pytest.raises(SystemExit):
        call("--checkpoint", tmp_path, "--images", walkers / "query", "--out", tmp_path, "--drafts")
    assert "--drafts and --views-from are for --surface" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        call("--checkpoint", "run", "--images", "photos", "--out", "views", "--workers", 2)
    assert "--workers is for --surface" in capsys.readouterr().err


def test_files_drawn_here_serve_as_projections_layout(run: Path, walkers: Path, tmp_path: Path) -> None:
    call("--checkpoint", run, "--images", walkers / "query", "--out", tmp_path)
    again = load_config(None, ["meshes.source=folders", f"meshes.root={tmp_path}", "data.height=80", "data.width=40"])
    assert open_people(walkers / "query", again).meshes([0, 1], [45])[45].shape == (2, 1, 80, 40)


def test_photos_that_share_a_stem_have_pictures_of_their_own(run: Path, walkers: Path, tmp_path: Path) -> None:
    photos, random = tmp_path / "photos", np.random.default_rng(1)
    photos.mkdir()
    for name in ("a.jpg", "a.png", "b.jpg"):
        Image.fromarray(random.integers(0, 256, (80, 40, 3), dtype=np.uint8)).save(photos / name)
    small = ("data.height=80", "data.width=40", "meshes.source=upright")
    call("--surface", "--images", photos, "--out", tmp_path / "out", "--views", 1, "--gif", *small)
    drawn = view_folder(tmp_path / "out", "train", 0)
    assert sorted(path.name for path in drawn.iterdir()) == ["a.jpg.png", "a.png.png", "b.png"]
    for picture, name in (("a.jpg.png", "a.jpg"), ("a.png.png", "a.png"), ("b.png", "b.jpg")):
        np.testing.assert_array_equal(opened(drawn / picture), opened(photos / name))
    turning = sorted(path.name for path in (tmp_path / "out" / "turntables").iterdir())
    assert turning == ["a.jpg.gif", "a.png.gif", "b.gif"]


def test_only_walkers_with_projections_are_opened(walkers: Path, tmp_path: Path) -> None:
    root = tmp_path / "walkers"
    shutil.copytree(walkers, root)
    for view in VIEWS:
        for row in (0, 2):
            (view_folder(root / "meshes", "test", view) / NAMES[row].replace(".jpg", ".png")).unlink()
    config = load_config(None, ["data.height=80", "data.width=40"])
    with pytest.warns(UserWarning, match="3 of 5 photos have projections"):
        people = open_people(root / "query", config)
    assert people.names == tuple(NAMES[row] for row in (1, 3, 4))
    assert read_true_views(people).rows.tolist() == [0, 1, 2]
    shutil.rmtree(root / "meshes")
    with pytest.raises(UserError):
        open_people(root / "query", config)


def test_mix_goes_from_one_appearance_to_the_other(
    run: Path,
    walkers: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    drawn = []
    draw = ViewGenerator.draw
    monkeypatch.setattr(ViewGenerator, "draw", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    given = ("--checkpoint", run, "--images", walkers / "query", "--out", tmp_path, "--first", 0)
    call(*given, "--mix", NAMES[2], walkers / "query" / NAMES[4], "--gif", "--views", 2)
    monkeypatch.undo()
    assert len(drawn) == 2 and drawn[0].shape == (7, 80, 40, 3)
    for view, pictures in zip((0, 180), drawn, strict=True):
        for place, colours in ((0, 2), (-1, 4)):
            expected = by_hand(run, walkers, 2, colours, view)
            assert abs(pictures[place].numpy().astype(int) - expected).max() <= 1
    with Image.open(tmp_path / "mix.gif") as blend:
        assert blend.n_frames == 12
    assert (tmp_path / "mix.png").is_file() and not (tmp_path / "grid.png").exists()
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"look at {tmp_path / 'mix.png'}")


def test_scores_of_a_copy_are_those_of_the_photos(
    run: Path, walkers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("--checkpoint", run, "--images", walkers / "query", "--out", tmp_path, "--first", 0, "--score")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["images"], scores["pictures"]) == (3, 21)
    truth = np.load(walkers / "views.npz")["photos"][1:]
    errors = []
    for i, row in enumerate(SEEN):
        photo = Image.open(walkers / "query" / NAMES[row]).resize((40, 80), Image.Resampling.BICUBIC)
        pixels = np.asarray(photo)[None] / 255.0 - truth[i] / 255.0
        errors.append([np.square(pixels).mean((1, 2, 3)), np.square(pixels[:, 20:60, 10:30]).mean((1, 2, 3))])
    overall, body = (-10 * np.log10(np.array(errors))).mean((0, 2))
    assert scores["copy"]["psnr"] == pytest.approx(overall, abs=1e-3)
    assert scores["copy"]["psnr_body"] == pytest.approx(body, abs=1e-3)
    by_view = [scores["by_view"][str(view)]["copy"]["psnr"] for view in NOVEL_VIEWS]
    assert np.mean(by_view) == pytest.approx(overall, abs=1e-3)
    assert "21 views of 3 photos" in capsys.readouterr().out


def test_the_truth_itself_scores_best(run: Path, walkers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = ViewGenerator.load(run)
    people = open_people(walkers / "query", generator.config)
    truth = read_true_views(people)
    assert truth.rows.tolist() == SEEN
    answers = iter(torch.from_numpy(truth.pictures).unbind(1))
    monkeypatch.setattr(ViewGenerator, "draw", lambda *given: next(answers))

    def features(pictures: np.ndarray) -> np.ndarray:
        return pictures.mean((1, 2))

    scores = score_views(generator, people, truth, features, "mean colour")
    found = scores.generated
    assert (found.psnr, found.psnr_body, found.ssim) == pytest.approx((100, 100, 1))
    assert found.fid == pytest.approx(0, abs=1e-6)
    photos = np.repeat(features(people.pixels(SEEN)), 7, axis=0)
    true = features(truth.pictures.reshape(-1, 80, 40, 3))
    assert scores.copy.fid == pytest.approx(frechet_distance(photos, true))


class Inception(torch.nn.Module):
    """The interface of the published file."""

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert return_features
        return images.float().mean((2, 3))


def test_inception_comes_from_a_torchscript_file(tmp_path: Path) -> None:
    torch.jit.script(Inception()).save(tmp_path / "inception.pt")
    pictures = np.random.default_rng(0).integers(0, 256, (4, 10, 8, 3), dtype=np.uint8)
    found = inception_features(tmp_path / "inception.pt", torch.device("cpu"))(pictures)
    np.testing.assert_allclose(found, pictures.mean((1, 2)), rtol=1e-5)
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UserError, match="no TorchScript file"):
        inception_features(tmp_path / "text.pt", torch.device("cpu"))


def test_a_checkpoint_of_the_warm_up_is_passed_over(tmp_path: Path) -> None:
    best = write_run(tmp_path / "run", position=Position(stage=0, epoch=5))
    with pytest.raises(UserError, match="generator is untrained"):
        ViewGenerator.load(best)
    learns_by_photos = (*SMALL, "run.stages=[joint]", "joint.recipe=cluster_contrast", "run.init_from=rendered")
    without = load_config(None, learns_by_photos)
    saved = Saved(Position(stage=0, epoch=2), without.model_dump(mode="json"), {})
    Checkpoints(tmp_path / "by_photos" / "checkpoints").save("by_photos", build_networks(without), saved)
    with pytest.raises(UserError, match=r"generator is untrained.*--surface"):
        ViewGenerator.load(tmp_path / "by_photos" / "checkpoints" / "by_photos")
    config = load_config(None, SMALL)
    torch.manual_seed(1)
    networks = build_networks(config)
    saved = Saved(Position(stage=1, batch=3), config.model_dump(mode="json"), {})
    Checkpoints(best / "checkpoints").save("trained", networks, saved)
    assert torch.equal(ViewGenerator.load(best).generator.to_image.weight, networks.generator.to_image.weight)


def test_official_checkpoints_draw_too(walkers: Path, tmp_path: Path) -> None:
    write_checkpoints(tmp_path)
    generator = ViewGenerator.load(tmp_path, overrides=["data.height=80", "data.width=40"])
    people = open_people(walkers / "query", generator.config)
    assert generator.draw(people.meshes([0], [45])[45], generator.codes(people.images([0]))).shape == (1, 80, 40, 3)
    (tmp_path / "id_1.pt").unlink()
    with pytest.raises(UserError, match=r"id_1\.pt, is not beside it"):
        ViewGenerator.load(tmp_path)


def test_mistakes_are_one_line(run: Path, walkers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = walkers / "query"
    alone = tmp_path / "alone" / "photos"
    shutil.copytree(photos, alone)
    cases = {
        "projections are missing": (alone, tmp_path / "out"),
        "no such folder": (tmp_path / "absent", tmp_path / "out"),
        "must not lie in one another": (photos, photos / "out"),
        "not among the 5 images": (photos, tmp_path / "out", "--mix", NAMES[0], "nobody.jpg"),
        "only walkers have true views": (alone, tmp_path / "out", "--score", f"meshes.root={walkers / 'meshes'}"),
        "--inception is for --score": (photos, tmp_path / "out", "--inception", "x.pt"),
        "no such field": (photos, tmp_path / "out", "meshes.sorce=folders"),
    }
    for message, (images, out, *others) in cases.items():
        with pytest.raises(SystemExit) as exit_:
            call("--checkpoint", run, "--images", images, "--out", out, *others)
        error = capsys.readouterr().err
        assert exit_.value.code == 2 and message in error and "Traceback" not in error, error


def test_two_commands_do_not_draw_into_one_folder(
    run: Path, walkers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--checkpoint", run, "--images", walkers / "query", "--out", tmp_path / "out", "--first", 1]
    with only_writer(tmp_path / "out"), pytest.raises(SystemExit) as ended:
        call(*arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "writes there since" in error and "give another --out" in error
    assert not list((tmp_path / "out").iterdir())
    call(*arguments)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["grid.png", "test"]
