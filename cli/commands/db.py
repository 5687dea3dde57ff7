"""``ecdreg db``: the database of the registry."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from cli import output
from cli.connections import open_engine, settings
from cli.groups import command_group
from cli.options.arguments import JsonOption
from ecdreg import database

__all__ = ["group"]

group = command_group("The database: the embedded one, or that of ECDREG_DATABASE_URL.")


@group.command()
def status(json: JsonOption = False) -> None:
    """Show where the database is, whether it runs, and whether its schema is that of this version.

    Starts and changes nothing. Exits with 3 if the database does not run, does not answer or has no pgvector, with 4
    if its schema is not that of this version.

    \b
    Examples:
      ecdreg db status
      ecdreg db status --json
    """
    found = database.database_status(settings())
    if json:
        output.json(found)
    else:
        for name, value in asdict(found).items():
            if value is not None and name != "advice":
                output.line(f"{name:<11} {'yes' if value is True else 'no' if value is False else value}")
    for line in found.advice:
        output.note(line)
    if not found.running:
        raise typer.Exit(3)
    if found.schema != "current":
        raise typer.Exit(4)
    if found.pgvector is None:
        raise typer.Exit(3)


@group.command()
def upgrade() -> None:
    """Bring the schema to that of this version; rows stay.

    Every command upgrades the embedded database; only this command upgrades a server of your own.

    \b
    Examples:
      ecdreg db upgrade
      ECDREG_DATABASE_URL=postgresql://me@server/registry ecdreg db upgrade
    """
    done = database.upgrade_database(open_engine(check_schema=False))
    output.line(f"the schema {'is now' if done.changed else 'is already'} at revision {done.revision}")


@group.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="Revision to go back to, or `base`, which removes every table.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Return the schema to an earlier revision; rows that only the newer one can hold are lost.

    \b
    Examples:
      ecdreg db downgrade base
    """
    engine = open_engine(check_schema=False)
    if not yes:
        typer.confirm("Rows that the earlier schema cannot hold are lost. Go on?", abort=True)
    database.downgrade_database(engine, revision)
    output.line(f"the schema is now at {revision}")


@group.command()
def start() -> None:
    """Start the embedded server, as every command does that needs it.

    \b
    Examples:
      ecdreg db start
    """
    open_engine()
    server = database.start_server(settings())
    if server is None:
        output.line("the server of ECDREG_DATABASE_URL answers; nothing to start")
    else:
        output.line(f"running: {server.data} (process {server.pid})")


@group.command()
def stop() -> None:
    """Stop the embedded server; the next command that needs it starts it again.

    A command that is reading from the database at that moment fails; any other one starts the server again.

    \b
    Examples:
      ecdreg db stop
    """
    chosen = settings()
    stopped = database.stop_server(chosen)
    output.line(f"{'stopped' if stopped else 'was not running'}: {chosen.postgres_data}")


@group.command()
def url(json: JsonOption = False) -> None:
    """Print the URL for other programs, as psql, DBeaver or pandas; the password is shown as ***.

    The embedded database has no password; its socket's folder belongs to the server's user.

    \b
    Examples:
      psql "$(ecdreg db url)"
      ecdreg db url --json
    """
    open_engine(check_schema=False)
    found = database.database_url(settings())
    if json:
        output.json({"url": found})
    else:
        output.line(found)


@group.command()
def shell(
    command: Annotated[
        list[str] | None,
        typer.Option("--command", "-c", metavar="SQL", help="Run this and leave; may be given more than once."),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Run SQL on the database, with the bundled psql.

    \b
    Examples:
      ecdreg db shell
      ecdreg db shell -c "SELECT * FROM similar_crystals('mp-1022', k => 5)"
      ecdreg db shell --csv -c "SELECT * FROM v_leaderboard" > leaderboard.csv
    """
    import signal
    import subprocess

    open_engine()
    psql = database.psql(settings(), commands=command or (), csv=csv)
    sys.stdout.flush()
    before = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C goes to psql, which cancels a query
    try:
        code = subprocess.run(psql.arguments, env=psql.environment, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    # psql: 2 is a lost connection, 3 a failed script
    raise typer.Exit({0: 0, 2: 3}.get(code, 1))


@group.command("grant-reader")
def grant_reader(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Role to grant access; created if missing.", show_default=False)
    ] = None,
) -> None:
    """Let a role read the registry: its tables, views and functions, and no others.

    NAME becomes a member of `ecdreg_reader`. Both roles are created where they are missing; NAME may then log in, and
    has no password. Without NAME only `ecdreg_reader` is created.

    \b
    Examples:
      ecdreg db grant-reader alice
      ecdreg db grant-reader
    """
    _grant("reader", name)


@group.command("grant-writer")
def grant_writer(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Role to grant access; created if missing.", show_default=False)
    ] = None,
) -> None:
    """Let a role read and write the rows of the registry, but not change its schema.

    As `ecdreg db grant-reader`, with the role `ecdreg_writer`.

    \b
    Examples:
      ecdreg db grant-writer bob
    """
    _grant("writer", name)


def _grant(kind: Literal["reader", "writer"], name: str | None) -> None:
    done = database.grant_access(open_engine(), settings(), kind, name)
    verb = "reads" if kind == "reader" else "reads and writes"
    of_group = "" if done.role == done.group else f" as a member of {done.group}"
    output.line(f"{done.role} {verb} the registry{of_group}")
    if done.created and done.role != done.group:
        output.note(f"the role {done.role} is new and has no password; ALTER ROLE ... PASSWORD gives it one")
