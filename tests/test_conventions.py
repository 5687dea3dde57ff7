"""Conventions of the code that tests can check: layout, imports, documentation and vocabulary."""

from __future__ import annotations

import ast
import graphlib
import io
import json
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from registry import errors

ROOT = Path(__file__).parent.parent
LIBRARY = ("registry", "ingest", "train", "ecdreg")
PACKAGES = (*LIBRARY, "cli", "migrations")
MODULES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
HEAVY = {"torch", "torchvision", "timm", "transformers", "pymatgen", "pyrho", "robocrys", "matminer", "sklearn",
         "scipy", "matplotlib", "pandas", "sqlalchemy", "sqlglot"}  # fmt: skip

ERRORS = set(errors.__all__)

TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
OTHER_TESTS = {
    "docs/test_pages.py": "all pages of the documentation",
    "docs/test_reference.py": "the generated pages",
    "docs/test_sql_page.py": "a page with examples",
    "ecdreg/test_parity.py": "the library compared with the command line",
    "ecdreg/test_parity_training.py": "the library compared with the command line",
    "registry/test_migrations.py": "the migrations of the tables of registry/models.py",
    "train/experiments/test_traps.py": "leaks of holdout rows and labels, in all modules of experiments",
    "train/test_extension.py": "entries of catalogs from outside the package",
}

MAX_LINES = 520
LONGER_FILES = {"registry/models.py": "all tables on one page"}

MAX_MODULES = 16
LARGER_FOLDERS = {"cli/commands": "one file for each command group"}

BANNED_WORDS = frozenset(
    ("said", "shown", "told", "taught", "asked", "wish", "wishes", "sayer", "deal", "dealt", "peer", "peers", "claims")
)
"""Private words that have a standard term: predictions, reported, targets, requested, constraints, locks, ..."""

BANNED_PROSE = re.compile(
    r"\b(?:said|says|told|taught|asked|asks|wish|wishes|sayer|deal|deals|dealt|peers?|somebody)\b"
    r"|(?<!there )\b(?:is|are|was|were) no (?!longer\b|more\b)[a-z]",
    re.IGNORECASE,
)
"""The same words in docstrings and comments; and "is no", which is "is not a" in plain English."""

QUESTION = re.compile(r"(?:What|How|Where|Who|Whose|Which|Why)\b")
"""First words that make a docstring a question instead of a noun phrase or an imperative."""


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


SOURCES = {_name(path): path.read_text(encoding="utf-8") for path in MODULES}
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}
TEST_TREES = {
    _name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "tests").rglob("*.py"))
}
PROTOCOLS = [
    node
    for tree in TREES.values()
    for node in tree.body
    if isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Name) and b.id == "Protocol" for b in node.bases)
]


def _assert_none(what: str, found: Sequence[str]) -> None:
    assert not found, f"{len(found)} {what}:\n" + "\n".join(found)


