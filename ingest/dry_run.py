"""Dry run of an ingest from the Materials Project: a list of the downloads, without downloading."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ingest.preparation.checksums import input_sha256
from ingest.preparation.options import IngestOptions
from ingest.sources.mp.objects import ObjectMissingError, ObjectRefusedError, ObjectUnavailableError, object_key
from ingest.sources.mp.records import DensityLocation, MpRecord
from ingest.sources.mp.source import MpSource
from registry.jobs.progress import Progress, Silent
from registry.provenance import StandingOutcome

__all__ = ["DryRunReport", "dry_run"]


@dataclass
class DryRunReport:
    """Numbers of materials and objects, and bytes, that an ingest would download."""

    materials: int = 0
    unchanged: int = 0
    """Materials that are in the registry unchanged; nothing is downloaded for them."""
    objects: int = 0
    """Density objects to download."""
    bytes: int = 0
    """Size of these objects."""
    cached: int = 0
    """Materials with their density object in the cache."""
    without: int = 0
    """Materials without a density."""
    texts: int = 0
    """Materials with a text of the Materials Project."""
    troubles: list[str] = field(default_factory=list)
    """Objects of unknown size, with the reason."""


def dry_run(
    source: MpSource,
    options: IngestOptions,
    standing: Mapping[str, StandingOutcome],
    *,
    progress: Progress | None = None,
) -> DryRunReport:
    """Request the sizes of the density objects that an ingest would download.

    Parameters
    ----------
    source
        Materials that would be ingested.
    options
        Options of the ingest.
    standing
        Last outcome of each material, by id.
    progress
        Receives the progress.

    Raises
    ------
    SourceError
        If the service does not answer.
    """
    progress = progress or Silent()
    report = DryRunReport()
    fingerprint = options.fingerprint()
    changed: list[MpRecord] = []
    for record in source.records():
        assert isinstance(record, MpRecord)
        report.materials += 1
        report.texts += record.has_description
        last = standing.get(record.source_id)
        checksum = input_sha256(record, options, fingerprint=fingerprint)
        if not options.refresh and last is not None and last.outcome != "deferred" and last.input_sha256 == checksum:
            report.unchanged += 1
        else:
            changed.append(record)
    missing = [record for record in changed if not source.is_cached(record)]
    report.cached = len(changed) - len(missing)
    wanted = [record.density for record in missing if record.density is not None]
    report.without = len(missing) - len(wanted)
    progress.begin("sizes of the densities", len(wanted))
    with ThreadPoolExecutor(4) as pool:
        for size in pool.map(_size, wanted):
            progress.advance()
            if isinstance(size, str):
                report.troubles.append(size)
            elif size is None:
                report.without += 1
            else:
                report.objects += 1
                report.bytes += size
    progress.end()
    return report


def _size(density: DensityLocation) -> int | str | None:
    """Bytes of the object; None where there is no object, a reason where the size is unknown."""
    for task, _ in density.candidates:
        try:
            return density.store.size(object_key(task))
        except ObjectMissingError:
            continue
        except (ObjectRefusedError, ObjectUnavailableError) as error:
            return str(error)
    return None
