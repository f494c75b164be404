"""Every bad configuration ends in one line that names the key, the value and what is allowed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from jgcl_ray.config import Config, configs_folder, describe, find_config, load_config, to_yaml, validate
from jgcl_ray.errors import UserError


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data.hieght=128", ["data.hieght=128", "no such field", "did you mean data.height?"]),
        ("dataa=1", ["dataa=1", "no such field", "data"]),
        ("data.height=tall", ["data.height='tall'", "valid integer"]),
        ("data.height=2", ["data.height=2", "greater than or equal to 16"]),
        ("data.height=nan", ["data.height='nan'", "integer"]),
        ("data.name=market", ["data.name='market': no such data set", "known: market1501, dukemtmc_reid"]),
        ("data.name=Market1501", ["no such data set; did you mean market1501? known: market1501, "]),
        ("encoder.backbone=resnet", ["encoder.backbone='resnet': no such backbone; did you mean resnet"]),
        ("meshes.renderer=opengl", ["no such renderer; known: auto, embree, pytorch3d"]),
        ("run.name=../x", ["run.name='../x': a name of letters, digits, _, . and -"]),
        ("checkpoints.mirror=nowhere", ["checkpoints.mirror='nowhere': an address such as s3://"]),
        ("joint.epochs=", ["joint.epochs=: no value; give one, or leave joint.epochs out"]),
        ("joint.epochs=null", ["joint.epochs=null: input should be a valid integer"]),
        ("data=3", ["data=3", "dictionary"]),
        ("run.name.first=x", ["run.name", "field, not a section"]),
        ("data.height", ["'data.height'", "section.field=value"]),
        ("data.name=[", ["data.name='['", "market1501"]),
        ("data.height=[", ["data.height=[", "not YAML"]),
        ("data.height={a: 1, a: 2}", ["line 1: a stands a second time"]),
        ("data.height=2024-01-01", ["data.height='2024-01-01'", "valid integer"]),
    ],
)
def test_bad_override_is_one_line(override: str, says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_config("walkers", ["run.name=x", override])
    message = str(caught.value)
    assert "\n" not in message
    for part in says:
        assert part in message


def test_an_empty_file_is_no_config(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(UserError, match=r"mine\.yaml: an empty file, expected sections with fields"):
        load_config(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text("# all defaults\n")
    assert load_config(tmp_path / "mine.yaml") == load_config(None)


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r": a folder; give a YAML file, or the name of a shipped one"):
        load_config(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match=f": a folder; give {tmp_path}/config.yaml$"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    "text", ["{identity}_c{camera}_*.jpg", "**/{camera}/{identity}/*", "{camera}{identity}", "[a] b"]
)
def test_text_needs_no_quotes_of_yaml(text: str) -> None:
    assert load_config(None, [f"data.pattern={text}"]).data.pattern == text
    assert load_config(None, [f'data.pattern="{text}"']).data.pattern == text
    assert load_config(None, ["data.pattern=null"]).data.pattern is None


@pytest.mark.parametrize(
    "text",
    ["/data/crops #1", "2024", "12:30", "2024-01-01", "007", "1e3", "yes", "null #", "'a' b", "a: b", "!x", " x"],
)
def test_text_from_the_shell_stands_as_it_is(text: str) -> None:
    config = load_config(None, [f"data.root={text}", f"data.pattern={text}", f"tracking.experiment={text}"])
    assert (config.data.root, config.data.pattern) == (Path.cwd() / text, text)
    assert config.tracking.experiment == text


def test_words_of_yaml_where_a_text_may_be_missing_or_a_name() -> None:
    assert load_config(None, ["run.name=007"]).run.name == "007"
    assert load_config(None, ["run.resume=auto"]).run.resume == "auto"
    assert load_config(None, ["run.resume=2024"]).run.resume == Path.cwd() / "2024"
    assert load_config(None, ["data.root=x", "data.root="]).data.root is None


def test_key_given_twice_is_named_with_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: {height: 96}\njoint:\n  epochs: 1\ndata: {width: 48}\n")
    with pytest.raises(UserError, match=r"mine.yaml: line 4: data stands a second time, first in line 1; keep one"):
        load_config(file)
    file.write_text("joint:\n  epochs: 1\n  epochs: 2\n")
    with pytest.raises(UserError, match=r"line 3: epochs stands a second time, first in line 2"):
        load_config(file)


def test_alias_is_a_copy(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("generation: &s {epochs: 5}\njoint: *s\n")
    config = load_config(file, ["joint.epochs=1"])
    assert (config.generation.epochs, config.joint.epochs) == (5, 1)


@pytest.mark.parametrize("text", ["2024-01-01", "12:30", "007", "1_000", "0x10", "1.10", "1e3", "no", "on", "y"])
def test_word_in_a_file_is_text_as_it_stands(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"tracking: {{experiment: {text}}}\ndata: {{root: {text}, pattern: {text}}}\n")
    config = load_config(file)
    assert (config.tracking.experiment, config.data.pattern) == (text, text)
    assert config.data.root == Path.cwd() / text


def test_words_for_numbers_and_switches_are_those_of_people(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: {batch_size: 010, cache: yes, flip_probability: 0.50}\noptim: {encoder_lr: 1e-4}\n")
    config = load_config(file)
    assert (config.data.batch_size, config.data.cache, config.data.flip_probability) == (10, True, 0.5)
    assert config.optim.encoder_lr == 1e-4
    assert type(config.data.flip_probability) is float, "to_yaml and Ray take it"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("data: {height: 1:20}", "data.height='1:20'"),
        ("data: {batch_size: true}", "data.batch_size=True: input should be a number"),
        ("run: {seed: !!bool maybe}", "not YAML"),
        ("run: {seed: !!int ''}", "not YAML"),
        ("run: {seed: !!timestamp x}", "not YAML"),
        (f"run: {{seed: {'9' * 5000}}}", "not YAML"),
        ("data: {root: ~nobody_here/x}", "~nobody_here"),
        ('data: {root: "a\\0b"}', "no character of number 0"),
        ("run: {root: ''}", "should be a path"),
        ("run: {log_every: 99999999999}", "run.log_every=99999999999: input should be at most 4,294,967,296"),
        ("data: {height: 5000}", "less than or equal to 4096"),
        (f"run: {{nmae: {['x' * 500] * 50}}}", "run.nmae="),
        ("run: &a {nmae: *a}", "run.nmae="),
    ],
)
def test_file_with_a_bad_value_is_one_short_line(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(UserError) as caught:
        load_config(file)
    assert says in str(caught.value) and len(str(caught.value)) < 500


def test_override_wins_over_file_and_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: {height: 96, width: 48}\n")
    config = load_config(file, ["data.width=64"])
    assert (config.data.height, config.data.width) == (96, 64)
    assert config.run == Config().run


def test_shipped_config_is_found_by_name_and_path_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("walkers") == find_config("configs/walkers.yaml") == configs_folder() / "walkers.yaml"
    with pytest.raises(UserError, match=r"no config file 'wolkers'.*walkers"):
        find_config("wolkers")


@pytest.mark.parametrize("file", sorted(configs_folder().glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_load(file: Path) -> None:
    load_config(file)


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(None, ["data.root=crops"])
    assert config.data.root == tmp_path / "crops"
    assert config.run.root == tmp_path / "runs"


def test_written_config_reads_back_equal(tmp_path: Path) -> None:
    config = load_config("walkers", ["data.root=crops", "run.seed=7"])
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    assert load_config(file) == config


def test_every_field_has_its_sentence() -> None:
    for section_name, section in Config.model_fields.items():
        assert isinstance(section.annotation, type) and issubclass(section.annotation, BaseModel)
        for name, field in section.annotation.model_fields.items():
            assert field.description and field.description.endswith("."), f"{section_name}.{name}"


def test_base_yaml_is_up_to_date() -> None:
    assert (configs_folder() / "base.yaml").read_text() == describe()
    assert yaml.safe_load(describe()).keys() == Config.model_fields.keys()


@pytest.mark.parametrize("content", ["- a\n- b\n", "data: {height: [\n", "just words\n"])
def test_file_that_is_no_config(tmp_path: Path, content: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=r"bad\.yaml"):
        load_config(file)


def test_command_ends_with_one_line_and_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jgcl_ray.data.walkers", "--out", str(tmp_path / "out"), "--identities", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "--identities 1" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "field", ["encoder.embedding", "generator.width", "generator.style_width", "discriminator.width"]
)
def test_a_width_that_no_memory_holds_is_refused(field: str) -> None:
    assert load_config(None, [f"{field}=16384"])
    with pytest.raises(UserError, match=f"{field}=1000000000: input should be less than or equal to 16384"):
        load_config(None, [f"{field}=1000000000"])


def test_a_field_of_an_earlier_version_is_dropped_where_it_holds_what_is_done_now() -> None:
    tree = {"cluster_contrast": {"negatives": "all", "lr": 0.25}}
    assert validate(tree).cluster_contrast.lr == 0.25
    assert tree["cluster_contrast"]["negatives"] == "all"
    with pytest.raises(UserError, match=r"cluster_contrast\.negatives='shared_cameras': no such field"):
        validate({"cluster_contrast": {"negatives": "shared_cameras"}})
