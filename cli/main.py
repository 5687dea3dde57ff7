r"""The command ``ecdreg``: its commands, and the boundary where errors become exit codes.

Each module ``cmd_*`` has a function ``register(app)``; the list below is the only place that
knows them all. They import heavy code inside their functions, so that ``--help`` is quick.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli import output
from cli.commands import bench as cmd_bench
from cli.commands import cache as cmd_cache
from cli.commands import db as cmd_db
from cli.commands import evaluate as cmd_evaluate
from cli.commands import explain as cmd_explain
from cli.commands import index as cmd_index
from cli.commands import ingest as cmd_ingest
from cli.commands import leaderboard as cmd_leaderboard
from cli.commands import models as cmd_models
from cli.commands import plot as cmd_plot
from cli.commands import predict as cmd_predict
from cli.commands import propose as cmd_propose
from cli.commands import reference as cmd_peers
from cli.commands import report as cmd_report
from cli.commands import reproduce as cmd_reproduce
from cli.commands import search as cmd_search
from cli.commands import similar as cmd_similar
from cli.commands import split as cmd_split
from cli.commands import train as cmd_train
from cli.commands import tune as cmd_tune
from cli.options.common import at_end
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

# As one uses them; click would list single commands before groups.
ORDER = (
    "ingest",
    "split",
    "train",
    "tune",
    "leaderboard",
    "models",
    "encoders",
    "predict",
    "similar",
    "search",
    "propose",
    "explain",
    "report",
    "reproduce",
    "plot",
    "evaluate",
    "peers",
    "index",
    "bench",
    "cache",
    "db",
)


class _Boundary(TyperGroup):
    """Turns what commands raise into one line and an exit code; a bug keeps its traceback."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EcdregError as error:
            output.error(_one_line(error))
            raise typer.Exit(_exit_code(error)) from error
        except KeyboardInterrupt:
            output.error("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            told = _database_error(error)
            if told is None:
                raise
            message, code = told
            output.error(message)
            raise typer.Exit(code) from error


app = typer.Typer(
    cls=_Boundary,
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


@app.callback()
def _root(
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notes and no progress; results and errors only.")
    ] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
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
    output.quiet.set(quiet)


for _module in (
    cmd_ingest,
    cmd_split,
    cmd_train,
    cmd_tune,
    cmd_leaderboard,
    cmd_models,
    cmd_peers,
    cmd_predict,
    cmd_similar,
    cmd_search,
    cmd_propose,
    cmd_report,
    cmd_reproduce,
    cmd_plot,
    cmd_evaluate,
    cmd_explain,
    cmd_index,
    cmd_bench,
    cmd_cache,
    cmd_db,
):
    _module.register(app)


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
    return code if isinstance(code, int) else 0


def run() -> None:
    """Entry point of the program ``ecdreg``."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    sys.exit(main())


def _exit_code(error: EcdregError) -> int:
    if isinstance(error, (DatabaseUnreachableError, UnsuitableServerError)):
        return UNREACHABLE
    if isinstance(error, SchemaBehindError):
        return SCHEMA_BEHIND
    return USAGE if isinstance(error, ConfigurationError) else FAILED


def _usage(error: Any) -> str:
    """What is wrong with the command line, and which help tells more."""
    told = _one_line(error.format_message()).removeprefix("Invalid value: ").removesuffix(".")
    told = re.sub(r"\.? Did you mean (.*)\?$", r" (did you mean \1?)", told)
    return f"{told[:1].lower()}{told[1:]}; see '{error.ctx.command_path if error.ctx else 'ecdreg'} -h'"


def _database_error(error: Exception) -> tuple[str, int] | None:
    """What to say of a connection that was lost in the middle of the work; None for other errors."""
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
        return f"the connection to the database was lost: {reason}; `ecdreg db status` tells more", UNREACHABLE
    if isinstance(error, OperationalError):  # disk full, out of memory, locks: the server's trouble, not a bug
        return f"the database could not do it: {reason}", FAILED
    return None


def _one_line(error: BaseException | str | None) -> str:
    return " ".join(str(error).split())
