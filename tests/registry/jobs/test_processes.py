"""Tests of worker pools: their end during work, and the environment that workers inherit."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

import pytest

from registry.jobs.processes import worker_pool

# Results so large that workers are terminated while they write them.
TERMINATED = """
import time
from registry.jobs.processes import worker_pool

if __name__ == "__main__":
    for _ in range(4):
        with worker_pool(2, preload=[]) as pool:
            assert pool.submit(bytes, 1).result() == b"\\0"
            for _ in range(4):
                pool.submit(bytes, 300_000_000)
            time.sleep(0.5)
    print("ended")
"""


@pytest.mark.slow
def test_a_worker_that_is_terminated_while_it_writes_does_not_block_the_exit() -> None:
    done = subprocess.run([sys.executable, "-c", TERMINATED], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ended\n"


@pytest.mark.slow
def test_workers_have_ended_with_the_context_and_have_no_api_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MP_API_KEY", "x" * 32)
    with worker_pool(2, preload=[]) as pool:
        assert pool.submit(os.getenv, "MP_API_KEY").result() is None
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result() == "1"
        workers = [process.pid for process in multiprocessing.active_children()]
        assert workers
    assert multiprocessing.active_children() == []
    assert os.environ["MP_API_KEY"] == "x" * 32
