"""The rules of the house, held by the code itself."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import errors

ROOT = Path(__file__).parent.parent
PACKAGES = ("registry", "ingest", "train", "ecdreg", "cli", "migrations")
MODULES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
HEAVY = {"torch", "torchvision", "timm", "transformers", "pymatgen", "pyrho", "robocrys", "matminer", "sklearn",
         "scipy", "matplotlib", "pandas", "sqlalchemy", "sqlglot"}  # fmt: skip

ERRORS = set(errors.__all__)

LONGEST = 520
LONGER = {"registry/models.py": "every table on one page"}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


TREES = {_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
PROTOCOLS = [
    node
    for tree in TREES.values()
    for node in tree.body
    if isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Name) and b.id == "Protocol" for b in node.bases)
]


def _public_functions() -> Iterator[tuple[str, ast.FunctionDef, bool]]:
    """Functions that a library module exports, and the public methods of the classes it exports.

    With each, whether a base class or a protocol explains it.
    """
    for name, tree in TREES.items():
        if name.startswith(("migrations/", "cli/cmd_", "cli/commands/plot_map.py")):
            continue  # not libraries: revisions; and commands, whose help tests/cli/test_docs.py looks at
        exported = _exported(tree)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in exported:
                yield f"{name}:{node.name}", node, False
            elif isinstance(node, ast.ClassDef) and node.name in exported:
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield f"{name}:{node.name}.{inner.name}", inner, _is_explained(inner.name, node, tree)


def _is_explained(method: str, node: ast.ClassDef, tree: ast.Module) -> bool:
    here = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    names = {base.id for base in bases if isinstance(base, ast.Name)} - {"ABC", "Generic", "Protocol"}
    if names - set(here):
        return True  # of another module, or of a library
    return any(_documents(method, p) for p in PROTOCOLS if p is not node) or any(
        _documents(method, here[name]) or _is_explained(method, here[name], tree) for name in names
    )


def _documents(method: str, node: ast.ClassDef) -> bool:
    return any(isinstance(f, ast.FunctionDef) and f.name == method and ast.get_docstring(f) for f in node.body)


def _exported(tree: ast.Module) -> set[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return set(ast.literal_eval(node.value))
    return set()


def test_no_file_is_too_long() -> None:
    # A migration is frozen once it is released, and is as long as what it makes.
    lengths = {
        _name(p): len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES if p.parent.name != "versions"
    }
    assert {n: k for n, k in lengths.items() if k > LONGEST and n not in LONGER} == {}
    assert {n for n in LONGER if lengths[n] <= LONGEST} == set(), "no longer an exception"


def test_nothing_is_called_utils() -> None:
    assert [_name(p) for p in MODULES if p.stem in ("utils", "util", "helpers", "misc", "common")] == []


@pytest.mark.parametrize("name", [name for name in TREES if not name.endswith("__init__.py")])
def test_module_has_docstring_and_says_what_is_public(name: str) -> None:
    tree = TREES[name]
    assert ast.get_docstring(tree), "no docstring"
    named = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    if any(not n.startswith("_") for n in named) and not name.startswith("migrations/"):
        assert _exported(tree), "no __all__"


def test_public_functions_are_documented() -> None:
    bare = [
        name
        for name, node, explained in _public_functions()
        if not ast.get_docstring(node) and not explained and not _is_overload(node)
    ]
    assert bare == []


def test_functions_of_many_arguments_explain_them() -> None:
    silent = []
    for name, node, _ in _public_functions():
        arguments = [a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
        told = [a for a in arguments if a not in ("self", "cls", "session", "engine", "connection")]
        if len(told) > 2 and "self" not in arguments and "Parameters\n" not in (ast.get_docstring(node) or ""):
            silent.append(name)
    assert silent == []


def test_functions_that_raise_say_so() -> None:
    """A ``raise SomeError(...)`` of this project's errors in the body itself has its section."""
    silent = []
    for name, node, explained in _public_functions():
        raised = {
            inner.exc.func.id
            for inner in ast.walk(node)
            if isinstance(inner, ast.Raise) and isinstance(inner.exc, ast.Call) and isinstance(inner.exc.func, ast.Name)
        }
        documentation = ast.get_docstring(node) or ""
        if not explained and any(e in ERRORS for e in raised) and "Raises\n" not in documentation:
            silent.append(name)
    assert silent == []


def test_facade_keeps_to_the_layers() -> None:
    """import-linter looks at packages; ``ecdreg`` is a module."""
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name or "").partition(".")[0]
        for node in ast.walk(TREES["ecdreg.py"])
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert imported - set(sys.stdlib_module_names) == {"registry", "ingest", "train", "sqlalchemy"}


def test_layers_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import json, sys\n"
        "sys.argv = ['ecdreg', '--help']\n"
        "from cli.main import run\n"
        "try:\n    run()\nexcept SystemExit:\n    pass\n"
        "print('MODULES', json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.rpartition("MODULES ")[2])
    assert HEAVY & set(loaded) == set()


def _is_overload(node: ast.FunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)
