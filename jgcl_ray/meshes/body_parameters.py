"""Per-image body parameters in an npz, as mesh estimators give them.

Keys (N images):
- `names` (N,): the images' paths relative to the split's image folder, with forward slashes, as text.
- `pose` (N, 24, 3) or (N, 72): axis-angle, radians; or (N, 24, 3, 3): rotation matrices. The root first; its rotation
  turns the body into the camera's axes (x right, y down, z forward), as HMR, SPIN, 4DHumans and their kin give it.
- `betas` (N, 10), or as many as the SMPL file has.
- `camera` (N, 3): weak perspective s, tx, ty; a point projects to s * (x + tx, y + ty), where 0 is the image's centre
  and 1 half of its longer side.
- `size` (N, 2), optional: height and width of the image that the parameters belong to. Without it images
  have the proportions of the drawn pictures. A picture always covers its image exactly.
- `up` (N, 3), optional: the vertical in the camera's axes, about which a body turns to its other views; without it
  the image's own vertical, right for level cameras.

For Anny instead of SMPL: `phenotypes` (N, 6) in [0, 1] instead of `betas` (AnnyBody.PHENOTYPES), and a `pose` of its
104 joints.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.spatial.transform import Rotation

from jgcl_ray.atomic import replacing
from jgcl_ray.errors import UserError
from jgcl_ray.meshes.body_kinds import BODY_KINDS
from jgcl_ray.meshes.cameras import Camera
from jgcl_ray.meshes.projection_folders import png_names
from jgcl_ray.ownership import AUTHOR, is_body_parameters
from jgcl_ray.places import check_file
from jgcl_ray.stored_files import UNREADABLE, in_short
from jgcl_ray.wording import counted

LARGEST = 1e6  # of any number here: of pixels, image heights, betas; beyond there is no body and no picture
SHAPE_KEYS = [kind.shape_key for kind in BODY_KINDS.values()]


@dataclass(frozen=True, eq=False)
class BodyParameters:
    """Bodies of N images."""

    names: tuple[str, ...]
    body: str  # one of BODY_KINDS
    shape: np.ndarray  # (N, S) float32: betas, phenotypes
    pose: np.ndarray  # (N, J, 3, 3) float32
    camera: np.ndarray  # (N, 3) float64: s, tx, ty
    size: np.ndarray | None  # (N, 2) float64: height and width of the images, pixels
    up: np.ndarray | None = None  # (N, 3) float64: the vertical in the camera's axes

    @cached_property
    def pictures(self) -> list[str]:
        """The names under which the images' projections are written, N."""
        return png_names(self.names)

    def camera_of(self, row: int, height: int, width: int) -> Camera:
        """The camera that took the image in `row`, its picture resized to height x width."""
        image_height, image_width = (height, width) if self.size is None else self.size[row]
        scale, *shift = self.camera[row]
        camera = Camera.weak_perspective(scale, (shift[0], shift[1]), image_height, image_width)
        return camera.resized(height / image_height, width / image_width)

    def rows_of(self, names: Sequence[str], source: Path) -> np.ndarray:
        """The row here of each image of a data set, (N,) int64; UserError where one has none."""
        rows = {name: row for row, name in enumerate(self.names)}
        if absent := [name for name in names if name not in rows]:
            raise UserError(
                f"{source}: no parameters for {len(absent):,} of {counted(len(names), 'image')}, first "
                f"{', '.join(absent[:3])}; its names must be paths relative to the image folder, and begin with "
                f"{', '.join(self.names[:2])}"
            )
        return np.array([rows[name] for name in names], np.int64)


@lru_cache(maxsize=2)
def read_body_parameters(path: Path) -> BodyParameters:
    """The parameters in an npz; UserError names the key that is missing or wrong, and the first such image."""
    arrays = _load(path)
    bodies = [name for name, kind in BODY_KINDS.items() if kind.shape_key in arrays]
    missing = [key for key in ("names", "pose", "camera") if key not in arrays]
    if missing or len(bodies) != 1:
        shapes = " or ".join(f"{kind.shape_key} ({kind.title})" for kind in BODY_KINDS.values())
        wanted = f"names, pose, camera, and either {shapes}"
        raise UserError(f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}; expected {wanted}")
    (body,) = bodies
    kind = BODY_KINDS[body]
    shape = arrays[kind.shape_key]
    names = _names(path, arrays["names"])
    count = len(names)
    _expect(path, kind.shape_key, shape, names, [(count, kind.shapes)])
    _expect(path, "camera", arrays["camera"], names, [(count, 3)])
    if (bad := np.flatnonzero(arrays["camera"][:, 0] <= 0)).size:
        raise UserError(f"{path}: camera of {names[bad[0]]} has a scale that is not positive ({bad.size:,} such)")
    size = arrays.get("size")
    if size is not None:
        _expect(path, "size", size, names, [(count, 2)])
        if (bad := np.flatnonzero((size < 1).any(axis=1))).size:
            raise UserError(f"{path}: size of {names[bad[0]]} is below one pixel")
    up = arrays.get("up")
    if up is not None:
        _expect(path, "up", up, names, [(count, 3)])
        if (bad := np.flatnonzero(np.linalg.norm(up, axis=1) < 1e-6)).size:
            raise UserError(f"{path}: up of {names[bad[0]]} has no direction ({bad.size:,} such)")
    return BodyParameters(
        names,
        body,
        shape.astype(np.float32),
        _rotations(path, arrays["pose"], names, kind.joints),
        arrays["camera"].astype(np.float64),
        None if size is None else size.astype(np.float64),
        None if up is None else up.astype(np.float64),
    )


