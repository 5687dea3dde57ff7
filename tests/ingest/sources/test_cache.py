"""The cache of densities: a second registry downloads nothing again; slim ingestion; room on the disk."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from ingest.densities.slim import BYTES_PER_CRYSTAL, slim_densities
from ingest.dry_run import dry_run
from ingest.pipeline import IngestOptions, IngestReport, ingest
from ingest.preflight import check_free_space, required_bytes
from ingest.preparation.prepare import prepare_files
from ingest.sources.base import DownloadEstimate, DownloadingSource
from ingest.sources.mp.lock_file import LockFile
from ingest.sources.mp.rate_limiter import RateLimiter
from ingest.sources.mp.source import AVERAGE_OBJECT, MpSelection, MpSource
from registry.crystals import DensityData
from registry.database import connect
from registry.errors import ConfigurationError
from registry.files.grids import GridStore
from registry.files.object_cache import ObjectCache
from registry.jobs.progress import Silent
from registry.models import CrystalRevision, Density, IngestRun, SliceImage
from registry.settings import Settings
from tests.ingest.conftest import gaussians
from tests.ingest.sources.mp_standin import KEY, Fault, Material, Standin, chgcar_object, material, rock_salt

HERE = IngestOptions(fcc=True, workers=0, recipes=("paper-total",))

Run = Callable[..., IngestReport]


@pytest.fixture(scope="module")
def whole() -> list[Material]:
    return [material(1, points=12), material(2, points=12, spin=True)]


@pytest.fixture
def standin(whole: list[Material], mp_home: Path) -> Iterator[Standin]:
    with Standin(deepcopy(whole)).running() as standin:
        yield standin


@pytest.fixture(params=["file", "memory"])
def grids(request: pytest.FixtureRequest, tmp_path: Path) -> GridStore:
    url = (tmp_path / "cache").as_uri() if request.param == "file" else f"memory://densities-{tmp_path.name}"
    return GridStore(url)


@pytest.fixture
def local(tmp_path: Path) -> GridStore:
    return GridStore((tmp_path / "cache").as_uri())


@pytest.fixture
def source(standin: Standin, tmp_path: Path) -> Callable[..., MpSource]:
    def make(grids: GridStore, **changes: Any) -> MpSource:
        limiter = RateLimiter(tmp_path / "mp", per_second=1000, attempts=2, backoff=0.01)
        return MpSource(
            MpSelection(fcc=True),
            folder=limiter.folder,
            key=KEY,
            limiter=limiter,
            endpoint=standin.url,
            object_endpoint=standin.url,
            cache=ObjectCache(grids),
            **changes,
        )

    return make


@pytest.fixture
def run(source: Callable[..., MpSource]) -> Run:
    def run(engine: Engine, grids: GridStore, options: IngestOptions = HERE, **changes: Any) -> IngestReport:
        chosen = source(grids, refresh=options.refresh, **changes)
        return ingest(engine, chosen, options, grids=grids)

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


def asked(standin: Standin) -> list[tuple[str, str]]:
    return [
        (method, path.rpartition("/")[2].removesuffix(".json.gz"))
        for method, path, _ in standin.log
        if "/chgcars/" in path
    ]


# ---------------------------------------------------------------------------- downloads


def test_a_second_registry_downloads_nothing(
    run: Run, standin: Standin, engine: Engine, another: Engine, grids: GridStore, source: Callable[..., MpSource]
) -> None:
    assert run(engine, grids).counts == {"created": 2}
    assert sorted(asked(standin)) == [("GET", "mp-2000001"), ("GET", "mp-2000002")]
    files = {file.name for file in grids.files()}
    standin.log.clear()
    found = dry_run(source(grids), HERE, {})
    assert (found.cached, found.objects, found.without) == (2, 0, 0)
    assert run(another, grids).counts == {"created": 2}
    assert asked(standin) == []
    assert contents(another) == contents(engine)
    assert {file.name for file in grids.files()} == files


def test_what_is_damaged_is_downloaded_again(
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
    assert asked(standin) == [("GET", "mp-2000002")]
    local.get(density.uri, density.sha256)  # whole again, for the first registry too


def test_only_a_refresh_asks_whether_an_object_has_changed(
    run: Run, standin: Standin, engine: Engine, local: GridStore
) -> None:
    run(engine, local)
    first = standin.materials["mp-1"]
    first.objects["mp-2000001"] = chgcar_object(first.structure, 14)
    standin.log.clear()
    assert run(engine, local).counts == {"unchanged": 2}
    assert asked(standin) == []
    refresh = IngestOptions(fcc=True, workers=0, recipes=("paper-total",), refresh=True)
    assert run(engine, local, refresh).counts == {"updated": 1, "unchanged": 1}
    assert sorted(asked(standin)) == [("GET", "mp-2000001"), ("HEAD", "mp-2000001"), ("HEAD", "mp-2000002")]
    standin.log.clear()
    assert run(engine, local, refresh).counts == {"unchanged": 2}
    assert {method for method, _ in asked(standin)} == {"HEAD"}


def test_a_refused_question_costs_no_density(run: Run, standin: Standin, engine: Engine, local: GridStore) -> None:
    run(engine, local)
    before = contents(engine)
    standin.fail("mp-2000001", Fault(status=403, method="HEAD"))
    report = run(engine, local, IngestOptions(fcc=True, workers=0, recipes=("paper-total",), refresh=True))
    assert report.counts == {"deferred": 1, "unchanged": 1}
    assert contents(engine) == before


def test_a_lock_file_overrules_the_cache(
    run: Run, standin: Standin, engine: Engine, another: Engine, local: GridStore
) -> None:
    run(engine, local)
    with Session(engine) as session:
        pinned = session.scalars(select(Density.origin["sha256"].astext).where(Density.kind == "spin")).one()
    standin.log.clear()
    lock = LockFile(None, {"mp-1": ("mp-2000001", "0" * 64), "mp-2": ("mp-2000002", pinned)})
    refresh = IngestOptions(fcc=True, workers=0, recipes=("paper-total",), refresh=True)
    assert run(another, local, refresh, lock=lock).counts == {"partial": 1, "created": 1}
    assert asked(standin) == [("GET", "mp-2000001")]  # not the cached one; and what is pinned needs no question


# --------------------------------------------------------------------------------- slim


def test_slim_takes_native_grids_from_the_cache(
    run: Run, standin: Standin, engine: Engine, another: Engine, local: GridStore
) -> None:
    run(engine, local)
    standin.log.clear()
    slim = IngestOptions(fcc=True, workers=0, recipes=("paper-deformation",), slim=True)
    assert run(another, local, slim).counts == {"created": 2}
    assert asked(standin) == []
    with Session(another) as session:
        assert set(session.scalars(select(Density.kind))) == {"deformation"}


@pytest.mark.parametrize("kind", ["total", "spin"])
def test_small_grids_keep_every_electron(kind: str) -> None:
    from ingest.slices.recipes import RECIPES

    structure = rock_salt("Na", "Cl", 5.6)
    density = gaussians(structure, (72, 48, 64), {"Na": (7, 0.4), "Cl": (7, 0.4)}, kind=kind)
    recipe = RECIPES["paper" if kind == "spin" else "paper-total"]
    assert slim_densities([density], [RECIPES["paper-deformation"]]) == []
    [small] = slim_densities([density], [recipe])
    assert small.values.shape == (60, 48, 60)
    assert small.values.dtype == np.float32
    assert small.origin == {"slim": True, "native_grid": [72, 48, 64]}
    assert small.n_electrons == pytest.approx(density.n_electrons, rel=1e-7)
    # A Gaussian of 0.4 Å has no waves that the smaller grid cannot carry.
    exact = gaussians(structure, (60, 48, 60), {"Na": (7, 0.4), "Cl": (7, 0.4)})
    np.testing.assert_allclose(small.values, exact.values, atol=1e-5 * exact.values.max())


def test_slim_keeps_what_the_recipes_need(
    run: Run, standin: Standin, engine: Engine, another: Engine, local: GridStore, tmp_path: Path
) -> None:
    one = standin.materials["mp-2"]
    one.objects["mp-2000002"] = chgcar_object(one.structure, 64, spin=True)
    slim = IngestOptions(fcc=True, workers=0, recipes=("paper-total",), slim=True)
    assert run(engine, local, slim).counts == {"created": 2}
    assert ObjectCache(local).names() == frozenset(), "native grids are what slim is to avoid"
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
        thin = session.scalars(select(SliceImage.sha256).order_by(SliceImage.sha256)).all()
    assert run(engine, local, slim).counts == {"unchanged": 2}
    # The same slices as from the native grids; and a full ingest brings the full grids.
    native = GridStore((tmp_path / "native").as_uri())
    run(another, native)
    with Session(another) as session:
        assert session.scalars(select(SliceImage.sha256).order_by(SliceImage.sha256)).all() == thin
    assert run(engine, local).counts == {"updated": 2}


def test_slim_is_for_every_source(tmp_path: Path, gaussian_density: Callable[..., DensityData]) -> None:
    from pymatgen.io.vasp.inputs import Poscar
    from pymatgen.io.vasp.outputs import Chgcar

    structure = rock_salt("Na", "Cl", 5.6)
    density = gaussian_density(structure, (64, 64, 64), {"Na": (7, 0.4), "Cl": (7, 0.4)})
    Chgcar(Poscar(structure), {"total": density.values * structure.volume}).write_file(tmp_path / "CHGCAR")
    done = prepare_files(
        None, tmp_path / "CHGCAR", options=IngestOptions(texts="none", recipes=("paper-total",), slim=True)
    )
    assert done.data is not None, done
    [kept] = done.data.densities
    assert kept.values.shape == (60, 60, 60)
    assert kept.n_electrons == pytest.approx(14, rel=1e-5)


def test_slim_without_a_recipe_makes_no_sense() -> None:
    with pytest.raises(ConfigurationError, match="there is no recipe"):
        IngestOptions(recipes=(), slim=True)
    assert IngestOptions(slim=True).fingerprint() != IngestOptions().fingerprint()
    assert IngestOptions(refresh=True).fingerprint() == IngestOptions().fingerprint()


# --------------------------------------------------------------------------------- room


class PredictedProperties(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, line: str) -> None:
        self.lines.append(line)


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(2 * free, free, free))


def test_how_much_is_said_before_it_begins(monkeypatch: pytest.MonkeyPatch, local: GridStore) -> None:
    said = PredictedProperties()
    with_free(monkeypatch, 40 * 10**9)
    check_free_space(DownloadEstimate(781, 3, 781 * AVERAGE_OBJECT), HERE, grids=local, progress=said)
    assert len(said.lines) == 1
    assert said.lines[0].startswith("781 charge densities to download, about 14.5 GB, 3 more are in the cache")
    check_free_space(DownloadEstimate(0, 0, 0), HERE, grids=local, progress=said)
    assert len(said.lines) == 1
    slim = IngestOptions(slim=True)
    assert required_bytes(DownloadEstimate(781, 3, 781 * AVERAGE_OBJECT), slim) == 784 * BYTES_PER_CRYSTAL < 3e9


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch, local: GridStore) -> None:
    with_free(monkeypatch, 10**9)
    download = DownloadEstimate(781, 0, 781 * AVERAGE_OBJECT)
    with pytest.raises(ConfigurationError, match=r"do not fit: about 36\.3 GB are needed and 1\.0 GB free .*--slim"):
        check_free_space(download, HERE, grids=local, progress=Silent())
    with pytest.raises(ConfigurationError, match="ECDREG_CACHE to a larger disk, or"):
        check_free_space(download, IngestOptions(slim=True), grids=local, progress=Silent())
    check_free_space(download, HERE, grids=GridStore("memory://roomy"), progress=Silent())  # not a disk of this machine


def test_a_full_disk_stops_the_run_before_it_downloads(
    run: Run, standin: Standin, engine: Engine, local: GridStore, monkeypatch: pytest.MonkeyPatch, source: Any
) -> None:
    assert isinstance(source(local), DownloadingSource)
    with_free(monkeypatch, 10**6)
    with pytest.raises(ConfigurationError, match="2 charge densities do not fit"):
        run(engine, local)
    assert asked(standin) == []
    with Session(engine) as session:
        assert session.execute(text("SELECT status FROM ingest_runs")).scalars().all() == ["failed"]
