r"""``ecdreg db``: the database itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli import output
from cli.options.common import JsonOption, command_group, open_engine, settings

if TYPE_CHECKING:
    from registry.postgres.schema import SchemaStatus
    from registry.settings import Settings

__all__ = ["group"]

group = command_group("The database: the embedded one, or that of ECDREG_DATABASE_URL.")


@group.command()
def status(json: JsonOption = False) -> None:
    """Where the database is, whether it runs, and whether its schema is that of this version.

    Starts and changes nothing. Exits with 3 where the database does not run, does not answer or has
    lost pgvector, with 4 where its schema is not that of this version.

    \b
    Examples:
      ecdreg db status
      ecdreg db status --json
    """
    found: dict[str, object]
    chosen = settings()
    if chosen.embedded:
        from registry.postgres import embedded

        state = embedded.status(chosen.postgres_data)
        found = {
            "kind": "embedded",
            "data": str(state.data),
            "running": state.running,
            "pid": state.pid,
            "socket": state.host,
            "log": str(state.log) if state.initialised else None,
        }
        if not state.running:
            _show(found, json=json)
            absent = "not running" if state.initialised else "not made yet"
            output.note(f"{absent}; the next command that needs it starts it, as `ecdreg db start` does")
            raise typer.Exit(3)
    else:
        found = {"kind": "own server", "running": True}
    schema = _schema()
    found |= {
        "url": _shown(chosen),
        "postgresql": schema.server_version,
        "pgvector": schema.vector_version,
        "schema": schema.state,
        "revision": schema.revision,
        "head": schema.head,
    }
    _show(found, json=json)
    if schema.vector_version is None and not chosen.embedded:
        output.note("the database has no extension `vector`; where your role may not create it, an administrator does")
    if schema.state != "current":
        output.note("run `ecdreg db upgrade`" if schema.state != "ahead" else "made by a newer ecdreg; update ecdreg")
        raise typer.Exit(4)
    if schema.vector_version is None:
        raise typer.Exit(3)


@group.command()
def upgrade() -> None:
    """Bring the schema to that of this version; rows stay.

    The embedded database is upgraded by every command by itself; a server of your own only by
    this one.

    \b
    Examples:
      ecdreg db upgrade
      ECDREG_DATABASE_URL=postgresql://me@server/registry ecdreg db upgrade
    """
    from registry.postgres.schema import schema_status
    from registry.postgres.schema import upgrade as upgrade_schema

    engine = open_engine(check_schema=False)
    before = schema_status(engine)
    upgrade_schema(engine)
    after = schema_status(engine)
    done = "is already" if before.state == "current" else "is now"
    output.line(f"the schema {done} at revision {after.revision}")


@group.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="Revision to go back to, or `base`, which removes every table.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take the schema back to an earlier revision. What only the newer one can hold is lost.

    \b
    Examples:
      ecdreg db downgrade base
    """
    from registry.postgres.schema import downgrade as downgrade_schema

    engine = open_engine(check_schema=False)
    if not yes:
        typer.confirm("Rows that the earlier schema cannot hold are lost. Go on?", abort=True)
    downgrade_schema(engine, revision)
    output.line(f"the schema is now at {revision}")


@group.command()
def start() -> None:
    """Start the embedded server; other commands do so by themselves.

    \b
    Examples:
      ecdreg db start
    """
    from registry.postgres import embedded

    open_engine()
    chosen = settings()
    if not chosen.embedded:
        output.line("the server of ECDREG_DATABASE_URL answers; nothing to start")
        return
    server = embedded.start(chosen.postgres_data)
    output.line(f"running: {server.data} (process {server.pid})")


@group.command()
def stop() -> None:
    """Stop the embedded server; the next command that needs it starts it again.

    A command that is asking the database at that moment fails; any other one starts the server again by itself.

    \b
    Examples:
      ecdreg db stop
    """
    from registry.errors import ConfigurationError
    from registry.postgres import embedded

    chosen = settings()
    if not chosen.embedded:
        raise ConfigurationError(
            "ECDREG_DATABASE_URL names a server of your own; only the embedded one is stopped here"
        )
    stopped = embedded.stop(chosen.postgres_data)
    output.line(f"{'stopped' if stopped else 'was not running'}: {chosen.postgres_data}")