class TestLayout:
    def test_no_file_is_too_long(self) -> None:
        # A released migration is frozen, and as long as the schema that it creates.
        lengths = {
            _name(p): len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES if p.parent.name != "versions"
        }
        assert {n: k for n, k in lengths.items() if k > MAX_LINES and n not in LONGER_FILES} == {}
        assert {n for n in LONGER_FILES if lengths[n] <= MAX_LINES} == set(), "no longer an exception"

    def test_no_folder_has_too_many_modules(self) -> None:
        counts: dict[str, int] = {}
        for path in MODULES:
            if path.name != "__init__.py" and path.parent.name != "versions":
                folder = _name(path.parent)
                counts[folder] = counts.get(folder, 0) + 1
        assert {f: n for f, n in counts.items() if n > MAX_MODULES and f not in LARGER_FOLDERS} == {}
        assert {f for f in LARGER_FOLDERS if counts[f] <= MAX_MODULES} == set(), "no longer an exception"

    def test_no_module_is_called_utils(self) -> None:
        vague = ("utils", "util", "helpers", "misc", "common")
        _assert_none("modules without a subject in their name", [_name(p) for p in MODULES if p.stem in vague])

    def test_each_package_documents_its_content_and_who_may_import_it(self) -> None:
        undocumented = []
        for name, tree in TREES.items():
            if not name.endswith("__init__.py"):
                continue
            documentation = ast.get_docstring(tree) or ""
            if "import" not in documentation or len(documentation.splitlines()) < 2:
                undocumented.append(name)
        _assert_none("packages without a docstring of their content and their importers", undocumented)

    def test_packages_name_their_importers_and_their_imports(self) -> None:
        """A docstring that lists importers or imports lists exactly those that exist; ``registry`` is implied."""
        graph = _import_graph(TREES)
        wrong = []
        for package in (_module_name(name) for name in TREES if name.endswith("__init__.py")):
            importers, imports = _stated_imports(ast.get_docstring(TREES[_package_file(package)]) or "")
            importing = {m for m, targets in graph.items() if any(_is_inside(t, package) for t in targets)}
            imported = {t for m, targets in graph.items() if _is_inside(m, package) for t in targets}
            for stated, real in ((importers, importing), (imports, imported)):
                outside = {m for m in real if not _is_inside(m, package)}
                if stated is not None:
                    wrong += [
                        f"{package}: {name} is not true" for name in stated if not _covers(name, package, outside)
                    ]
                    wrong += [
                        f"{package}: {module} is missing"
                        for module in sorted(outside)
                        if not any(_covers(name, package, {module}) for name in stated)
                        and (stated is importers or not module.startswith("registry"))
                    ]
        _assert_none("errors in docstrings of packages", wrong)


