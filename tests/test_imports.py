"""The package's layers: imports go downwards only, and no modules import each other in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import jgcl_ray

PACKAGE = Path(jgcl_ray.__file__).parent

# From the ground up. A module is on the layer of its longest prefix that is named here; it imports from its own layer
# and from those below, within functions, too.
LAYERS = (
    "errors floats atomic batches cache progress strict_yaml choices config config_sections learning_sections "
    "contact_sheet storage distributed ray_cluster ray_map camera_means image_files stored_files run_records "
    "arguments ownership places wording writer_lock",
    "models memories pseudo_labels mlflow_mirror run_log",
    "meshes losses",
    "data",
    "evaluation estimator_training",
    "training",
    "encoder",
    "export_formats mlflow_model footage generation retrieval tuning diagnosis pretraining",
    "train pretrain evaluate search generate export tune footage.__main__ data.walkers.__main__ "
    "meshes.estimator.__main__",
    "__main__ doctor __init__",
)


def _name(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


@cache
def _modules() -> Mapping[str, Path]:
    return {_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def _imports(tree: ast.AST, modules: Mapping[str, Path]) -> Iterator[str]:
    """The package's modules that a file imports, those for its annotations alone left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from _imports(ast.Module(node.orelse, []), modules)
            continue
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            yield from _imports(node, modules)
            continue
        for name in found:
            package, _, inner = name.partition(".")
            if package == PACKAGE.name:
                yield inner if inner in modules else inner.rpartition(".")[0] or "__init__"


@cache
def _graph() -> Mapping[str, frozenset[str]]:
    modules = _modules()
    return {name: frozenset(_imports(ast.parse(file.read_text()), modules)) for name, file in modules.items()}


def _layer(module: str) -> int | None:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        for number, names in enumerate(LAYERS):
            if ".".join(parts[:length]) in names.split():
                return number
    return None


def test_every_module_has_a_layer_and_every_name_is_a_module() -> None:
    assert [module for module in _modules() if _layer(module) is None] == []
    named = [name for names in LAYERS for name in names.split()]
    assert [name for name in named if name not in _modules()] == []
    assert len(named) == len(set(named))


def test_no_module_imports_from_a_layer_above_its_own() -> None:
    upward = [
        f"{module} -> {imported}"
        for module, imports in _graph().items()
        for imported in sorted(imports)
        if _layer(imported) > _layer(module)
    ]
    assert upward == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(_graph()).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_an_import_in_a_function_counts_and_one_for_annotations_does_not() -> None:
    text = """
from typing import TYPE_CHECKING
import jgcl_ray.errors
from jgcl_ray import camera_means
if TYPE_CHECKING:
    from jgcl_ray.encoder import Encoder
else:
    from jgcl_ray import __version__
def later():
    from jgcl_ray.data.datasets.image_tree import image_tree
"""
    found = list(_imports(ast.parse(text), _modules()))
    assert found == ["errors", "camera_means", "__init__", "data.datasets.image_tree"]
