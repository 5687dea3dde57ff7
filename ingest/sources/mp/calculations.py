"""Calculations of Materials Project materials: those with a density, and their levels of theory.

The Materials Project stores one density object per calculation. The static PBE and PBE+U
calculations of a material have one; the newest is used. Two requests per hundred materials return
the calculations of all of them. The responses are kept in a file until the database has a new
version, so that a run that continues an interrupted one does not request them again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ingest.readers.levels_of_theory import UNSPECIFIED, normalize_level_of_theory
from ingest.sources.base import RawDescription
from ingest.sources.mp.client import MpClient
from registry.checksums import json_sha256

__all__ = ["Calculations", "ResponseCache", "number_of", "request_calculations"]

_STATIC = ("GGA Static", "GGA+U Static")
_VERSION = 1

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Calculations:
    """Calculations of one material."""

    types: tuple[tuple[str, str], ...] = ()
    """(task id, type), as ``("mp-1234", "GGA Static")``."""
    candidates: tuple[str, ...] = ()
    """Task ids that may have a density, the newest first."""
    listed: bool = True
    """Whether the Materials Project has a document of this material's calculations."""

    def level_of_theory(self, task_id: str) -> str:
        """Level of theory of a calculation; ``unspecified`` for a calculation of another material."""
        number = number_of(task_id)
        for task, kind in self.types:
            if number_of(task) == number:
                return normalize_level_of_theory(kind.split(" ")[0])
        return UNSPECIFIED

    @property
    def no_density_reason(self) -> str | None:
        """Reason why the material has no density; None if it may have one."""
        if self.candidates:
            return None
        if not self.listed:
            return "no density: the Materials Project lists no calculation of this material"
        others = sorted({kind for _, kind in self.types})
        there_are = f"; there are {', '.join(others)}" if others else ""
        return f"no GGA static density: no calculation is of that type{there_are}"


class ResponseCache:
    """Responses of one version of the Materials Project's database, kept in a file.

    Parameters
    ----------
    path
        The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._materials: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and content.get("version") == _VERSION:
                self._materials = content["materials"]

    @classmethod
    def open(cls, folder: Path, client: MpClient) -> ResponseCache:
        """Open the file of the client's service and database version; remove the files of others."""
        about = json_sha256([client.endpoint, client.database_version])
        path = folder / f"answers-{about[:16]}.json"
        for other in folder.glob("answers-*.json") if folder.is_dir() else ():
            if other != path:
                other.unlink(missing_ok=True)
        return cls(path)

    def calculations(self, ident: str) -> Calculations:
        """Calculations of a material that was requested."""
        about = self._materials[ident]
        return Calculations(
            tuple((task, kind) for task, kind in about["types"]), tuple(about.get("candidates", ())), about["known"]
        )

    def description(self, ident: str) -> RawDescription | None:
        """Text of the Materials Project; None where it has none."""
        text = self._materials.get(ident, {}).get("text")
        return None if not text else RawDescription(text[0], "robocrystallographer", text[1])

    def is_missing(self, ident: str, updated: str, entry: str) -> bool:
        """Whether an entry of the material at its last update is not in the cache."""
        about = self._materials.get(ident)
        if about is None or about["updated"] != updated or entry not in about:
            return True
        # A missing document is requested again, with everything that depends on it.
        return entry != "text" and not about["known"]

    def add(self, ident: str, updated: str, **entries: Any) -> None:
        """Add entries of a material."""
        about = self._materials.get(ident)
        if about is None or about["updated"] != updated:
            about = self._materials[ident] = {"updated": updated}
        if "types" in entries:  # the newest of them has to be requested again
            about.pop("candidates", None)
        about.update(entries)

    def save(self) -> None:
        """Write the file atomically."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({"version": _VERSION, "materials": self._materials}), encoding="utf-8")
        part.replace(self._path)


def request_calculations(
    client: MpClient, cache: ResponseCache, updated: Mapping[str, str], *, tasks: bool = True, texts: bool = True
) -> None:
    """Request the entries that the cache does not have, with as many ids per request as possible, and save it.

    Parameters
    ----------
    client
        Client of the service.
    cache
        Earlier responses; the new ones are added.
    updated
        Material id to the date of its last update.
    tasks
        Request the dates of the calculations, which select the newest; a lock file makes them unnecessary.
    texts
        Request the texts of robocrystallographer.

    Raises
    ------
    SourceError
        If the service does not answer.
    """
    unknown = [ident for ident, when in updated.items() if cache.is_missing(ident, when, "types")]
    documents = client.materials(unknown, fields=["material_id", "calc_types"]) if unknown else {}
    for ident in unknown:
        types = _types(documents.get(ident))
        cache.add(ident, updated[ident], types=types, known=ident in documents)
    if tasks:
        undecided = [ident for ident, when in updated.items() if cache.is_missing(ident, when, "candidates")]
        statics = {
            ident: [task for task, kind in cache.calculations(ident).types if kind in _STATIC] for ident in undecided
        }
        wanted = [task for some in statics.values() for task in some]
        when = _last_updated(client.tasks(wanted)) if wanted else {}
        for ident in undecided:
            cache.add(ident, updated[ident], candidates=_newest_first(statics[ident], when))
    if texts:
        without_text = [ident for ident, at in updated.items() if cache.is_missing(ident, at, "text")]
        found = client.descriptions(without_text) if without_text else {}
        for ident in without_text:
            cache.add(ident, updated[ident], text=_text(found.get(ident)))
    cache.save()


def number_of(ident: str) -> int:
    """Number of an id in either spelling, by which ids are compared: 149 for ``mp-149`` and ``mp-ft``.

    Raises
    ------
    ValueError
        If it is not an id.
    """
    from emmet.core.mpid import AlphaID

    return int(AlphaID(ident.rpartition("-")[2]))


def _types(document: Document | None) -> list[list[str]]:
    types = (document or {}).get("calc_types")
    if not isinstance(types, dict):
        return []
    named = [[task, kind] for task, kind in types.items() if isinstance(kind, str) and _is_id(task)]
    return sorted(named, key=lambda pair: number_of(pair[0]))


def _last_updated(documents: Iterable[Document]) -> dict[int, datetime]:
    found: dict[int, datetime] = {}
    for document in documents:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            when = datetime.fromisoformat(document["last_updated"])
            found[number_of(document["task_id"])] = when if when.tzinfo else when.replace(tzinfo=UTC)
    return found


def _newest_first(tasks: Sequence[str], when: Mapping[int, datetime]) -> list[str]:
    # Some calculations with a density have no document; they come last, the largest id first.
    never = datetime.min.replace(tzinfo=UTC)
    return sorted(tasks, key=lambda task: (when.get(number_of(task), never), number_of(task)), reverse=True)


def _text(document: Document | None) -> list[str | None] | None:
    text = (document or {}).get("description")
    if not isinstance(text, str) or not text.strip():
        return None
    version = (document or {}).get("robocrys_version")
    return [text, version if isinstance(version, str) else None]


def _is_id(task: Any) -> bool:
    try:
        number_of(task)
    except (ValueError, AttributeError):
        return False
    return True
