"""Checkpoints kept a second time, on object storage or another disk: whatever pyarrow or fsspec has an address for.

Below URI/RUN each checkpoint has a folder, as in the run folder; `checkpoint.json`, which makes it one, comes last.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from jgcl_ray.errors import UserError
from jgcl_ray.places import check_folder

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

logger = logging.getLogger(__name__)

CHUNK = 16 * 2**20  # bytes
_NAME = re.compile(r"step\d+(-stage\d+-[a-z]+-epoch\d+)?")


def is_checkpoint_name(name: str) -> bool:
    """Whether a folder is called as training.checkpoint.checkpoint_name calls them: copies under others stay."""
    return _NAME.fullmatch(name) is not None


def by_age(name: str) -> list[int]:
    """For sorting folders of checkpoints: step, stage and epoch, however many digits they have."""
    return [int(number) for number in re.findall(r"\d+", name)]


class RemoteFolder:
    """The folder of one run at `uri` (s3://BUCKET/FOLDER, gs://..., file:///FOLDER); credentials as the storage's own
    tools find them, in the environment, and so the address of an S3 that is not Amazon's (AWS_ENDPOINT_URL).
    """

    def __init__(self, uri: str, run: str, last: str) -> None:
        """last: name of the file that makes a folder complete."""
        folder, mark, options = uri.partition("?")  # s3://BUCKET/FOLDER?region=...
        self.uri, self._last = f"{folder.rstrip('/')}/{run}{mark}{options}", last
        self._opened: tuple[FileSystem, str] | None = None

    def check_writable(self) -> None:
        """UserError where nothing can be written there; tried by a small file, which goes at once.

        Nothing is left behind on a local disk; elsewhere the empty folder may stay.
        """
        from pyarrow.fs import LocalFileSystem

        try:
            files, root = self._open()
            if isinstance(files, LocalFileSystem):
                check_folder(Path(root), "checkpoints.mirror:")
                return
            files.create_dir(root, recursive=True)
            trial = f"{root}/.{os.getpid()}.trial"
            with files.open_output_stream(trial) as stream:
                stream.write(b"trial")
            files.delete_file(trial)
        except OSError as error:
            raise UserError(
                f"checkpoints.mirror: {self.uri} cannot be written to ({error}); give another address, or correct "
                "the credentials in the environment"
            ) from None

    def send(self, folder: Path, keep: set[str]) -> None:
        """Send a complete local folder, and remove all other checkpoints there but those in `keep`.

        What cannot be sent is logged as a warning: the run does not end because of it, the next call tries anew.
        """
        try:
            files, root = self._open()
            self._copy(folder, files, f"{root}/{folder.name}")
            for name in set(self._names()) - keep - {folder.name}:
                files.delete_dir(f"{root}/{name}")
        except OSError as error:
            logger.warning("%s: the copy of %s failed (%s); the run goes on", self.uri, folder.name, error)

    def complete(self) -> list[str]:
        """Names of the folders that are there with all their files, in ascending order; UserError without access."""
        try:
            files, root = self._open()
            return [name for name in self._names() if _is_file(files, f"{root}/{name}/{self._last}")]
        except OSError as error:
            raise UserError(f"checkpoints.mirror: {self.uri} cannot be read ({error})") from None

    def read_last(self, name: str) -> bytes:
        """The last file of a folder; UserError without access."""
        try:
            files, root = self._open()
            with files.open_input_stream(f"{root}/{name}/{self._last}") as stream:
                return bytes(stream.readall())
        except OSError as error:
            raise UserError(f"checkpoints.mirror: {self.uri}/{name} cannot be read ({error})") from None

    def bring(self, name: str, into: Path) -> Path:
        """Copy a folder from there to `into`/NAME, which appears when it is complete."""
        files, root = self._open()
        target, partial = into / name, into / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            for path in _list(files, f"{root}/{name}"):
                with files.open_input_stream(path) as source, (partial / Path(path).name).open("wb") as copy:
                    while block := source.read(CHUNK):
                        copy.write(block)
        except OSError as error:
            raise UserError(f"checkpoints.mirror: {self.uri}/{name} cannot be read ({error})") from None
        partial.rename(target)
        return target

    def _copy(self, folder: Path, files: FileSystem, target: str) -> None:
        if _is_file(files, f"{target}/{self._last}"):  # a checkpoint made anew, after a loss: not complete meanwhile
            files.delete_file(f"{target}/{self._last}")
        files.create_dir(target, recursive=True)
        for path in sorted(folder.iterdir(), key=lambda path: path.name == self._last):
            with path.open("rb") as source, files.open_output_stream(f"{target}/{path.name}") as copy:
                while block := source.read(CHUNK):
                    copy.write(block)

    def _names(self) -> list[str]:
        """Of checkpoints' folders; whatever else lies there is not ours."""
        files, root = self._open()
        folders = {PurePosixPath(path).parent for path in _list(files, root, recursive=True)}
        beside = {folder.name for folder in folders if str(folder.parent).strip("/") == root.strip("/")}
        return sorted((name for name in beside if is_checkpoint_name(name)), key=by_age)

    def _open(self) -> tuple[FileSystem, str]:
        if self._opened is None:
            self._opened = _file_system(self.uri)
        return self._opened


def _file_system(uri: str) -> tuple[FileSystem, str]:
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem
    from pyarrow.lib import ArrowInvalid

    try:
        files, path = FileSystem.from_uri(uri)
    except ArrowInvalid:  # an address that only fsspec may know
        import fsspec

        try:
            known, path = fsspec.core.url_to_fs(uri)
        except (ValueError, ImportError) as error:
            raise UserError(f"checkpoints.mirror={uri}: no such storage ({error})") from None
        files = PyFileSystem(FSSpecHandler(known))
    return files, path.rstrip("/")


def _list(files: FileSystem, folder: str, recursive: bool = False) -> list[str]:
    from pyarrow.fs import FileSelector

    found = files.get_file_info(FileSelector(folder, allow_not_found=True, recursive=recursive))
    return [info.path for info in found if info.is_file]


def _is_file(files: FileSystem, path: str) -> bool:
    return bool(files.get_file_info(path).is_file)
