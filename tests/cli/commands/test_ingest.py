"""``ecdreg ingest`` as a person runs it: what it prints, its exit codes, Ctrl-C and a killed process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from tests.conftest import Invoke

COMMAND = [sys.executable, "-c", "from cli.main import run; run()", "ingest"]
SLOWLY = ("--source", "sample", "--fcc", "--limit", "16", "--workers", "2")
SOUND = """
    SELECT count(*) FROM crystal_revisions r
    WHERE (SELECT count(*) FROM slice_images s WHERE s.revision_id = r.id) = 1
      AND (SELECT count(*) FROM descriptions d WHERE d.revision_id = r.id) = 3
      AND (SELECT count(*) FROM densities d WHERE d.revision_id = r.id) >= 2
      AND (SELECT count(*) FROM property_values p WHERE p.revision_id = r.id) = 7
      AND EXISTS (SELECT FROM ingest_outcomes o WHERE o.revision_id = r.id)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset folder with formulas alone, one of them none."""
    folder = tmp_path / "formulas"
    folder.mkdir()
    (folder / "properties.csv").write_text("id,formula,efermi,colour\na,NaCl,1.5,white\nb,Xy,2,red\n", encoding="utf-8")
    return folder


@contextmanager
def running(url: str, home: Path) -> Iterator[subprocess.Popen[str]]:
    """A real ``ecdreg ingest`` in a session of its own; nothing of it is left at the end."""
    process = subprocess.Popen(
        [*COMMAND, *SLOWLY],
        env={**os.environ, "ECDREG_DATABASE_URL": url, "ECDREG_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def value(url: str, query: str) -> Any:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return row[0]


def wait_until(true: Callable[[], bool], *, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@contextmanager
def held_up(url: str, process: subprocess.Popen[str]) -> Iterator[None]:
    """Once the ingest has written two crystals: keep it from writing more, however slow the test is in between."""
    with psycopg.connect(url) as connection:

        def under_way() -> bool:
            if process.poll() is not None:
                pytest.fail(f"ended early with {process.returncode}: {process.communicate()}")
            connection.rollback()
            connection.execute("LOCK TABLE crystals IN SHARE MODE")
            row = connection.execute("SELECT count(*) FROM crystals").fetchone()
            assert row is not None
            if row[0] < 2:
                connection.rollback()
            return bool(row[0] >= 2)

        wait_until(under_way)
        yield
        connection.rollback()


def wait_for_the_server(url: str) -> None:
    """Until it has noticed that a client is gone, and let go of what that one held."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    wait_until(lambda: value(url, others) == 0)


