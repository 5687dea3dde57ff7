"""Cache of densities: a second registry downloads nothing; slim ingests; free disk space."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from ingest.dry_run import dry_run
from ingest.pipeline import IngestOptions, IngestReport, ingest
from ingest.sources.base import DownloadingSource
from ingest.sources.mp.lock_file import LockFile
from ingest.sources.mp.rate_limiter import RateLimiter
from ingest.sources.mp.source import MpAccess, MpSelection, MpSource
from registry.database import connect
from registry.errors import ConfigurationError
from registry.files.grids import GridStore
from registry.files.object_cache import ObjectCache
from registry.models import CrystalRevision, Density, IngestRun, SliceImage
from registry.settings import Settings
from tests.ingest.sources.mp_standin import KEY, Fault, Material, Standin, chgcar_object, material

HERE = IngestOptions(fcc=True, workers=0, recipes=("paper-total",))


class MakeCachedSource(Protocol):
    """Open the source on the stand-in with a cache."""

    def __call__(self, grids: GridStore, *, refresh: bool = False, lock: LockFile | None = None) -> MpSource: ...


class Run(Protocol):
    """Ingest from the stand-in with a cache."""

    def __call__(
        self, engine: Engine, grids: GridStore, options: IngestOptions = HERE, *, lock: LockFile | None = None
    ) -> IngestReport: ...


@pytest.fixture(scope="module")
def whole() -> list[Material]:
    return [material(1, points=12), material(2, points=12, spin=True)]


@pytest.fixture(params=["file", "memory"])
def grids(request: pytest.FixtureRequest, tmp_path: Path) -> GridStore:
    url = (tmp_path / "cache").as_uri() if request.param == "file" else f"memory://densities-{tmp_path.name}"
    return GridStore(url)


@pytest.fixture
def local(tmp_path: Path) -> GridStore:
    return GridStore((tmp_path / "cache").as_uri())


@pytest.fixture
def source(standin: Standin, limiter: RateLimiter) -> MakeCachedSource:
    """Function that opens the source with a cache."""

    def make(grids: GridStore, *, refresh: bool = False, lock: LockFile | None = None) -> MpSource:
        return MpSource(
            MpSelection(fcc=True),
            folder=limiter.folder,
            cache=ObjectCache(grids),
            refresh=refresh,
            lock=lock,
            access=MpAccess(key=KEY, limiter=limiter, endpoint=standin.url, object_endpoint=standin.url),
        )

    return make


@pytest.fixture
def run(source: MakeCachedSource) -> Run:
    """Function that ingests with a cache."""

    def run(
        engine: Engine, grids: GridStore, options: IngestOptions = HERE, *, lock: LockFile | None = None
    ) -> IngestReport:
        return ingest(engine, source(grids, refresh=options.refresh, lock=lock), options, grids=grids)

    return run


@pytest.fixture
def another(new_database: Callable[[], str], tmp_path: Path) -> Iterator[Engine]:
    """The database of a second registry."""
    engine = connect(Settings(home=tmp_path / "another", database_url=new_database()))
    yield engine
    engine.dispose()


def contents(engine: Engine) -> list[tuple[Any, ...]]:
    with Session(engine) as session:
        revisions = session.execute(select(CrystalRevision.content_sha256).order_by(CrystalRevision.content_sha256))
        densities = session.execute(
            select(
                Density.kind, Density.sha256, Density.origin["key"].astext, Density.origin["sha256"].astext
            ).order_by(Density.sha256)
        )
        slices = session.execute(select(SliceImage.sha256).order_by(SliceImage.sha256))
        return [*map(tuple, revisions), *map(tuple, densities), *map(tuple, slices)]


def object_requests(standin: Standin) -> list[tuple[str, str]]:
    return [
        (method, path.rpartition("/")[2].removesuffix(".json.gz"))
        for method, path, _ in standin.log
        if "/chgcars/" in path
    ]


def test_second_registry_downloads_nothing(
    run: Run, standin: Standin, engine: Engine, another: Engine, grids: GridStore, source: MakeCachedSource
) -> None:
    assert run(engine, grids).counts == {"created": 2}
    assert sorted(object_requests(standin)) == [("GET", "mp-2000001"), ("GET", "mp-2000002")]
    files = {file.name for file in grids.files()}
    standin.log.clear()
    found = dry_run(source(grids), HERE, {})
    assert (found.cached, found.objects, found.without) == (2, 0, 0)
    assert run(another, grids).counts == {"created": 2}
    assert object_requests(standin) == []
    assert contents(another) == contents(engine)
    assert {file.name for file in grids.files()} == files


def test_damaged_grid_is_downloaded_again(
    run: Run, standin: Standin, engine: Engine, another: Engine, local: GridStore
) -> None:
    run(engine, local)
    with Session(engine) as session:
        density = session.scalars(select(Density).where(Density.kind == "spin")).one()
    data = local.read(density.uri)
    assert data is not None
    local.write(density.uri, bytes([*data[:-1], data[-1] ^ 1]))
    standin.log.clear()
    assert run(another, local).counts == {"created": 2}
    assert object_requests(standin) == [("GET", "mp-2000002")]
    local.get(density.uri, density.sha256)  # restored for the first registry too


def test_only_refresh_compares_the_etag(run: Run, standin: Standin, engine: Engine, local: GridStore) -> None:
    run(engine, local)
    first = standin.materials["mp-1"]
    first.objects["mp-2000001"] = chgcar_object(first.structure, 14)
    standin.log.clear()
    assert run(engine, local).counts == {"unchanged": 2}
    assert object_requests(standin) == []
    refresh = IngestOptions(fcc=True, workers=0, recipes=("paper-total",), refresh=True)
    assert run(engine, local, refresh).counts == {"updated": 1, "unchanged": 1}
    assert sorted(object_requests(standin)) == [("GET", "mp-2000001"), ("HEAD", "mp-2000001"), ("HEAD", "mp-2000002")]
    standin.log.clear()
    assert run(engine, local, refresh).counts == {"unchanged": 2}
    assert {method for method, _ in object_requests(standin)} == {"HEAD"}


def test_refused_etag_request_keeps_the_density(run: Run, standin: Standin, engine: Engine, local: GridStore) -> None:
    run(engine, local)
    before = contents(engine)
    standin.fail("mp-2000001", Fault(status=403, method="HEAD"))
    report = run(engine, local, IngestOptions(fcc=True, workers=0, recipes=("paper-total",), refresh=True))
    assert report.counts == {"deferred": 1, "unchanged": 1}
    assert contents(engine) == before


def test_lock_file_takes_precedence_over_the_cache(
    run: Run, standin: Standin, engine: Engine, another: Engine, local: GridStore
) -> None:
    run(engine, local)
    with Session(engine) as session:
        locked_sha256 = session.scalars(select(Density.origin["sha256"].astext).where(Density.kind == "spin")).one()
    standin.log.clear()
    lock = LockFile(None, {"mp-1": ("mp-2000001", "0" * 64), "mp-2": ("mp-2000002", locked_sha256)})
    refresh = IngestOptions(fcc=True, workers=0, recipes=("paper-total",), refresh=True)
    assert run(another, local, refresh, lock=lock).counts == {"partial": 1, "created": 1}
    assert object_requests(standin) == [
        ("GET", "mp-2000001")
    ]  # not the cached one; a locked object needs no ETag request


def test_slim_takes_native_grids_from_the_cache(
    run: Run, standin: Standin, engine: Engine, another: Engine, local: GridStore
) -> None:
    run(engine, local)
    standin.log.clear()
    slim = IngestOptions(fcc=True, workers=0, recipes=("paper-deformation",), slim=True)
    assert run(another, local, slim).counts == {"created": 2}
    assert object_requests(standin) == []
    with Session(another) as session:
        assert set(session.scalars(select(Density.kind))) == {"deformation"}


def test_slim_keeps_the_densities_of_the_recipes(
    run: Run, standin: Standin, engine: Engine, another: Engine, local: GridStore, tmp_path: Path
) -> None:
    one = standin.materials["mp-2"]
    one.objects["mp-2000002"] = chgcar_object(one.structure, 64, spin=True)
    slim = IngestOptions(fcc=True, workers=0, recipes=("paper-total",), slim=True)
    assert run(engine, local, slim).counts == {"created": 2}
    assert ObjectCache(local).names() == frozenset(), "slim stores no native grids"
    with Session(engine) as session:
        rows = {tuple(density.grid_shape): density for density in session.scalars(select(Density))}
        assert {density.kind for density in rows.values()} == {"total"}
        assert set(rows) == {(12, 12, 12), (60, 60, 60)}
        large = rows[60, 60, 60]
        assert large.n_electrons == pytest.approx(10, rel=1e-6)
        assert large.origin is not None
        assert (large.origin["slim"], large.origin["native_grid"]) == (True, [64, 64, 64])
        assert large.origin["task_id"] == "mp-2000002"
        values, _ = local.get(large.uri, large.sha256)
        assert values.shape == (60, 60, 60)
        assert values.dtype == np.float32
        assert session.scalars(select(IngestRun.parameters["slim"].astext)).all() == ["true"]
        slim_slices = session.scalars(select(SliceImage.sha256).order_by(SliceImage.sha256)).all()
    assert run(engine, local, slim).counts == {"unchanged": 2}
    # The slices equal those from the native grids; a full ingest stores the full grids.
    native = GridStore((tmp_path / "native").as_uri())
    run(another, native)
    with Session(another) as session:
        assert session.scalars(select(SliceImage.sha256).order_by(SliceImage.sha256)).all() == slim_slices
    assert run(engine, local).counts == {"updated": 2}


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(2 * free, free, free))


def test_full_disk_stops_the_run_before_the_download(
    run: Run,
    standin: Standin,
    engine: Engine,
    local: GridStore,
    monkeypatch: pytest.MonkeyPatch,
    source: MakeCachedSource,
) -> None:
    assert isinstance(source(local), DownloadingSource)
    with_free(monkeypatch, 10**6)
    with pytest.raises(ConfigurationError, match="2 charge densities do not fit"):
        run(engine, local)
    assert object_requests(standin) == []
    with Session(engine) as session:
        assert session.execute(text("SELECT status FROM ingest_runs")).scalars().all() == ["failed"]
