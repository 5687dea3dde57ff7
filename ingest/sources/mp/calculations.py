"""Which calculation a density comes from, and at which level of theory a property was calculated.

The project keeps one density object per calculation. Of a material, the static PBE and PBE+U
calculations have one; the newest is meant. Two requests per hundred materials answer that for
all of them, and the answers are kept in a file until the project's database has a new version, so
that a run which goes on where another was cut off asks for none of them again.
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

from ingest.readers.levels import UNSPECIFIED, level_named
from ingest.sources.base import RawDescription
from ingest.sources.mp.client import MpClient
from registry.checksums import json_sha256

__all__ = ["Answers", "Calculations", "answers_of", "number_of"]

_STATIC = ("GGA Static", "GGA+U Static")
_VERSION = 1

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Calculations:
    """The calculations of one material."""

    types: tuple[tuple[str, str], ...] = ()
    """(task id, type), as ``("mp-1234", "GGA Static")``."""
    candidates: tuple[str, ...] = ()
    """Task ids that may have a density, the newest first."""
    known: bool = True
    """Whether the project has a document of this material's calculations."""

    def level_of(self, task_id: str) -> str:
        """Level of theory of one of the calculations; ``unspecified`` where it is none of them."""
        number = number_of(task_id)
        for task, kind in self.types:
            if number_of(task) == number:
                return level_named(kind.split(" ")[0])
        return UNSPECIFIED

    @property
    def why_no_density(self) -> str | None:
        """Why no density can be there; None if one can."""
        if self.candidates:
            return None
        if not self.known:
            return "no density: the Materials Project lists no calculation of this material"
        others = sorted({kind for _, kind in self.types})
        there_are = f"; there are {', '.join(others)}" if others else ""
        return f"no GGA static density: no calculation is of that type{there_are}"


class Answers:
    """What was asked of one version of the project's database.

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
    def at(cls, folder: Path, client: MpClient) -> Answers:
        """The file of the client's service and database version; those of others are removed."""
        about = json_sha256([client.endpoint, client.database_version])
        path = folder / f"answers-{about[:16]}.json"
        for other in folder.glob("answers-*.json") if folder.is_dir() else ():
            if other != path:
                other.unlink(missing_ok=True)
        return cls(path)

    def calculations(self, ident: str) -> Calculations:
        """The calculations of a material that was asked for."""
        about = self._materials[ident]
        return Calculations(
            tuple((task, kind) for task, kind in about["types"]), tuple(about.get("candidates", ())), about["known"]
        )

    def description(self, ident: str) -> RawDescription | None:
        """The project's text, if it has one."""
        text = self._materials.get(ident, {}).get("text")
        return None if not text else RawDescription(text[0], "robocrystallographer", text[1])

    def lacks(self, ident: str, updated: str, entry: str) -> bool:
        """Whether something is not known of a material as it was updated last."""
        about = self._materials.get(ident)
        if about is None or about["updated"] != updated or entry not in about:
            return True
        # A document that did not come is asked for again, and what hangs on it.
        return entry != "text" and not about["known"]

    def learn(self, ident: str, updated: str, **entries: Any) -> None:
        """Take an answer in."""
        about = self._materials.get(ident)
        if about is None or about["updated"] != updated:
            about = self._materials[ident] = {"updated": updated}
        if "types" in entries:  # which is the newest of them has to be asked again
            about.pop("candidates", None)
        about.update(entries)

    def save(self) -> None:
        """Write the file, whole or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({"version": _VERSION, "materials": self._materials}), encoding="utf-8")
        part.replace(self._path)


def answers_of(
    client: MpClient, answers: Answers, updated: Mapping[str, str], *, tasks: bool = True, texts: bool = True
) -> Answers:
    """Ask for what is not known yet, in as few requests as ids fit into.

    Parameters
    ----------
    client
        Who answers.
    answers
        What is known; it is completed and saved.
    updated
        Material id to when the project updated it last.
    tasks
        Which calculation is the newest; not needed where a lock file says it.
    texts
        Robocrystallographer's texts too.

    Raises
    ------
    SourceError
        If the service does not answer.
    """
    unknown = [ident for ident, when in updated.items() if answers.lacks(ident, when, "types")]
    documents = client.materials(unknown, fields=["material_id", "calc_types"]) if unknown else {}
    for ident in unknown:
        types = _types(documents.get(ident))
        answers.learn(ident, updated[ident], types=types, known=ident in documents)
    if tasks:
        undecided = [ident for ident, when in updated.items() if answers.lacks(ident, when, "candidates")]
        statics = {
            ident: [task for task, kind in answers.calculations(ident).types if kind in _STATIC] for ident in undecided
        }
        wanted = [task for some in statics.values() for task in some]
        when = _last_updated(client.tasks(wanted)) if wanted else {}
        for ident in undecided:
            answers.learn(ident, updated[ident], candidates=_newest_first(statics[ident], when))
    if texts:
        silent = [ident for ident, at in updated.items() if answers.lacks(ident, at, "text")]
        found = client.descriptions(silent) if silent else {}
        for ident in silent:
            answers.learn(ident, updated[ident], text=_text(found.get(ident)))
    answers.save()
    return answers


def number_of(ident: str) -> int:
    """The number of an id in either spelling, by which ids are compared: ``mp-149`` and ``mp-ft`` are 149.

    Raises
    ------
    ValueError
        If it is no id.
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
    # Densities exist of calculations without a document; those come last, the latest id first.
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