def check_parameters_file(path: Path, option: str) -> None:
    """UserError where `write_body_parameters` cannot write to `path`."""
    if path.suffix != ".npz":
        raise UserError(f"{option} {path}: the name of a file of body parameters must end in .npz")
    check_file(path, option, is_body_parameters)


def write_body_parameters(parameters: BodyParameters, path: Path, **besides: np.ndarray) -> None:
    """Write an npz that `read_body_parameters` reads; `besides`: arrays for others, under their own keys."""
    if path.suffix != ".npz":
        raise UserError(f"{path}: the name of a file of body parameters must end in .npz")
    shape_key = BODY_KINDS[parameters.body].shape_key
    arrays = {shape_key: parameters.shape, "pose": parameters.pose, "camera": parameters.camera, **besides}
    arrays |= {key: array for key in ("size", "up") if (array := getattr(parameters, key)) is not None}
    arrays[AUTHOR] = np.array("jgcl_ray")
    with replacing(path) as partial:
        np.savez(partial, allow_pickle=False, names=np.array(parameters.names), **arrays)


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"no parameter file {path}: an npz with names, pose, betas and camera is expected")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is not an npz: save with numpy.savez(path, names=..., pose=..., ...)")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {
                key: archive[key] for key in ("names", "pose", "camera", "size", "up", *SHAPE_KEYS) if key in archive
            }
    except UNREADABLE as error:
        raise UserError(
            f"{path} cannot be read as an npz of plain arrays ({in_short(error)}); restore it, or make it again"
        ) from None


def _names(path: Path, names: np.ndarray) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind != "U" or not len(names):
        raise UserError(f"{path}: names is {names.dtype} {names.shape}, expected text of shape (N,), N > 0")
    listed = tuple(names.tolist())
    seen: set[str] = set()
    for name in listed:
        pure = PurePosixPath(name)
        if not pure.name or pure.is_absolute() or ".." in pure.parts or any(sign in name for sign in "\\\0"):
            raise UserError(f"{path}: {name!r} in names is not a path relative to the image folder, with / in it")
        if str(pure) in seen:
            raise UserError(f"{path}: names holds {name} twice")
        seen.add(str(pure))
    return listed


def _expect(
    path: Path, key: str, array: np.ndarray, names: tuple[str, ...], shapes: Sequence[tuple[int | None, ...]]
) -> None:
    def fits(shape: tuple[int | None, ...]) -> bool:
        return array.ndim == len(shape) and all(
            want in (None, have) for want, have in zip(shape, array.shape, strict=True)
        )

    if array.dtype.kind not in "iuf" or not any(fits(shape) for shape in shapes):
        wanted = " or ".join(str(shape).replace("None", "any") for shape in shapes)
        raise UserError(f"{path}: {key} is {array.dtype} {array.shape}, expected numbers of shape {wanted}")
    bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
    if bad.size:
        raise UserError(f"{path}: {key} of {names[bad[0]]} is not finite ({bad.size:,} such images)")
    bad = np.flatnonzero((np.abs(array) > LARGEST).reshape(len(array), -1).any(axis=1))
    if bad.size:
        raise UserError(f"{path}: {key} of {names[bad[0]]} is beyond {LARGEST:g} ({bad.size:,} such images)")


def _rotations(path: Path, pose: np.ndarray, names: tuple[str, ...], joints: int) -> np.ndarray:
    count = len(names)
    _expect(path, "pose", pose, names, [(count, joints, 3), (count, joints * 3), (count, joints, 3, 3)])
    if pose.ndim < 4:
        matrices = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix()
        return matrices.reshape(count, joints, 3, 3).astype(np.float32)
    pose = pose.astype(np.float32)
    distance = np.abs(pose @ pose.swapaxes(2, 3) - np.eye(3, dtype=np.float32)).max(axis=(1, 2, 3))
    wrong = (distance > 0.01) | (np.linalg.det(pose) < 0).any(axis=1)
    if (bad := np.flatnonzero(wrong)).size:
        raise UserError(
            f"{path}: pose of {names[bad[0]]} is not made of rotation matrices ({bad.size:,} such images)"
        )
    return pose
