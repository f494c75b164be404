"""What a run folder keeps of a run, and drops when the run goes back to a checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tracked_runs import STAGES, without_mlflow

from jgcl_ray.errors import UserError
from jgcl_ray.mlflow_mirror import METRICS, RunCard
from jgcl_ray.run_log import NullRunLog, git_commit, read_records, rewind


class TestRecords:
    def test_a_line_is_strict_json_and_there_at_once(self, tmp_path: Path) -> None:
        log = without_mlflow(tmp_path / "run")
        log.record("joint", 3, 17, {"loss": np.float32(0.5), "bad": float("nan"), "worse": torch.tensor(-math.inf)})
        line = (tmp_path / "run" / METRICS).read_text()
        assert line.endswith("\n") and "NaN" not in line and "Infinity" not in line
        assert json.loads(line) == {
            "stage": "joint", "epoch": 3, "step": 17, "loss": 0.5, "bad": None, "worse": None
        }  # fmt: skip
        log.close()

    @pytest.mark.parametrize("name", ["step", "stage", "epoch", "map@1", "", "a\nb"])
    def test_a_name_that_mlflow_would_refuse_is_refused_at_once(self, tmp_path: Path, name: str) -> None:
        with without_mlflow(tmp_path / "run") as log, pytest.raises(ValueError, match="cannot name a metric"):
            log.record("joint", 0, 0, {name: 1.0})

    @pytest.mark.parametrize(
        ("tail", "records"),
        [
            ("", 2),
            ('{"stage": "joint", "epoch": 0, "st', 2),
            ('{"stage": "joint", "epoch": 0, "step": 2, "x": 1.0}', 3),  # all but the end of the line
        ],
    )
    def test_a_half_written_last_line_is_mended(self, tmp_path: Path, tail: str, records: int) -> None:
        folder = tmp_path / "run"
        with without_mlflow(folder) as log:
            log.record("joint", 0, 0, {"x": 1.0})
            log.record("joint", 0, 1, {"x": 1.0})
        with (folder / METRICS).open("a") as file:
            file.write(tail)
        assert len(read_records(folder)) == records
        with without_mlflow(folder) as log:
            log.record("joint", 0, 9, {"x": 1.0})
        assert [record["step"] for record in read_records(folder)] == [*range(records), 9]
        assert (folder / METRICS).read_text().count("\n") == records + 1

    def test_a_damaged_line_in_the_middle_is_named(self, tmp_path: Path) -> None:
        (tmp_path / METRICS).write_text('{"stage": "joint", "epoch": 0, "step": 0}\n{"sta\n{}\n')
        with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 is not a record"):
            read_records(tmp_path)

    def test_the_null_log_takes_everything_and_leaves_nothing(self, tmp_path: Path) -> None:
        with NullRunLog() as log:
            log.record("joint", 0, 0, {"x": 1.0})
            log.picture("x", Image.new("RGB", (4, 4)), 0)
            log.file(tmp_path / "absent")
            log.model(tmp_path / "absent", 0)
            assert (log.run_id, log.page) == (None, "off")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("error", "status"), [(None, "FINISHED"), (KeyboardInterrupt, "KILLED"), (ZeroDivisionError, "FAILED")]
    )
    def test_how_a_run_ended(self, tmp_path: Path, error: type[BaseException] | None, status: str) -> None:
        folder = tmp_path / "run"
        try:
            with without_mlflow(folder):
                assert RunCard.read(folder).status == "RUNNING"
                if error:
                    raise error
        except (KeyboardInterrupt, ZeroDivisionError):
            pass
        assert RunCard.read(folder).status == status


class TestRewind:
    def run(self, folder: Path) -> list[tuple[str, int, int]]:
        """Two stages of two epochs of two steps; a record of labels before an epoch, of scores after it."""
        made = []
        with without_mlflow(folder) as log:
            step = 0
            for stage in ("warmup", "joint"):
                for epoch in range(2):
                    made.append((stage, epoch, step))
                    for _ in range(2):
                        step += 1
                        made.append((stage, epoch, step))
                    made.append((stage, epoch, step))
            for place in made:
                log.record(*place, {"x": 1 / 3})
        return made

    # Checkpoints of that run: in mid-epoch, or after an epoch; and how many records had been made by then.
    @pytest.mark.parametrize(
        ("stage", "epoch", "step", "kept"),
        [
            ("warmup", -1, 0, 0),
            ("warmup", 0, 1, 2),
            ("warmup", 0, 2, 4),  # after the epoch: the labels of the next, recorded at the same step, go
            ("warmup", 1, 3, 6),
            ("joint", -1, 4, 8),
            ("joint", 0, 5, 10),
            ("joint", 1, 8, 16),
        ],
    )
    def test_what_was_recorded_after_a_checkpoint_goes(
        self, tmp_path: Path, stage: str, epoch: int, step: int, kept: int
    ) -> None:
        made = self.run(tmp_path / "run")
        assert rewind(tmp_path / "run", STAGES, stage, epoch, step) == len(made) - kept
        records = read_records(tmp_path / "run")
        assert [(record["stage"], record["epoch"], record["step"]) for record in records] == made[:kept]
        assert all(record["x"] == 1 / 3 for record in records)
        assert rewind(tmp_path / "run", STAGES, stage, epoch, step) == 0

    def test_a_new_folder_has_nothing_to_drop(self, tmp_path: Path) -> None:
        assert rewind(tmp_path, STAGES, "joint", 0, 0) == 0

    def test_a_stage_out_of_order_is_an_error(self, tmp_path: Path) -> None:
        self.run(tmp_path / "run")
        with pytest.raises(UserError, match=r"metrics\.jsonl: records of stages warmup, .*; take those lines out"):
            rewind(tmp_path / "run", ("generator", "joint"), "joint", 0, 0)


def test_commit_is_read_from_a_checkout(tmp_path: Path) -> None:
    git, commit = tmp_path / ".git", "0123456789abcdef0123456789abcdef01234567"
    assert git_commit(tmp_path) is None
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert git_commit(tmp_path) is None  # no commit yet
    (git / "packed-refs").write_text(
        f"# pack-refs with: peeled\n{commit[::-1]} refs/heads/old\n{commit} refs/heads/main\n"
    )
    assert git_commit(tmp_path) == commit
    (git / "refs" / "heads" / "main").write_text(commit[::-1] + "\n")
    assert git_commit(tmp_path) == commit[::-1]

    tree = git / "worktrees" / "second"
    tree.mkdir(parents=True)
    (tree / "HEAD").write_text("ref: refs/heads/main\n")
    (tree / "commondir").write_text("../..\n")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / ".git").write_text(f"gitdir: {tree}\n")
    assert git_commit(tmp_path / "second") == commit[::-1]
    (tree / "HEAD").write_text(commit + "\n")
    assert git_commit(tmp_path / "second") == commit
