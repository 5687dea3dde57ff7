"""Rate limiter: rate, download slots, retries and Retry-After."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ingest.sources.mp.objects import ObjectStore, object_key
from ingest.sources.mp.rate_limiter import RateLimiter, RetryableError, parse_retry_after
from tests.ingest.sources.mp_standin import Material, Standin, material


@pytest.fixture(scope="module")
def whole() -> list[Material]:
    """Ten materials with small grids."""
    return [material(number, points=12) for number in range(1, 11)]


@pytest.fixture
def limiter(tmp_path: Path) -> RateLimiter:
    """A rate limiter without noticeable waits, for three attempts."""
    return RateLimiter(tmp_path / "mp", per_second=1000, attempts=3, backoff=0.01)


def test_rate_is_shared_by_threads(tmp_path: Path) -> None:
    limiter = RateLimiter(tmp_path, per_second=50)
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: limiter.wait_for_turn(), range(21)))
    assert time.monotonic() - began >= 20 / 50 - 0.005


def test_clock_that_was_set_back_does_not_block(tmp_path: Path) -> None:
    limiter = RateLimiter(tmp_path)
    (tmp_path / "pace").write_text(f"{time.time() + 1e6}")
    began = time.monotonic()
    limiter.wait_for_turn()
    assert time.monotonic() - began < 60
    (tmp_path / "pace").write_text("17e")  # cut off
    limiter.wait_for_turn()


def test_at_most_four_simultaneous_downloads(standin: Standin, limiter: RateLimiter) -> None:
    standin.stall_after = 0
    store = ObjectStore(limiter, standin.url)
    keys = [object_key(task) for one in standin.materials.values() for task in one.objects]
    with ThreadPoolExecutor(10) as pool:
        fetched = pool.map(store.fetch, keys)
        while standin.busy < 4:
            time.sleep(0.01)
        time.sleep(0.3)  # a fifth would start in this time
        standin.stall_after = None
        sizes = [len(one.data) for one in fetched]
    assert len(sizes) == 10
    assert standin.busiest == 4
    assert standin.leaks == []


def test_download_slot_is_released_after_an_error(tmp_path: Path) -> None:
    limiter = RateLimiter(tmp_path, downloads=1)
    with pytest.raises(RuntimeError), limiter.download_slot():
        raise RuntimeError
    taken = threading.Event()

    def take() -> None:
        with limiter.download_slot():
            taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join(60)
    assert taken.is_set()


@pytest.mark.parametrize(("text", "seconds"), [(None, None), ("12", 12.0), ("soon", None)])
def test_retry_after_in_seconds(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text) == seconds


def test_retry_after_as_a_date() -> None:
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert (parse_retry_after("Wed, 21 Oct 2415 07:28:00 GMT") or 0) > 1e9


def test_rate_is_shared_by_processes(tmp_path: Path) -> None:
    began = time.monotonic()
    code = (
        "import sys; from pathlib import Path; from ingest.sources.mp.rate_limiter import RateLimiter;"
        "limiter = RateLimiter(Path(sys.argv[1]), per_second=20);"
        "[limiter.wait_for_turn() for _ in range(10)]"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert time.monotonic() - began >= 19 / 20 - 0.005


def test_download_slot_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ingest.sources.mp.rate_limiter import RateLimiter;"
        "slot = RateLimiter(Path(sys.argv[1]), downloads=1).download_slot(); slot.__enter__();"
        "print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
    with RateLimiter(tmp_path, downloads=1).download_slot():
        pass


def test_retries_are_logged_and_end_with_the_last_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    limiter = RateLimiter(tmp_path, attempts=3, backoff=0.001)
    attempts = []

    def fail() -> None:
        attempts.append(1)
        raise RetryableError(f"failure {len(attempts)}")

    with caplog.at_level(logging.DEBUG, logger="ingest"), pytest.raises(RetryableError, match="failure 3"):
        limiter.retry(fail)
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "attempt 1 failed (failure 1)",
        "attempt 2 failed (failure 2)",
    ]


def test_other_errors_are_not_retried(tmp_path: Path) -> None:
    attempts = []

    def fail() -> None:
        attempts.append(1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        RateLimiter(tmp_path, backoff=0.001).retry(fail)
    assert len(attempts) == 1


def test_delays_double_and_respect_retry_after(tmp_path: Path) -> None:
    limiter = RateLimiter(tmp_path)
    for attempt, longest in enumerate((1.0, 2.0, 4.0), 1):
        assert longest / 2 <= limiter.delay(attempt) <= longest
    assert limiter.delay(1, 30.0) == 30.0
    assert limiter.delay(3, 0.1) >= 2.0