class TestImports:
    def test_there_is_no_import_cycle(self) -> None:
        """No module of the packages imports itself through others: at module level, inside a function, or for types."""
        graph = _import_graph(TREES, types=True)
        _assert_none("import cycles", [" -> ".join(cycle) for cycle in _import_cycles(graph)])

    def test_cycles_are_found_inside_functions_and_in_type_checking_blocks(self) -> None:
        trees = {
            "pkg/__init__.py": ast.parse(""),
            "pkg/a.py": ast.parse("from pkg import b"),
            "pkg/b.py": ast.parse("def f():\n    from pkg.c import x"),
            "pkg/c.py": ast.parse("import pkg.a"),
            "pkg/d.py": ast.parse("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.e import x"),
            "pkg/e.py": ast.parse("from pkg.d import y"),
            "pkg/f.py": ast.parse("from .g import y"),
            "pkg/g.py": ast.parse("from importlib import import_module\nimport_module('pkg.f')"),
        }
        found = [set(cycle) for cycle in _import_cycles(_import_graph(trees, types=True))]
        assert found == [{"pkg.a", "pkg.b", "pkg.c"}, {"pkg.d", "pkg.e"}, {"pkg.f", "pkg.g"}]
        assert not _import_graph(trees)["pkg.d"]

    def test_import_contracts_hold(self) -> None:
        done = subprocess.run(
            [str(Path(sys.executable).parent / "lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def test_help_imports_nothing_heavy(self) -> None:
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


class TestDocumentation:
    @pytest.mark.parametrize("name", [name for name in TREES if not name.endswith("__init__.py")])
    def test_module_has_a_docstring_and_lists_its_public_names(self, name: str) -> None:
        tree = TREES[name]
        assert ast.get_docstring(tree), "no docstring"
        defined = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        if any(not n.startswith("_") for n in defined) and not name.startswith("migrations/"):
            assert _exported(tree), "no __all__"

    def test_public_functions_are_documented(self) -> None:
        undocumented = [
            name
            for name, node, inherited in _public_functions()
            if not ast.get_docstring(node) and not inherited and not _is_overload(node)
        ]
        _assert_none("public functions without a docstring", undocumented)

    def test_functions_of_many_arguments_document_them(self) -> None:
        undocumented = []
        for name, node, _ in _public_functions():
            arguments = [a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
            counted = [a for a in arguments if a not in ("self", "cls", "session", "engine", "connection")]
            if len(counted) > 2 and "self" not in arguments and "Parameters\n" not in (ast.get_docstring(node) or ""):
                undocumented.append(name)
        _assert_none("functions without a section Parameters", undocumented)

    def test_functions_that_raise_have_a_raises_section(self) -> None:
        """Every public function with ``raise SomeError(...)`` of this project in its own body has the section."""
        undocumented = []
        for name, node, inherited in _public_functions():
            raised = {
                inner.exc.func.id
                for inner in ast.walk(node)
                if isinstance(inner, ast.Raise)
                and isinstance(inner.exc, ast.Call)
                and isinstance(inner.exc.func, ast.Name)
            }
            documentation = ast.get_docstring(node) or ""
            if not inherited and raised & ERRORS and "Raises\n" not in documentation:
                undocumented.append(name)
        _assert_none("functions without a section Raises", undocumented)


class TestLibrary:
    """The library has other callers than the command line: it returns values, raises errors and logs."""

    def test_the_library_does_not_print_exit_or_read_arguments(self) -> None:
        found = [
            f"{name}:{line}: {what}"
            for name, tree in TREES.items()
            if name.partition("/")[0] in LIBRARY
            for line, what in _terminal_uses(tree)
        ]
        _assert_none("uses of the terminal in the library", found)

    def test_each_way_to_print_or_exit_is_found(self) -> None:
        code = "import sys\nfrom sys import exit\nprint(1)\nsys.exit(1)\nsys.argv\nraise SystemExit(1)"
        assert sorted(line for line, _ in _terminal_uses(ast.parse(code))) == [2, 3, 4, 5, 6]


class TestVocabulary:
    def test_identifiers_use_the_terms_of_the_field(self) -> None:
        found = [
            f"{name}:{line}: {identifier}"
            for name, tree in (TREES | TEST_TREES).items()
            for line, identifier in _defined_identifiers(tree)
            if BANNED_WORDS & set(_words(identifier))
        ]
        found += [name for name in TREES | TEST_TREES if BANNED_WORDS & set(_words(Path(name).stem))]
        _assert_none("identifiers of a private vocabulary", found)

    def test_docstrings_and_comments_use_the_terms_of_the_field(self) -> None:
        found = [
            f"{name}:{line}: {text.strip()}"
            for name, source in SOURCES.items()
            for line, text in _prose(source)
            if BANNED_PROSE.search(text)
        ]
        _assert_none("docstrings and comments in a private vocabulary", found)

    def test_docstrings_begin_with_their_subject(self) -> None:
        found = [
            f"{name}:{node.lineno}: {node.value.value.splitlines()[0]}"
            for name, tree in TREES.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(node.value.value, str) and QUESTION.match(node.value.value)
        ]
        _assert_none("docstrings that begin like a question", found)

    def test_all_kinds_of_identifiers_are_looked_at(self) -> None:
        code = (
            "class WishList:\n    told: int\n    peer = 1\n"
            "    def was_asked(self, *, taught=1, **deal):\n        self.said = lambda claims: 1\n"
            "        peers, (asked, x) = 1, 2\n        [1 for dealt in x]\n"
        )
        found = {name for _, name in _defined_identifiers(ast.parse(code)) if BANNED_WORDS & set(_words(name))}
        assert found == {
            *("WishList", "told", "peer", "was_asked", "taught", "deal", "said", "claims", "peers", "asked", "dealt")
        }

    def test_docstrings_and_comments_are_looked_at(self) -> None:
        code = (
            '"""A module.\n\nIt says so.\n"""\n'
            "x = 'told'  # is no error\n"
            "y = 1\n'There is no value.'\n# It is no longer asked.\n# There is no longer one.\n"
        )
        assert [line for line, text in _prose(code) if BANNED_PROSE.search(text)] == [3, 5, 8]


class TestTests:
    def test_fixtures_have_types(self) -> None:
        """Each argument and result of a fixture has an annotation without ``Any``."""
        untyped = []
        for name, tree in TEST_TREES.items():
            for node in ast.walk(tree):
                if not isinstance(node, ast.FunctionDef) or not any(map(_is_fixture, node.decorator_list)):
                    continue
                arguments = [a.annotation for a in node.args.args if a.arg != "self"]
                if any(a is None or "Any" in ast.unparse(a) for a in [*arguments, node.returns]):
                    untyped.append(f"{name}:{node.lineno}: {node.name}")
        _assert_none("fixtures without exact types", untyped)

    def test_tests_take_fixtures_with_exact_types(self) -> None:
        functions = [(n, f) for n, tree in TEST_TREES.items() for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]
        fixtures = {f.name for _, f in functions if any(map(_is_fixture, f.decorator_list))}
        untyped = [
            f"{name}:{function.lineno}: {argument.arg}"
            for name, function in functions
            if function.name.startswith("test_")
            for argument in function.args.args
            if argument.arg in fixtures
            if argument.annotation is None or ast.unparse(argument.annotation) in ("Any", "Callable[..., Any]")
        ]
        _assert_none("arguments of tests without exact types", untyped)

    def test_tests_mirror_the_packages(self) -> None:
        """``tests/train/models/test_networks_multi_task.py`` tests ``train/models/networks.py``.

        The name of a file of tests starts with that of a module or package of the same folder, or is that of the
        folder.
        """
        files = [p.relative_to(ROOT / "tests") for p in TESTS if p.parent != ROOT / "tests"]
        without = [
            path.as_posix()
            for path in files
            if path.as_posix() not in OTHER_TESTS and not any(_mirrors(path, name) for name in _subjects(path.parent))
        ]
        _assert_none("files of tests without a module", without)
        assert set(OTHER_TESTS) <= {path.as_posix() for path in files}, "no longer an exception"

    def test_each_package_has_tests(self) -> None:
        """A folder of its own, or a file with its name in the folder above."""
        folders = {p.parent for p in MODULES if p.name != "__init__.py" and "migrations" not in p.parts}
        tested = {p.parent.relative_to(ROOT / "tests") for p in TESTS}
        tested |= {(p.parent / p.stem.removeprefix("test_")).relative_to(ROOT / "tests") for p in TESTS}
        _assert_none("packages without tests", sorted(_name(f) for f in folders if f.relative_to(ROOT) not in tested))


def _subjects(folder: Path) -> set[str]:
    """Names of the modules and packages of a folder, and of the folder itself."""
    inside = {p.stem for p in (ROOT / folder).glob("*") if p.suffix == ".py" or p.is_dir()}
    return inside | {folder.name} if inside else set()


def _mirrors(path: Path, subject: str) -> bool:
    return path.stem == f"test_{subject}" or path.stem.startswith(f"test_{subject}_")


def _is_fixture(decorator: ast.expr) -> bool:
    return "pytest.fixture" in ast.unparse(decorator)


# -------------------------------------------------------------------------- documentation


def _public_functions() -> Iterator[tuple[str, ast.FunctionDef, bool]]:
    """Functions that a library module exports, and the public methods of the classes that it exports.

    Each comes with whether a base class or a protocol documents it.
    """
    for name, tree in TREES.items():
        if name.startswith(("migrations/", "cli/commands/")):
            continue  # revisions; and commands, whose help texts tests/docs/test_reference.py checks
        exported = _exported(tree)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in exported:
                yield f"{name}:{node.name}", node, False
            elif isinstance(node, ast.ClassDef) and node.name in exported:
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield f"{name}:{node.name}.{inner.name}", inner, _is_inherited(inner.name, node, tree)


def _is_inherited(method: str, node: ast.ClassDef, tree: ast.Module) -> bool:
    here = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    names = {base.id for base in bases if isinstance(base, ast.Name)} - {"ABC", "Generic", "Protocol"}
    if names - set(here):
        return True  # from another module, or from a dependency
    return any(_documents(method, p) for p in PROTOCOLS if p is not node) or any(
        _documents(method, here[name]) or _is_inherited(method, here[name], tree) for name in names
    )


def _documents(method: str, node: ast.ClassDef) -> bool:
    return any(isinstance(f, ast.FunctionDef) and f.name == method and ast.get_docstring(f) for f in node.body)


def _exported(tree: ast.Module) -> set[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return set(ast.literal_eval(node.value))
    return set()


def _is_overload(node: ast.FunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)


def _stated_imports(documentation: str) -> tuple[list[str] | None, list[str] | None]:
    """Importers and imports that a docstring names; None where it has no such sentence, or states a permission."""
    importers: list[str] | None = None
    imports: list[str] | None = None
    for sentence in re.split(r"(?<=[.;]) ", " ".join(documentation.split())):
        if re.search(r"\b(?:may|[Ee]very|[Ee]verything)\b", sentence):
            continue
        if re.search(r"\bimports? (?:it|them)\b", sentence):
            importers = [*(importers or []), *re.findall(r"``([\w.]+)``", sentence)]
        elif re.search(r"\bimports? ``", sentence):
            imports = [*(imports or []), *re.findall(r"``([\w.]+)``", sentence[sentence.index("import") :])]
    return importers, imports


def _covers(name: str, package: str, modules: set[str]) -> bool:
    """Whether one of the modules is in the package that the docstring of another package calls by this name."""
    prefixes = ("", f"{package}.", f"{package.rpartition('.')[0]}.", f"{package.partition('.')[0]}.")
    return any(_is_inside(module, prefix + name) for module in modules for prefix in prefixes)


def _is_inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _package_file(package: str) -> str:
    return f"{package.replace('.', '/')}/__init__.py"


# -------------------------------------------------------------------------------- imports


def _import_graph(trees: Mapping[str, ast.Module], *, types: bool = False) -> dict[str, set[str]]:
    """Modules that each module imports by name, if ``types`` also in ``if TYPE_CHECKING``.

    The implicit import of a parent package does not count.
    """
    modules = {_module_name(path) for path in trees}
    graph: dict[str, set[str]] = {}
    for path, tree in trees.items():
        module = _module_name(path)
        package = module if path.endswith("__init__.py") else module.rpartition(".")[0]
        graph[module] = {
            target
            for node in (ast.walk(tree) if types else _runtime_nodes(tree))
            for target in _imported(node, package, modules)
            if target != module
        }
    return graph


def _imported(node: ast.AST, package: str, modules: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
    elif isinstance(node, ast.ImportFrom):
        source = node.module or ""
        if node.level:
            parent = package.split(".")[: len(package.split(".")) - node.level + 1]
            source = ".".join([*parent, *([node.module] if node.module else [])])
        for alias in node.names:
            submodule = f"{source}.{alias.name}"
            if submodule in modules:
                yield submodule
            elif source in modules:
                yield source
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("import_module", "importlib.import_module"):
        yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and a.value in modules)


def _runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a tree without the bodies of ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in node.orelse:
                yield other
                yield from _runtime_nodes(other)
            continue
        yield node
        yield from _runtime_nodes(node)


def _import_cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """One cycle of each group of modules that import each other."""
    left = {module: set(targets) for module, targets in graph.items()}
    cycles = []
    while True:
        try:
            graphlib.TopologicalSorter(left).prepare()
        except graphlib.CycleError as error:
            cycle = error.args[1][::-1]
        else:
            return sorted(cycles)
        cycles.append(cycle)
        # Without its last edge the cycle is broken, and the next one is found.
        left[cycle[-2]].remove(cycle[-1])


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


# ---------------------------------------------------------------------- names and statements


def _terminal_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Lines that print, exit or read ``sys.argv``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "exit", "quit"):
            yield node.lineno, f"{node.func.id}()"
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.exit", "sys.argv"):
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module == "sys":
            for alias in node.names:
                if alias.name in ("exit", "argv"):
                    yield node.lineno, f"from sys import {alias.name}"
        elif isinstance(node, ast.Name) and node.id == "SystemExit" and isinstance(node.ctx, ast.Load):
            yield node.lineno, "SystemExit"


def _defined_identifiers(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Names of functions, classes, arguments, attributes and variables that a module defines."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id


def _prose(source: str) -> Iterator[tuple[int, str]]:
    """Lines of docstrings and comments with their numbers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from enumerate(node.value.value.splitlines(), node.lineno)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _words(identifier: str) -> list[str]:
    """Words of an identifier in lower case, split at underscores and capitals."""
    separated = "".join(f"_{c}" if c.isupper() else c for c in identifier)
    return separated.lower().split("_")
