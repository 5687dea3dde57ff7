"""The rules of the house, held by the code itself."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("registry", "ingest", "train", "cli", "migrations")
MODULES = [*sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py")), ROOT / "ecdreg.py"]
HEAVY = {"torch", "torchvision", "timm", "transformers", "pymatgen", "pyrho", "robocrys", "matminer", "sklearn",
         "scipy", "matplotlib", "pandas", "sqlalchemy", "sqlglot"}  # fmt: skip

LONGEST = 500
LONGER = {"registry/models.py": "every table on one page"}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _public_functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions that a library module exports, and the public methods of the classes it exports."""
    for path in MODULES:
        name = _name(path)
        if name.startswith(("migrations/", "cli/cmd_")):
            continue  # not libraries: revisions; and commands, whose help is looked at below
        tree = ast.parse(path.read_text(encoding="utf-8"))
        exported = _exported(tree)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in exported:
                yield f"{name}:{node.name}", node
            elif isinstance(node, ast.ClassDef) and node.name in exported:
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield f"{name}:{node.name}.{inner.name}", inner


def _exported(tree: ast.Module) -> set[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return set(ast.literal_eval(node.value))
    return set()


def test_no_file_is_too_long() -> None:
    lengths = {_name(p): len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES}
    assert {n: k for n, k in lengths.items() if k > LONGEST and n not in LONGER} == {}
    assert {n for n in LONGER if lengths[n] <= LONGEST} == set(), "no longer an exception"


def test_nothing_is_called_utils() -> None:
    assert [_name(p) for p in MODULES if p.stem in ("utils", "util", "helpers", "misc", "common")] == []


@pytest.mark.parametrize("path", [p for p in MODULES if p.stem != "__init__"], ids=_name)
def test_module_has_docstring_and_says_what_is_public(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "no docstring"
    if "migrations" not in path.parts:
        assert _exported(tree), "no __all__"


def test_public_functions_are_documented() -> None:
    bare = [name for name, node in _public_functions() if not ast.get_docstring(node) and not _is_protocol_stub(node)]
    assert bare == []


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


def _is_protocol_stub(node: ast.FunctionDef) -> bool:
    body = node.body[-1]
    return isinstance(body, ast.Expr) and isinstance(body.value, ast.Constant) and body.value.value is ...