def group_members(leader: int) -> set[int]:
    """Processes of a process group that are not zombies."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


# --------------------------------------------------------------------------------- in a terminal


def test_outcomes_and_reasons_are_printed(folder: Path, invoke: Invoke, engine: Engine) -> None:
    done = invoke("ingest", "--source", f"{folder}/", "--recipe", "metric", "--workers", 0)
    assert done.exit_code == 0, done.stderr
    assert "2 of 2 crystals" in done.stdout
    assert "partial" in done.stdout
    assert "rejected" in done.stdout
    assert "contains 'Xy', which is not an element" in done.stdout
    assert "colour" in done.stderr
    assert "v_ingest_outcomes" in done.stderr
    assert "next:" in done.stderr

    again = invoke("ingest", "--source", f"{folder}/", "--workers", 0)
    assert again.exit_code == 0
    assert "unchanged" in again.stdout
    assert "1 partial and 1 rejected as before" in again.stderr


def test_json(folder: Path, invoke: Invoke, engine: Engine) -> None:
    done = invoke("--quiet", "ingest", "--source", f"{folder}/", "--name", "mine", "--workers", 0, "--json")
    report = json.loads(done.stdout)
    assert done.stderr == ""
    assert (report["source"], report["status"], report["total"], report["in_registry"]) == ("mine", "finished", 2, 1)
    assert report["outcomes"] == {
        "created": 0,
        "updated": 0,
        "unchanged": 0,
        "partial": 1,
        "deferred": 0,
        "rejected": 1,
    }
    assert {reason["outcome"] for reason in report["reasons"]} == {"partial", "rejected"}


def test_an_ingest_without_any_crystal_fails(folder: Path, invoke: Invoke, engine: Engine) -> None:
    done = invoke("ingest", "--fcc", "--source", f"{folder}/", "--workers", 0)
    assert done.exit_code == 1
    assert "no structure, so its space group is unknown" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("error: nothing of formulas is in the registry")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "the whole Materials Project; select with"),
        (("--source", "mp"), 2, "the whole Materials Project; select with"),
        (("--source", "sample", "--dry-run"), 2, "is for the source mp"),
        (("--source", "sampel"), 2, "did you mean 'sample'"),
        (("--source", "sample", "--recipe", "metrik"), 2, "did you mean 'metric'"),
        (("--source", "sample", "--texts", "some"), 2, "source, compute, none"),
        (("--source", "sample", "--assume-fcc"), 2, "fcc"),
        (("--source", "sample", "--limit", "0"), 2, "limit"),
        (("--fcc", "--name", "mine", "--elements", "Na"), 2, "source 'mp' has its name"),
        (("--source", "./nowhere/"), 1, "not a folder"),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[str, ...], code: int, message: str, invoke: Invoke, engine: Engine
) -> None:
    done = invoke("ingest", *arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_table_without_its_column_is_a_failure_that_names_it(folder: Path, invoke: Invoke, engine: Engine) -> None:
    (folder / "properties.csv").write_text("id,composition\na,NaCl\n", encoding="utf-8")
    done = invoke("ingest", "--source", f"{folder}/")
    assert done.exit_code == 1
    assert done.stderr == f"error: {folder}/properties.csv has no column 'formula'; it has id, composition\n"


def test_help_has_examples(invoke: Invoke) -> None:
    done = invoke("ingest", "--help")
    assert done.exit_code == 0
    assert "ecdreg ingest --fcc --source sample" in done.stdout


# ----------------------------------------------------------------------------- with real signals


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_a_consistent_registry_and_is_continued(
    number: signal.Signals, cluster_url: str, home: Path, invoke: Invoke
) -> None:
    with running(cluster_url, home) as process:
        with held_up(cluster_url, process):
            # As a terminal does it: to all processes of the group.
            os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        _, stderr = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "run the same command to continue" in stderr
    assert "Traceback" not in stderr
    wait_until(lambda: not group_members(process.pid))
    assert value(cluster_url, "SELECT string_agg(status, ' ') FROM ingest_runs") == "interrupted"
    done = value(cluster_url, "SELECT count(*) FROM crystals")
    assert 2 <= done < 16
    assert value(cluster_url, SOUND) == done == value(cluster_url, "SELECT count(*) FROM ingest_outcomes")

    report = json.loads(invoke("--quiet", "ingest", *SLOWLY, "--json").stdout)
    assert report["outcomes"]["unchanged"] == done
    assert report["outcomes"]["created"] == 16 - done
    assert value(cluster_url, SOUND) == 16


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_and_is_continued(cluster_url: str, home: Path, invoke: Invoke) -> None:
    with running(cluster_url, home) as process:
        with held_up(cluster_url, process):
            assert len(group_members(process.pid)) > 2
            process.kill()
            process.wait()
        # The workers go by themselves, and the server notices that nobody holds the source.
        wait_until(lambda: not group_members(process.pid))
        wait_for_the_server(cluster_url)
    assert value(cluster_url, "SELECT string_agg(status, ' ') FROM ingest_runs") == "running"
    done = value(cluster_url, "SELECT count(*) FROM crystals")
    assert value(cluster_url, SOUND) == done < 16

    report = json.loads(invoke("--quiet", "ingest", *SLOWLY, "--json").stdout)
    assert report["outcomes"]["unchanged"] == done
    assert report["outcomes"]["created"] == 16 - done
    assert value(cluster_url, SOUND) == 16
    statuses = value(cluster_url, "SELECT string_agg(status, ' ' ORDER BY id) FROM ingest_runs")
    assert statuses == "interrupted finished"
