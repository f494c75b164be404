"""YAML as people write it: a key given twice is a mistake, and what looks like a date is text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from jgcl_ray.errors import UserError


class _Loader(yaml.SafeLoader):
    """SafeLoader without dates, and with YAML's own rule that the keys of a mapping differ."""

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


_Loader.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str) -> Any:
    """The document in `text`; UserError, without a file's name, where it is no YAML or gives a key twice."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: tags of no value, as !!int x
        raise UserError(f"not YAML: {error}") from None


def read_yaml(path: Path, option: str = "") -> Any:
    """The document in a file; UserError that names the file, after the option that gave it."""
    named = f"{option} {path}".strip()
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
