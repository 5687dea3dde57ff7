"""References in docstrings and comments: every module, function, class, attribute and file that they name exists."""

from __future__ import annotations

import ast
import builtins
import io
import re
import tokenize
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("registry", "ingest", "train", "ecdreg", "cli", "migrations", "docs", "tests")
ROLE = re.compile(r":(?:func|class|mod|meth|data|attr|exc):`~?([\w.]+)(?:\(\))?`")
PATH = re.compile(rf"``((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?:\(.*?\))?``")
FILE = re.compile(rf"\b(?:{'|'.join(PACKAGES)})/[\w./-]+\.(?:py|md|sql)\b")

FILES = {path.relative_to(ROOT).as_posix(): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
TREES = {
    name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): ast.parse(path.read_text(encoding="utf-8"))
    for name, path in sorted(FILES.items())
}
PATHS = dict(zip(TREES, (path for _, path in sorted(FILES.items())), strict=True))
ENTRY_POINTS = {
    f"ecdreg.{ast.literal_eval(node.args[0]).replace(' ', '_')}"
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "Catalog" and isinstance(node.args[0], ast.Constant)
}
"""Groups of entry points, one for each catalog."""


@pytest.mark.parametrize("module", TREES)
def test_references_resolve(module: str) -> None:
    unresolved = []
    for classes, text in _texts(module):
        unresolved += [t for t in ROLE.findall(text) if not _resolves(t, module, classes)]
        unresolved += [t for t in PATH.findall(text) if t not in ENTRY_POINTS and not _resolves(t, module, classes)]
        unresolved += [f for f in FILE.findall(text) if not (ROOT / f).exists()]
    assert unresolved == []


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("registry.database", True),
        ("registry.database.connect", True),
        ("registry.databases", False),
        ("registry.database.disconnect", False),
        ("registry.settings.Settings.artifacts", True),
        ("registry.settings.Settings.artefacts", False),
        ("OSError", True),
        ("Nothing", False),
    ],
)
def test_names_that_do_not_exist_are_found(target: str, found: bool) -> None:
    assert _resolves(target, "registry.database", ()) is found


def _texts(module: str) -> Iterator[tuple[tuple[ast.ClassDef, ...], str]]:
    """Docstrings with the classes around them, and comments."""
    yield from _strings(TREES[module], ())
    with PATHS[module].open(encoding="utf-8") as file:
        for token in tokenize.generate_tokens(io.StringIO(file.read()).readline):
            if token.type == tokenize.COMMENT:
                yield (), token.string


def _strings(node: ast.AST, classes: tuple[ast.ClassDef, ...]) -> Iterator[tuple[tuple[ast.ClassDef, ...], str]]:
    if isinstance(node, ast.ClassDef):
        classes = (*classes, node)
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant) and isinstance(inner.value.value, str):
            yield classes, inner.value.value
        yield from _strings(inner, classes)


def _resolves(target: str, module: str, classes: tuple[ast.ClassDef, ...]) -> bool:
    """Whether a target exists in an enclosing class, its module, another module of the project or a dependency."""
    parts = target.split(".")
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in TREES:
            return n == len(parts) or _defines(".".join(parts[:n]), parts[n:])
    if len(parts) == 1 and any(_has_member(module, c, target) for c in classes):
        return True
    if _defines(module, parts):
        return True
    return hasattr(builtins, target) or (
        len(parts) > 1 and parts[0] not in PACKAGES and find_spec(parts[0]) is not None
    )


def _defines(module: str, parts: list[str]) -> bool:
    """Whether a module has the name ``parts[0]``, and that the attribute ``parts[1]``, if there is one."""
    name, *rest = parts
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    if f"{node.module}.{alias.name}" in TREES:
                        return not rest or _defines(f"{node.module}.{alias.name}", rest)
                    return node.module not in TREES or _defines(node.module, [alias.name, *rest])
    for node in TREES[module].body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return not rest or _has_member(module, node, rest[0])
        if name in _names(node):
            return True
    return False


def _has_member(module: str, node: ast.ClassDef, name: str) -> bool:
    if any(name in _names(inner) for inner in node.body):
        return True
    if any(isinstance(a, ast.Attribute) and ast.unparse(a) == f"self.{name}" for a in ast.walk(node)):
        return True
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    return any(_defines(module, [*ast.unparse(base).split("."), name]) for base in bases)


def _names(node: ast.stmt) -> set[str]:
    """Names that a statement defines."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.If):
        return {name for inner in (*node.body, *node.orelse) for name in _names(inner)}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {t.id for target in targets if target is not None for t in ast.walk(target) if isinstance(t, ast.Name)}
