r"""The command ``ecdreg``: its commands, and the boundary where errors become exit codes.

:data:`cli.commands.COMMANDS` names every command with its module. A module is imported when its command is run or when
its help is printed, so that ``ecdreg --help`` and ``ecdreg db status`` import only what they need.
"""

from __future__ import annotations

import logging
import re
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli import logs, output
from cli.commands import COMMANDS
from cli.connections import at_end
from cli.groups import command_group, name_types
from registry.errors import (
    ConfigurationError,
    DatabaseUnreachableError,
    EcdregError,
    SchemaBehindError,
    UnsuitableServerError,
)

__all__ = ["FAILED", "INTERRUPTED", "SCHEMA_BEHIND", "UNREACHABLE", "USAGE", "app", "main", "run"]

FAILED = 1
USAGE = 2
UNREACHABLE = 3
SCHEMA_BEHIND = 4
INTERRUPTED = 130

# Public in click, of which newer versions of typer keep a private copy.
UsageError: Any = typer.BadParameter.__base__

_log = logging.getLogger("cli")


class _Boundary(TyperGroup):
    """Turns what commands raise into one line and an exit code; a bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EcdregError as error:
            for note in getattr(error, "__notes__", ()):
                output.warn(note)
            output.error(_one_line(error))
            raise typer.Exit(_exit_code(error)) from error
        except KeyboardInterrupt:
            output.error("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            found = _database_error(error)
            if found is None:
                raise
            message, code = found
            output.error(message)
            raise typer.Exit(code) from error


class _Loaded(Mapping[str, Any]):
    """Commands by name, in the order of :data:`cli.commands.COMMANDS`; each is imported on its first use."""

    def __init__(self) -> None:
        self._commands: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._commands:
            self._commands[name] = _load(name)
        return self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Root(_Boundary):
    """The command ``ecdreg`` itself: its help lists the commands without importing them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Loaded()  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


app = typer.Typer(
    cls=_Root,
    name="ecdreg",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        output.line(f"ecdreg {version('ecdreg')}")
        raise typer.Exit


def _set_quiet(value: bool) -> None:
    if value:
        output.quiet.set(True)


def _set_verbosity(value: int) -> None:
    if value:
        logs.set_verbosity(value)


QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Print no notes and no progress, only results, warnings and errors.",
        callback=_set_quiet,
        expose_value=False,
    ),
]
VerboseOption = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        show_default=False,
        help="Print log lines on stderr; -vv prints details.",
        callback=_set_verbosity,
        expose_value=False,
    ),
]


@app.callback()
def _root(
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version, expose_value=False
        ),
    ] = False,
) -> None:
    """A registry of crystals that learns from their electron charge densities.

    \b
    Examples:
      ecdreg ingest --fcc --source sample
      ecdreg train stacked
      ecdreg similar mp-1022
      ecdreg db shell -c "SELECT * FROM v_leaderboard"

    Exit codes: 0 ok, 1 failed, 2 usage, 3 database unreachable, 4 schema behind.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Parameters
    ----------
    arguments
        What follows ``ecdreg``; by default what the shell gave.

    Returns
    -------
    int
        0 ok, 1 failed, 2 usage, 3 database unreachable, 4 schema behind, 130 interrupted.
    """
    began = time.perf_counter()
    logs.set_verbosity(0)
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="ecdreg", standalone_mode=False)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command shows its help
            error.show()
        else:
            output.error(_usage(error))
        return USAGE
    except typer.Abort:
        output.error("aborted")
        return FAILED
    except SystemExit as exit:
        return exit.code if isinstance(exit.code, int) else FAILED if exit.code else 0
    finally:
        at_end.close()
        output.quiet.set(False)
        _log.info("finished in %.1f s", time.perf_counter() - began)
        logs.reset()
    return code if isinstance(code, int) else 0


def run() -> None:
    """Entry point of the program ``ecdreg``."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    sys.exit(main())


def _load(name: str) -> Any:
    """Import a command; every command below it takes ``--quiet`` and ``--verbose``."""
    module, _, attribute = COMMANDS[name].path.partition(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        command: Any = typer.main.get_group(found)
    else:
        single = command_group("")
        single.command(name)(found)
        command = typer.main.get_command(single)
    command.name = name
    for leaf in _leaves(command):
        name_types(leaf)
        leaf.params += _verbosity_options()
    return command


def _leaves(command: Any) -> Iterator[Any]:
    children = getattr(command, "commands", None)
    if children is None:
        yield command
        return
    for child in children.values():
        yield from _leaves(child)


def _verbosity_options() -> list[Any]:
    """The options ``--quiet`` and ``--verbose`` of one command."""

    def options(quiet: QuietOption = False, verbose: VerboseOption = 0) -> None: ...

    single = command_group("")
    single.command()(options)
    return list(typer.main.get_command(single).params)


def _exit_code(error: EcdregError) -> int:
    if isinstance(error, (DatabaseUnreachableError, UnsuitableServerError)):
        return UNREACHABLE
    if isinstance(error, SchemaBehindError):
        return SCHEMA_BEHIND
    return USAGE if isinstance(error, ConfigurationError) else FAILED


def _usage(error: Any) -> str:
    """The error of a command line, and the help that explains it."""
    message = _one_line(error.format_message()).removeprefix("Invalid value: ").removesuffix(".")
    message = re.sub(r"\.? Did you mean (.*)\?$", r" (did you mean \1?)", message)
    return f"{message[:1].lower()}{message[1:]}; see '{error.ctx.command_path if error.ctx else 'ecdreg'} -h'"


def _database_error(error: Exception) -> tuple[str, int] | None:
    """Message and exit code for a connection that was lost in the middle of the work; None for other errors."""
    if "sqlalchemy.exc" not in sys.modules:
        return None
    from sqlalchemy.exc import DBAPIError, OperationalError

    if not isinstance(error, DBAPIError):
        return None
    state = getattr(error.orig, "sqlstate", None)
    reason = _one_line(error.orig)
    if error.connection_invalidated or (
        isinstance(error, OperationalError) and (state or "57P").startswith(("08", "57P"))
    ):
        return f"the connection to the database was lost: {reason}; see `ecdreg db status`", UNREACHABLE
    if isinstance(error, OperationalError):  # disk full, out of memory, locks: not a bug of this code
        return f"the database failed: {reason}", FAILED
    return None


def _one_line(error: BaseException | str | None) -> str:
    return " ".join(str(error).split())
