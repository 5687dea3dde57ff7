"""``ecdreg ingest --fcc`` as a person runs it: the Materials Project, a killed run, a key that stays secret."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ecdreg.ingestion import plan_ingest, preview_ingest
from ingest.sources.mp.objects import BUCKET, object_key
from registry.files.grids import GridStore
from registry.files.object_cache import ObjectCache
from registry.settings import Settings
from tests.conftest import Invoke
from tests.ingest.sources.mp_standin import KEY, Fault, Material, Standin, material

COMMAND = [sys.executable, "-c", "from cli.main import run; run()", "ingest", "--fcc", "--recipe", "paper-total"]


@pytest.fixture(scope="module")
def materials() -> list[Material]:
    return [material(number, points=12, spin=number % 2 == 0) for number in range(1, 51)]


@pytest.fixture
def standin(materials: list[Material], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    """Fifty materials, and an environment in which they are the Materials Project."""
    with Standin(materials).running() as standin:
        for name in list(os.environ):
            if name.startswith(("MP_", "AWS_", "MPRESTER_")) or name.lower().endswith("_proxy"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("MP_API_KEY", KEY)
        monkeypatch.setenv("MP_API_ENDPOINT", standin.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", standin.url)
        yield standin


def query(url: str, sql: str) -> Any:
    with psycopg.connect(url) as connection:
        return connection.execute(sql).fetchall()  # type: ignore[arg-type]


def start(url: str, home: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *options],
        env={**os.environ, "ECDREG_DATABASE_URL": url, "ECDREG_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def number(ident: str) -> int:
    """Of a material or of its calculation."""
    return int(ident.removeprefix("mp-")) % 1_000_000


def test_a_killed_run_is_continued_without_repeated_requests(standin: Standin, cluster_url: str, home: Path) -> None:
    # However slow this test is in killing it, the run cannot get further than that.
    standin.stall_after = 30
    process = start(cluster_url, home, "--workers", "1")
    try:
        deadline = time.monotonic() + 240
        while (done := query(cluster_url, "SELECT count(*) FROM ingest_outcomes")[0][0]) < 20:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
        process.communicate()
        standin.stall_after = None
    standin.settle()
    finished = {number(row[0]) for row in query(cluster_url, "SELECT source_id FROM ingest_outcomes")}
    assert 20 <= done <= len(finished) < 50
    before = standin.requested_objects()
    assert len(before) == len(set(before))
    # The interrupted download may be repeated, but neither finished crystals nor complete downloads.
    cached = ObjectCache(GridStore((home / "grids").as_uri())).names()
    names = {one: ObjectCache.name(BUCKET, object_key(f"mp-{2_000_000 + one}")) for one in range(1, 51)}
    whole = {one for one, name in names.items() if name in cached}
    assert finished <= whole <= {number(task) for task in before}
    standin.log.clear()

    process = start(cluster_url, home, "--workers", "1", "--json")
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    answer = json.loads(stdout)
    assert answer["outcomes"]["unchanged"] == len(finished)
    assert answer["outcomes"]["created"] == 50 - len(finished)
    assert {path for _, path, _ in standin.log if "/chgcars/" not in path} == {"/heartbeat", "/materials/summary/"}
    assert sorted(map(number, standin.requested_objects())) == sorted(set(range(1, 51)) - whole)
    counts = query(
        cluster_url,
        "SELECT (SELECT count(*) FROM crystals), (SELECT count(*) FROM crystal_revisions),"
        " (SELECT count(*) FROM densities WHERE kind <> 'deformation'),"
        " (SELECT count(*) FROM slice_images), (SELECT count(*) FROM descriptions)",
    )
    assert counts == [(50, 50, 75, 50, 150)]
    assert query(cluster_url, "SELECT status FROM ingest_runs ORDER BY id") == [("interrupted",), ("finished",)]
    assert KEY not in stdout + stderr
    assert standin.leaks == []


def test_the_materials_project_is_the_default(standin: Standin, invoke: Invoke, cluster_url: str) -> None:
    done = invoke("ingest", "--fcc", "--limit", 3, "--workers", 0)
    assert done.exit_code == 0, done.stderr
    assert "mp: 3 of 3 crystals" in done.stdout
    assert query(cluster_url, "SELECT outcome, count(*) FROM ingest_outcomes GROUP BY 1") == [("created", 3)]
    kinds = query(cluster_url, "SELECT kind, count(*) FROM densities GROUP BY 1 ORDER BY 1")
    assert kinds == [("deformation", 3), ("spin", 1), ("total", 3)]
    assert KEY not in done.stdout + done.stderr
    assert query(cluster_url, "SELECT source, source_release FROM ingest_runs") == [("mp", "2025.09.25")]


@pytest.mark.parametrize("value", [None, "", "tooshort", KEY + "1"])
def test_the_error_of_a_missing_or_malformed_key_has_the_address_for_keys(
    value: str | None, standin: Standin, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MP_API_KEY") if value is None else monkeypatch.setenv("MP_API_KEY", value)
    done = invoke("ingest", "--fcc")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "https://next-gen.materialsproject.org/api" in done.stderr
    assert not value or value not in done.stderr
    assert standin.log == []


def test_the_error_of_a_refused_key_has_the_address_for_keys(
    standin: Standin, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, cluster_url: str
) -> None:
    other = "X" * 32
    monkeypatch.setenv("MP_API_KEY", other)
    done = invoke("--quiet", "ingest", "--fcc")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "refuses the key in MP_API_KEY (403); get a key at https://next-gen.materialsproject.org/api" in done.stderr
    assert other not in done.stderr
    assert query(cluster_url, "SELECT count(*) FROM ingest_runs") == [(0,)]


def test_a_blocked_address_stops_with_one_line(standin: Standin, invoke: Invoke) -> None:
    standin.fail("/summary/", Fault(status=429, body=b'{"version": "blocked"}'))
    done = invoke("--quiet", "ingest", "--fcc")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "blocked the address of this machine" in done.stderr


def test_a_dry_run_prints_the_size_and_writes_nothing(
    standin: Standin, invoke: Invoke, cluster_url: str, settings: Settings
) -> None:
    done = invoke("ingest", "--fcc", "--dry-run", "--limit", 4, "--json")
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    bodies = [body for number in range(1, 5) for body in standin.materials[f"mp-{number}"].objects.values()]
    assert answer["bytes"] == sum(map(len, bodies))
    assert (answer["materials"], answer["objects"], answer["unchanged"]) == (4, 4, 0)
    plan = plan_ingest(settings, fcc=True, limit=4)
    assert answer == json.loads(json.dumps(asdict(preview_ingest(settings, plan).found))), "the same from Python"
    assert query(cluster_url, "SELECT count(*) FROM ingest_runs") == [(0,)]
    assert standin.requests("/chgcars/") == []
    assert "GB to download" in invoke("ingest", "--fcc", "--dry-run", "--limit", 1).stdout


def test_a_lock_file_is_written_once_and_selects_the_materials_afterwards(
    standin: Standin, invoke: Invoke, tmp_path: Path
) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("mp-1 mp-2 mp-3\n")
    lock = tmp_path / "mp.lock.json"
    options = ("--workers", 0, "--recipe", "paper-total", "--lock", lock)
    standin.fail("mp-2000002", Fault(status=403, times=1))
    first = invoke("ingest", "--fcc", "--ids", ids, *options)
    assert first.exit_code == 0, first.stderr
    assert "1 materials are not complete yet; run the same command again" in first.stderr
    assert not lock.exists()
    assert invoke("ingest", "--fcc", "--ids", ids, *options).exit_code == 0
    written = json.loads(lock.read_text())
    assert sorted(written["materials"]) == ["mp-1", "mp-2", "mp-3"]
    before = lock.read_bytes()
    standin.log.clear()
    third = invoke("ingest", "--fcc", *options)
    assert third.exit_code == 0, third.stderr
    assert lock.read_bytes() == before
    assert [row["material_ids"] for row in standin.requests("/summary/")] == ["mp-1,mp-2,mp-3"]
    again = invoke("ingest", "--fcc", "--elements", "Na", "--spacegroup", 225, "--unstable", *options)
    assert again.exit_code == 0, again.stderr
    assert "names the materials" in again.stderr
    assert "3 of 3" in again.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "that would be the whole Materials Project"),
        (("--fcc", "--spacegroup", "221"), "221 is not F-centred"),
        (("--fcc", "--source", "sample", "--dry-run"), "--dry-run is for the source mp, not for 'sample'"),
        (("--source", "./mine/", "--elements", "Na"), "--elements is for the source mp"),
        (("--fcc", "--lock", "new.json", "--limit", "3"), "leave out --limit"),
        (("--fcc", "--lock", "new.json", "--no-density"), "leave out --no-density"),
        (("--ids", "nowhere.txt"), "cannot be read"),
    ],
)
def test_options_that_do_not_fit_together(
    options: tuple[str, ...], message: str, standin: Standin, invoke: Invoke
) -> None:
    done = invoke("ingest", *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert standin.log == []


@pytest.mark.live
@pytest.mark.skipif(not os.environ.get("MP_API_KEY"), reason="needs MP_API_KEY")
def test_the_materials_project_itself(invoke: Invoke, tmp_path: Path, cluster_url: str) -> None:
    """Halite: one page, one core and one tasks request, one object, one text."""
    ids = tmp_path / "ids.txt"
    ids.write_text("mp-22862\n")
    done = invoke("ingest", "--fcc", "--ids", ids, "--workers", 0, "--recipe", "paper-total")
    assert done.exit_code == 0, done.stderr
    assert os.environ["MP_API_KEY"] not in done.stdout + done.stderr
    rows = query(cluster_url, "SELECT kind, n_electrons, origin ->> 'task_id', origin ->> 'etag' FROM densities")
    assert any(kind == "total" and electrons > 7.9 and task and etag for kind, electrons, task, etag in rows)
    properties = {row[0] for row in query(cluster_url, "SELECT property FROM property_values")}
    assert {"formation_energy_per_atom", "efermi", "k_vrh"} <= properties