@group.command()
def url() -> None:
    """Print the URL for other programs, as psql, DBeaver or pandas; the password is shown as ***.

    The embedded database has no password; its socket's folder belongs to the server's user.

    \b
    Examples:
      psql "$(ecdreg db url)"
    """
    chosen = settings()
    open_engine(check_schema=False)
    output.line(_shown(chosen))


@group.command()
def shell(
    command: Annotated[
        list[str] | None,
        typer.Option("--command", "-c", metavar="SQL", help="Run this and leave; may be given more than once."),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """SQL on the database, with the bundled psql.

    \b
    Examples:
      ecdreg db shell
      ecdreg db shell -c "SELECT * FROM similar_crystals('mp-1022', k => 5)"
      ecdreg db shell --csv -c "SELECT * FROM v_leaderboard" > leaderboard.csv
    """
    import os
    import signal
    import subprocess

    from registry.database import connection_url
    from registry.postgres.embedded import binary

    chosen = settings()
    open_engine()
    target = connection_url(chosen).set(drivername="postgresql")
    environment = os.environ.copy()
    if target.password is not None:  # not on the command line, which every user of the machine can read
        environment["PGPASSWORD"] = str(target.password)
        target = target._replace(password=None)
    arguments = [
        str(binary("psql")),
        "--no-psqlrc",
        "-v",
        "ON_ERROR_STOP=1",
        "-v",
        "SHOW_CONTEXT=never",  # of our functions, whose messages say it all
        "-d",
        target.render_as_string(hide_password=False),
    ]
    if csv:
        arguments.append("--csv")
    for sql in command or ():
        arguments += ["-c", sql]
    sys.stdout.flush()
    before = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is psql's: it cancels a query
    try:
        code = subprocess.run(arguments, env=environment, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    # psql: 2 is a lost connection, 3 a failed script
    raise typer.Exit({0: 0, 2: 3}.get(code, 1))


@group.command("grant-reader")
def grant_reader(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Role that shall read; made if missing.", show_default=False)
    ] = None,
) -> None:
    """Let a role read the registry, and nothing else: tables, views and functions, not other tables.

    NAME becomes a member of `ecdreg_reader`, which is made where it is missing, as is NAME (it may
    log in then, without a password of its own). Without NAME only `ecdreg_reader` is made.

    \b
    Examples:
      ecdreg db grant-reader alice
      ecdreg db grant-reader
    """
    _grant("reader", name)


@group.command("grant-writer")
def grant_writer(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Role that shall write; made if missing.", show_default=False)
    ] = None,
) -> None:
    """Let a role read and write the rows of the registry, but not change its schema.

    As `ecdreg db grant-reader`, by the role `ecdreg_writer`.

    \b
    Examples:
      ecdreg db grant-writer bob
    """
    _grant("writer", name)


def _grant(kind: Literal["reader", "writer"], name: str | None) -> None:
    from registry.postgres.roles import READER, WRITER, grant

    group_role = READER if kind == "reader" else WRITER
    made = grant(open_engine(), kind, name, only_registry=settings().embedded)
    shown = name or group_role
    verb = "reads" if kind == "reader" else "reads and writes"
    output.line(f"{shown} {verb} the registry{'' if shown == group_role else f' as a member of {group_role}'}")
    if made and shown != group_role:
        output.note(f"the role {shown} is new and has no password; ALTER ROLE ... PASSWORD gives it one")


def _schema() -> SchemaStatus:
    from registry.postgres.schema import schema_status

    return schema_status(open_engine(check_schema=False))


def _shown(chosen: Settings) -> str:
    from registry.database import connection_url
    from registry.postgres.connections import masked_url

    return masked_url(connection_url(chosen))


def _show(found: dict[str, object], *, json: bool) -> None:
    if json:
        output.json(found)
        return
    for name, value in found.items():
        if value is not None:
            output.line(f"{name:<11} {'yes' if value is True else 'no' if value is False else value}")
