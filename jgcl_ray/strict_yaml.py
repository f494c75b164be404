"""YAML as people write it: a key given twice is a mistake; what looks like a date, a time or an octal is text.

Of plain words these are more than text: null and ~, true and false, numbers with a decimal point or without. A number
that is used as text, a name say, is what was written: 1.10, not 1.1.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from jgcl_ray.errors import UserError


class WrittenFloat(float):
    """A number that still knows its text."""

    text: str

    def __str__(self) -> str:
        return self.text


class _Loader(yaml.SafeLoader):
    """SafeLoader with fewer plain words that are more than text, and with YAML's own rule that keys differ."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in first:
                raise UserError(
                    f"line {line}: {key.value} stands a second time, first in line {first[name]}; keep one"
                )
            first[name] = line
        return node

    def construct_float_as_written(self, node: yaml.ScalarNode) -> float:
        number = WrittenFloat(self.construct_yaml_float(node))
        number.text = node.value
        return number


# PyYAML reads YAML 1.1, where 010 is 8, 12:30 is 750, 1_000 is 1000 and no is false: each has other words in mind.
_TAG = "tag:yaml.org,2002:"
_Loader.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in resolvers if tag in (f"{_TAG}null", f"{_TAG}merge")]
    for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NUMBER = r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"
for _name, _pattern, _starts in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", "0|-?[1-9][0-9]*", "-0123456789"),
    ("float", rf"{_NUMBER}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern})$"), list(_starts))
_Loader.add_constructor(f"{_TAG}float", _Loader.construct_float_as_written)


def parse_yaml(text: str) -> Any:
    """The document in `text`; UserError, without a file's name, where it is no YAML or gives a key twice."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"not YAML: {error}") from None
    except (ValueError, LookupError, AttributeError, TypeError) as error:  # !!int x, !!bool x, 5,000 digits
        raise UserError(f"not YAML: a value is not what its tag or its digits say ({error})") from None


def read_yaml(path: Path, option: str = "") -> Any:
    """The document in a file; UserError that names the file, after the option that gave it."""
    named = f"{option} {path}".strip()
    if path.exists() and not path.is_file() and not path.is_dir():  # who opens a pipe may wait for ever
        raise UserError(f"{named}: a pipe or a device; save it as a file and give that")
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{named}: not YAML in UTF-8: {error}") from None
    except OSError as error:
        raise UserError(f"{named} cannot be read ({error.strerror})") from None
    except UserError as error:
        raise UserError(f"{named}: {error}") from None


def plain_or_quoted(text: str) -> str:
    """Text as it stands, but for YAML quotes around the whole of it."""
    if text[:1] not in ("'", '"'):
        return text
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:
        return text
    if isinstance(node, yaml.ScalarNode) and node.end_mark.index == len(text):
        return str(node.value)
    return text
