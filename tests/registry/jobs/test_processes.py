"""Pools of workers: their end, whatever they were doing; what they inherit, and what they do not."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

import pytest

from registry.jobs.processes import worker_pool

# Results so large that workers are cut off while they write them; a process that waits for the rest never ends.
CUT_OFF = """
import time
from registry.jobs.processes import worker_pool

if __name__ == "__main__":
    for _ in range(4):
        with worker_pool(2, preload=[]) as pool:
            assert pool.submit(bytes, 1).result() == b"\\0"
            for _ in range(4):
                pool.submit(bytes, 300_000_000)
            time.sleep(0.5)
    print("left")
"""


@pytest.mark.slow
def test_a_worker_that_is_cut_off_while_it_answers_keeps_nobody_waiting() -> None:
    done = subprocess.run([sys.executable, "-c", CUT_OFF], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "left\n"


@pytest.mark.slow
def test_workers_are_gone_at_the_end_and_know_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MP_API_KEY", "x" * 32)
    with worker_pool(2, preload=[]) as pool:
        assert pool.submit(os.getenv, "MP_API_KEY").result() is None
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result() == "1"
        workers = [process.pid for process in multiprocessing.active_children()]
        assert workers
    assert multiprocessing.active_children() == []
    assert os.environ["MP_API_KEY"] == "x" * 32
