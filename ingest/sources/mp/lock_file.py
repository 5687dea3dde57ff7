"""Lock file of an ingest: materials, calculations and checksums of their density objects.

::

    {"format": 1, "release": "2025.09.25",
     "materials": {"mp-22862": {"task_id": "mp-1234", "sha256": "..."}, "mp-1": {"task_id": null, "sha256": null}}}

``task_id`` null is a material without a density. Two ingests with the same lock file get the same
densities, or an outcome that names the object that has changed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.errors import ConfigurationError

__all__ = ["LockFile", "lock_file_of_run", "read_lock_file", "write_lock_file"]

_FORMAT = 1


@dataclass(frozen=True)
class LockFile:
    """Content of a lock file."""

    release: str | None
    """Version of the Materials Project's database."""
    materials: Mapping[str, tuple[str | None, str | None]]
    """Material id to task id and checksum; both None where there is no density."""


def read_lock_file(path: Path) -> LockFile:
    """Read a lock file.

    Raises
    ------
    ConfigurationError
        If it is not a lock file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ConfigurationError(
                f"{path} is a lock file of format {content['format']}, this ecdreg reads {_FORMAT}"
            )
        release = content["release"]
        materials = {
            str(ident): (_text(entry["task_id"]), _text(entry["sha256"]))
            for ident, entry in content["materials"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} is not a lock file: {type(error).__name__}: {error}") from None
    for ident, (task, sha256) in materials.items():
        if (task is None) != (sha256 is None) or not re.fullmatch(r"[0-9a-f]{64}", sha256 or "0" * 64):
            raise ConfigurationError(f"{path} has an incomplete entry for {ident}; remove the file to write a new one")
    return LockFile(_text(release), materials)


def write_lock_file(path: Path, lock: LockFile) -> None:
    """Write a lock file atomically, with sorted ids.

    Raises
    ------
    ConfigurationError
        If it cannot be written.
    """
    content = {
        "format": _FORMAT,
        "release": lock.release,
        "materials": {
            ident: {"task_id": task, "sha256": sha256} for ident, (task, sha256) in sorted(lock.materials.items())
        },
    }
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ConfigurationError(f"the lock file {path} cannot be written: {error}") from error


def lock_file_of_run(session: Session, source: str, run_id: int, *, release: str | None) -> LockFile:
    """Lock file of the materials of a run that are in the registry.

    Parameters
    ----------
    session
        Session on the registry's database.
    source
        Name of the source.
    run_id
        The run; its rejected and deferred materials are left out.
    release
        Version of the source's data.
    """
    rows = session.execute(
        text(
            """
            SELECT o.source_id, max(d.origin ->> 'task_id') AS task_id, max(d.origin ->> 'sha256') AS sha256
            FROM ingest_outcomes o
            JOIN crystals c ON c.source = :source AND c.source_id = o.source_id
            JOIN crystal_revisions r ON r.crystal_id = c.id AND r.is_current
            LEFT JOIN densities d ON d.revision_id = r.id
            WHERE o.run_id = :run AND o.outcome NOT IN ('rejected', 'deferred')
            GROUP BY o.source_id
            """
        ),
        {"source": source, "run": run_id},
    )
    return LockFile(release, {row.source_id: (row.task_id, row.sha256) for row in rows})


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise TypeError(f"{value!r} is not a text")
