"""Files are short; packages import leftwards only, no two files import each other; nothing private of JAX is used."""

import ast
import sys
from pathlib import Path

import pytest

import minipcax

ROOT = Path(minipcax.__file__).parent
ORDER = ["core", "functional", "nn", "predictive_coding", "utils", "learning"]
FILES = sorted(ROOT.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, run_time: bool = False) -> set[str]:
    """What a file imports; at run time, without what only type checkers read."""
    found = set()
    tree = ast.parse(path.read_text())
    if run_time:
        for branch in tree.body:
            if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING":
                branch.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def package(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "minipcax" else None


# Files that need a package which is not installed with minipcax.
OPTIONAL = {"minipcax.learning._gradient_flow": "diffrax"}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 250


def test_there_is_something_to_check() -> None:
    assert {path.parent.name for path in FILES} >= set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_run_leftwards(path: Path) -> None:
    own = package(module_name(path))
    for name in imports(path):
        other = package(name)
        if own is not None and other is not None:
            assert ORDER.index(other) <= ORDER.index(own), f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_private_files_are_their_packages_own(path: Path) -> None:
    own = package(module_name(path))
    for name in imports(path):
        other = package(name)
        private = other is not None and any(part.startswith("_") for part in name.split(".")[2:])
        assert not private or other == own, f"{path} imports {name}: let {other} export it, or name its file without _"


def test_no_cycles() -> None:
    graph = {module_name(path): {name for name in imports(path) if name.startswith("minipcax")} for path in FILES}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, (*above, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_only_the_promised_dependencies(path: Path) -> None:
    allowed = {"jax", "jaxtyping", "optax", "numpy", "minipcax"} | sys.stdlib_module_names
    allowed |= {OPTIONAL.get(module_name(path), "minipcax")}
    for name in imports(path, run_time=True):
        assert name.split(".")[0] in allowed, f"{path} imports {name}"
    assert not [name for name in imports(path) if "jax._src" in name]


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_import_inside_a_function_but_of_what_is_optional(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            inner = [ast.unparse(n) for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
            optional = OPTIONAL.get(module_name(path))
            assert inner == [] or inner == [f"import {optional}"], f"{path}:{node.lineno}"
