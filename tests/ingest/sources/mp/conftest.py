"""Stand-in for the Materials Project with three materials, and sources, clients and ingests that use it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from ingest.pipeline import IngestOptions, IngestReport, ingest
from ingest.sources.mp.client import ApiKey, MpClient
from ingest.sources.mp.lock_file import LockFile
from ingest.sources.mp.rate_limiter import RateLimiter
from ingest.sources.mp.source import MpAccess, MpSelection, MpSource
from registry.files.grids import GridStore
from registry.models import Crystal, CrystalRevision, Density, PropertyValue
from tests.ingest.sources.mp_standin import KEY, Material, Standin, material

HERE = IngestOptions(fcc=True, workers=0, recipes=("paper-total",))
"""No worker processes, and a recipe that needs only total densities."""
PLAIN = IngestOptions(fcc=True, workers=0, recipes=())


class MakeSource(Protocol):
    """Open the source on the stand-in."""

    def __call__(self, selection: MpSelection | None = None, *, lock: LockFile | None = None) -> MpSource: ...


class MakeClient(Protocol):
    """Make a client of the stand-in."""

    def __call__(self, *, page_size: int = 1000) -> MpClient: ...


class IngestMaterials(Protocol):
    """Ingest from the stand-in like a new process: the only state is in files and in the database."""

    def __call__(
        self, selection: MpSelection | None = None, *, options: IngestOptions = HERE, lock: LockFile | None = None
    ) -> IngestReport: ...


@pytest.fixture(scope="module")
def whole() -> list[Material]:
    """Three materials; the second is spin-polarised, the density of the third has the conventional cell."""
    return [material(1, points=12), material(2, points=12, spin=True), material(3, points=24, conventional=True)]


@pytest.fixture
def materials(whole: list[Material]) -> list[Material]:
    """A copy of the materials that a test may change."""
    return deepcopy(whole)


@pytest.fixture
def standin(materials: list[Material], mp_home: Path) -> Iterator[Standin]:
    """A running stand-in with the materials."""
    with Standin(materials).running() as standin:
        yield standin


@pytest.fixture
def limiter(tmp_path: Path) -> RateLimiter:
    """A rate limiter without noticeable waits."""
    return RateLimiter(tmp_path / "mp", per_second=1000, attempts=2, backoff=0.01)


@pytest.fixture
def client(standin: Standin, limiter: RateLimiter) -> MakeClient:
    """Function that makes a client."""

    def make(*, page_size: int = 1000) -> MpClient:
        return MpClient(ApiKey(KEY), limiter, endpoint=standin.url, page_size=page_size)

    return make


@pytest.fixture
def source(standin: Standin, limiter: RateLimiter) -> MakeSource:
    """Function that opens the source."""

    def make(selection: MpSelection | None = None, *, lock: LockFile | None = None) -> MpSource:
        return MpSource(
            selection or MpSelection(fcc=True),
            folder=limiter.folder,
            lock=lock,
            access=MpAccess(key=KEY, limiter=limiter, endpoint=standin.url, object_endpoint=standin.url),
        )

    return make


@pytest.fixture
def run(source: MakeSource, engine: Engine, home: Path) -> IngestMaterials:
    """Function that ingests into the test's database."""

    def run(
        selection: MpSelection | None = None, *, options: IngestOptions = HERE, lock: LockFile | None = None
    ) -> IngestReport:
        return ingest(engine, source(selection, lock=lock), options, grids=GridStore((home / "grids").as_uri()))

    return run


def outcomes(session: Session) -> dict[str, tuple[str, str | None]]:
    """Outcome and reason of each material."""
    session.rollback()
    rows = session.execute(text("SELECT source_id, outcome, reason FROM v_ingest_outcomes WHERE source = 'mp'"))
    return {row.source_id: (row.outcome, row.reason) for row in rows}


def values_of(session: Session, ident: str) -> dict[str, tuple[float, str]]:
    """Value and level of theory of each property of a material."""
    session.rollback()
    rows = session.execute(
        select(PropertyValue.property, PropertyValue.value, PropertyValue.level_of_theory)
        .join(CrystalRevision)
        .join(Crystal)
        .where(Crystal.source_id == ident, CrystalRevision.is_current)
    )
    return {row.property: (row.value, row.level_of_theory) for row in rows}


def densities_of(session: Session, ident: str) -> dict[str, Density]:
    """Stored densities of a material by kind."""
    session.rollback()
    query = select(Density).join(CrystalRevision).join(Crystal)
    found = session.scalars(query.where(Crystal.source_id == ident, CrystalRevision.is_current))
    return {density.kind: density for density in found}
