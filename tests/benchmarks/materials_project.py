"""Benchmark of an ingest from the Materials Project: speed and memory.

::

    python -m tests.benchmarks.materials_project --materials 500 --grid 48

A stand-in in a separate process serves synthetic rock salts with different cells, half of them
spin-polarised; ``ecdreg ingest --fcc`` runs with a new registry in a temporary folder. The memory is
the sum of the PSS (proportional set size) of all its processes, read every 0.2 s.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.ingest.conftest import gaussians
from tests.ingest.sources.mp_standin import KEY, Material, Standin, material


class BenchmarkStandin(Standin):
    """A stand-in that assembles each density on request: one grid for all materials, the cell of each."""

    def __init__(self, number: int, points: int) -> None:
        one = material(1, points=8)
        super().__init__([_without_object(n) for n in range(1, number + 1)])
        structure = one.structure
        shape = (points, points, points)
        total = gaussians(structure, shape, {"Li": (3.0, 0.45), "Cl": (7.0, 0.45)}).values * structure.volume
        self._blocks = [_block("total", total), _block("diff", 0.1 * total)]

    def object(self, task: str) -> bytes | None:
        number = int(task.removeprefix("mp-")) - 2_000_000
        one = self.materials.get(f"mp-{number}")
        if one is None:
            return None
        head = '{"data": {"@module": "pymatgen.io.vasp.outputs", "@class": "Chgcar", "poscar": {"structure": '
        opening = f'{head}{json.dumps(one.structure.as_dict())}}}, "data": {{'
        blocks = self._blocks if number % 2 == 0 else self._blocks[:1]
        comma, closing = gzip.compress(b", ", mtime=0), gzip.compress(b"}}}", mtime=0)
        # A gzip file may have several members: only the head is compressed on request.
        return gzip.compress(opening.encode(), mtime=0) + comma.join(blocks) + closing


def _without_object(number: int) -> Material:
    import tests.ingest.sources.mp_standin as module

    original = module.chgcar_object
    module.chgcar_object = lambda *_, **__: b""
    module.PAIRS = [("Li", "Cl")]  # one grid for all materials
    try:
        return material(number)
    finally:
        module.chgcar_object = original


def _block(name: str, values: np.ndarray[Any, Any]) -> bytes:
    text = json.dumps(values.tolist())
    return gzip.compress(f'"{name}": {{"data": {text}}}'.encode(), compresslevel=6, mtime=0)


def _serve(number: int, points: int, url: Any) -> None:
    with BenchmarkStandin(number, points).running() as standin:
        url.send(standin.url)
        url.recv()


def _memory(root: int) -> tuple[float, float]:
    """PSS of a process, and of the process with its descendants [MB]."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))

    def pss(process: int) -> float:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) / 1024
        return 0.0

    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return pss(root), sum(pss(process) for process in found if not _is_postgres(process))


def _is_postgres(process: int) -> bool:
    with contextlib.suppress(OSError):
        return "postgres" in Path(f"/proc/{process}/comm").read_text()
    return False


def main() -> None:
    """Measure an ingest and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--materials", type=int, default=500)
    parser.add_argument("--grid", type=int, default=48)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--recipe", default="paper-total")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ecdreg-bench-"))
    folder.chmod(0o711)
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(options.materials, options.grid, theirs), daemon=True
    )
    server.start()
    url = ours.recv()
    environment = {
        **os.environ,
        "ECDREG_HOME": str(folder / "home"),
        "HOME": str(folder),
        "MP_API_KEY": KEY,
        "MP_API_ENDPOINT": url,
        "AWS_ENDPOINT_URL_S3": url,
        "NO_PROXY": "127.0.0.1",
    }
    ecdreg = [sys.executable, "-c", "from cli.main import run; run()"]
    workers = [] if options.workers is None else ["--workers", str(options.workers)]
    try:
        subprocess.run([*ecdreg, "db", "start"], env=environment, check=True, stdout=subprocess.DEVNULL)
        began = time.monotonic()
        process = subprocess.Popen(
            [*ecdreg, "ingest", "--fcc", "--recipe", options.recipe, "--json", *workers],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        samples: list[tuple[float, float, float]] = []
        while process.poll() is None:
            samples.append((time.monotonic() - began, *_memory(process.pid)))
            time.sleep(0.2)
        report = json.loads(process.communicate()[0])
        wall = time.monotonic() - began
    finally:
        ours.send(None)
        server.join(10)
        subprocess.run([*ecdreg, "db", "stop"], env=environment, check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)
    busy = [sample for sample in samples if sample[0] > wall - report["seconds"]]
    thirds = [busy[i * len(busy) // 3 : (i + 1) * len(busy) // 3] for i in range(3)]
    result = {
        "materials": options.materials,
        "grid": options.grid,
        "outcomes": report["outcomes"],
        "seconds": round(wall, 1),
        "seconds_of_the_run": report["seconds"],
        "materials_per_second": round(options.materials / report["seconds"], 2),
        "peak_MB_all_processes": round(max(total for _, _, total in samples)),
        "peak_MB_main_process": round(max(own for _, own, _ in samples)),
        "peak_MB_all_processes_by_third": [round(max(total for _, _, total in third)) for third in thirds if third],
        "load_average": os.getloadavg()[0],
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
