"""What an ingest of the Materials Project would fetch, found without fetching it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from ingest.prepare import IngestOptions, input_sha256
from ingest.sources.mp.objects import ObjectMissingError, ObjectRefusedError, ObjectUnavailableError, object_key
from ingest.sources.mp.records import Density, MpRecord
from ingest.sources.mp.source import MpSource
from registry.jobs.progress import Progress, Silent
from registry.provenance import StandingOutcome

__all__ = ["Preview", "preview"]


@dataclass
class Preview:
    """What would be fetched."""

    materials: int = 0
    unchanged: int = 0
    """Nothing of them would be fetched: they are in the registry as they are."""
    objects: int = 0
    """Density objects."""
    bytes: int = 0
    """Of them."""
    cached: int = 0
    """Materials whose density object is in the cache."""
    without: int = 0
    """Materials without a density."""
    texts: int = 0
    """Materials with a text of the project's."""
    troubles: list[str] = field(default_factory=list)
    """Objects whose size is not known, and why."""

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self)


def preview(
    source: MpSource,
    options: IngestOptions,
    standing: Mapping[str, StandingOutcome],
    *,
    progress: Progress | None = None,
) -> Preview:
    """Ask for the sizes of the densities that would be downloaded.

    Parameters
    ----------
    source
        What would be ingested.
    options
        How.
    standing
        What became of its materials so far.
    progress
        Told of what happens.

    Raises
    ------
    SourceError
        If the service does not answer.
    """
    progress = progress or Silent()
    found = Preview()
    fingerprint = options.fingerprint()
    changed: list[MpRecord] = []
    for record in source.records():
        assert isinstance(record, MpRecord)
        found.materials += 1
        found.texts += record.has_description
        stands = standing.get(record.source_id)
        checksum = input_sha256(record, options, fingerprint=fingerprint)
        if (
            not options.refresh
            and stands is not None
            and stands.outcome != "deferred"
            and stands.input_sha256 == checksum
        ):
            found.unchanged += 1
        else:
            changed.append(record)
    missing = [record for record in changed if not source.is_cached(record)]
    found.cached = len(changed) - len(missing)
    wanted = [record.density for record in missing if record.density is not None]
    found.without = len(missing) - len(wanted)
    progress.begin("sizes of the densities", len(wanted))
    with ThreadPoolExecutor(4) as pool:
        for size in pool.map(_size, wanted):
            progress.advance()
            if isinstance(size, str):
                found.troubles.append(size)
            elif size is None:
                found.without += 1
            else:
                found.objects += 1
                found.bytes += size
    progress.end()
    return found


def _size(density: Density) -> int | str | None:
    """Bytes of the object; None where there is none, a line where that is not known."""
    for task, _ in density.candidates:
        try:
            return density.store.size(object_key(task))
        except ObjectMissingError:
            continue
        except (ObjectRefusedError, ObjectUnavailableError) as error:
            return str(error)
    return None
