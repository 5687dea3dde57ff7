"""The error boundary and the global options of the program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import typer
from sqlalchemy.exc import OperationalError

from cli import main
from cli.commands import COMMANDS
from cli.groups import command_group
from registry import errors
from registry.errors import EcdregError
from tests.conftest import Invoke

Raising: TypeAlias = Callable[[BaseException], tuple[int, str]]
ERRORS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, EcdregError)]
EXIT_CODES = {
    "ConfigurationError": 2,
    "UnknownNameError": 2,
    "DatabaseUnreachableError": 3,
    "UnsuitableServerError": 3,
    "SchemaBehindError": 4,
}


class LostError(Exception):
    """What psycopg raises when the server goes away."""

    sqlstate = "57P01"


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Raising:
    """Runs a command that raises; its exit code and stderr."""

    def run(error: BaseException) -> tuple[int, str]:
        app = typer.Typer(cls=main._Boundary, rich_markup_mode=None, pretty_exceptions_enable=False)

        @app.callback()
        def root() -> None:
            """Root."""

        @app.command()
        def fail() -> None:
            """Fail."""
            raise error

        monkeypatch.setattr(main, "app", app)
        code = main.main(["fail"])
        captured = capsys.readouterr()
        assert captured.out == ""
        return code, captured.err

    return run


class TestBoundary:
    @pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
    def test_every_error_is_one_line_with_its_exit_code(self, raising: Raising, kind: type[EcdregError]) -> None:
        code, message = raising(kind("no crystal 'mp-0';\n  try another"))
        assert message == "error: no crystal 'mp-0'; try another\n"
        assert code == EXIT_CODES.get(kind.__name__, 1)

    def test_ctrl_c(self, raising: Raising) -> None:
        assert raising(KeyboardInterrupt()) == (130, "error: interrupted\n")

    def test_a_connection_that_is_lost(self, raising: Raising) -> None:
        code, message = raising(
            OperationalError("SELECT 1", {}, LostError("terminating connection"), connection_invalidated=True)
        )
        assert code == 3
        assert message.startswith("error: the connection to the database was lost: terminating connection")

    def test_a_disk_that_is_full(self, raising: Raising) -> None:
        full = LostError("no space left on device")
        full.sqlstate = "53100"
        code, message = raising(OperationalError("INSERT", {}, full))
        assert (code, message) == (1, "error: the database failed: no space left on device\n")

    def test_a_bug_keeps_its_traceback(self, raising: Raising) -> None:
        with pytest.raises(ZeroDivisionError):
            raising(ZeroDivisionError())

    def test_a_database_that_is_down(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ECDREG_DATABASE_URL", "postgresql://me:secret@127.0.0.1:9/reg")
        answer = invoke("split", "list")
        assert answer.exit_code == 3
        assert answer.stderr.count("\n") == 1
        assert answer.stderr.startswith("error: no database at postgresql://me:***@127.0.0.1:9/reg")

    def test_a_library_check_of_arguments_is_a_usage_error(self, invoke: Invoke) -> None:
        answer = invoke("similar")
        assert (answer.exit_code, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
        assert answer.stderr.startswith("error: give one of: the id of a crystal, a text, an image, or files")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("frobnicate",), "no such command 'frobnicate'; see 'ecdreg -h'"),
            (("trian",), "no such command 'trian' (did you mean 'train'?); see 'ecdreg -h'"),
            (("db", "frobnicate"), "no such command 'frobnicate'; see 'ecdreg db -h'"),
            (("--frob",), "no such option: --frob; see 'ecdreg -h'"),
            (("similar", "--frob", "x"), "no such option: --frob; see 'ecdreg similar -h'"),
            (("split", "create"), "missing argument 'name'; see 'ecdreg split create -h'"),
            (("similar", "x", "y"), "got unexpected extra argument"),
            (("similar", "-k", "0", "x"), "invalid value for '-k'"),
            (("similar", "--where"), "option '--where' requires an argument"),
        ],
    )
    def test_usage_is_one_line(self, invoke: Invoke, arguments: tuple[str, ...], message: str) -> None:
        answer = invoke(*arguments)
        assert (answer.exit_code, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
        assert answer.stderr.lower().startswith(f"error: {message}".lower())
        assert "; see 'ecdreg" in answer.stderr

    def test_a_group_alone_shows_its_help(self, invoke: Invoke) -> None:
        answer = invoke("split")
        assert "Commands:" in answer.stdout + answer.stderr
        assert "error:" not in answer.stderr


class TestOptions:
    def test_version(self, invoke: Invoke) -> None:
        from importlib.metadata import version

        answer = invoke("--version")
        assert (answer.exit_code, answer.stdout) == (0, f"ecdreg {version('ecdreg')}\n")

    def test_help_lists_commands_in_their_order(self, invoke: Invoke) -> None:
        printed = invoke("--help").stdout.partition("Commands:")[2]
        names = [line.split()[0] for line in printed.splitlines() if line.startswith("  ") and line[2] != " "]
        assert names == list(COMMANDS)

    @pytest.mark.parametrize("name", COMMANDS)
    def test_the_root_help_has_the_first_line_of_each_help(self, name: str) -> None:
        root: Any = typer.main.get_command(main.app)
        assert COMMANDS[name].help == root.commands[name].help.splitlines()[0]

    def test_the_help_of_a_group_has_the_first_line_of_each_help(self, invoke: Invoke) -> None:
        from cli.commands.db import group

        printed = " ".join(invoke("db", "--help").stdout.partition("Commands:")[2].split())
        lines = [str(command.callback.__doc__).partition("\n")[0] for command in group.registered_commands]
        assert len(lines) > 5
        assert [line for line in lines if line not in printed] == []

    def test_help_names_types_in_words(self, invoke: Invoke) -> None:
        printed = invoke("train", "image", "--help").stdout
        assert "--seed INTEGER" in printed
        assert "--views INTEGER" in printed
        assert "--name NAME" in printed

    def test_every_command_takes_quiet_and_verbose(self) -> None:
        lacking = [
            path
            for path, command in _commands(typer.main.get_command(main.app))
            if not {"--quiet", "--verbose"} <= {name for parameter in command.params for name in parameter.opts}
        ]
        assert lacking == []

    def test_help_is_quick(self, timed: Callable[..., tuple[float, subprocess.CompletedProcess[str]]]) -> None:
        program = Path(sys.executable).with_name("ecdreg")
        answers = [timed([program, "--help"]) for _ in range(5)]
        assert all(done.returncode == 0 and "Commands:" in done.stdout for _, done in answers)
        # It does nothing but compute, so this is its wall time on a machine that is not busy.
        assert min(seconds for seconds, _ in answers) < 0.5

    def test_every_command_has_examples(self) -> None:
        bare = [
            path
            for path, command in _commands(typer.main.get_command(main.app))
            if "Examples:" not in (command.help or "")
        ]
        assert bare == []

    def test_groups_share_their_settings(self) -> None:
        assert command_group("words").info.help == "words"


def _commands(command: Any, path: str = "ecdreg") -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from _commands(child, f"{path} {name}")
    else:
        yield path, command
