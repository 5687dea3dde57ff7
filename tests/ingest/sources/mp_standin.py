"""Stand-in for the Materials Project: its API and its data store on 127.0.0.1, with every kind of failure.

It answers the unmodified client like the real service (measured): pages with ``meta.total_doc``, 400
for an unknown query parameter, an S3 store with path-style addresses. It logs every request, and
records a key in a request to the data store as a leak.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray
from pymatgen.core.structure import Structure

from tests.ingest.conftest import gaussians

KEY = "0123456789abcdefghijklmnopqrSECR"
RELEASE = "2025.09.25"
BUCKET = "materialsproject-parsed"

PAIRS = [(a, b) for a in ("Li", "Na", "K", "Rb", "Cs") for b in ("F", "Cl", "Br", "I")]
PAIRS += [(a, b) for a in ("Be", "Mg", "Ca", "Sr", "Ba") for b in ("O", "S", "Se", "Te")]
VALENCE = {
    "Li": 3, "Na": 7, "K": 9, "Rb": 9, "Cs": 9, "Be": 4, "Mg": 8, "Ca": 10, "Sr": 10, "Ba": 10,
    "F": 7, "Cl": 7, "Br": 7, "I": 7, "O": 6, "S": 6, "Se": 6, "Te": 6,
}  # fmt: skip
"""Valence electrons of the pseudopotentials of the Materials Project."""
PAGING = {"_limit", "_skip", "_fields", "_all_fields"}
PARAMETERS = {
    "summary": PAGING | {"crystal_system", "spacegroup_number", "is_stable", "elements", "deprecated", "material_ids"},
    "core": PAGING | {"material_ids", "deprecated"},
    "tasks": PAGING | {"task_ids"},
    "robocrys": PAGING | {"material_ids"},
}


@dataclass
class Fault:
    """Failure of the next responses to some requests."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    change: Callable[[bytes], bytes] | None = None
    """Changes the body; the length in the header is that of the changed body."""
    cut: bool = False
    """The connection ends in the middle of the body."""
    empty: bool = False
    """A page without documents."""
    times: int = 1_000_000
    skip: int = 0
    """Number of successful requests before."""
    method: str | None = None


@dataclass
class Material:
    """A material with its documents and objects."""

    ident: str
    structure: Structure
    summary: dict[str, Any]
    calc_types: dict[str, str]
    updated: dict[str, str]
    """Task id to the date of its update; a task without an entry has no document."""
    text: str | None
    objects: dict[str, bytes]
    """Task id in the spelling of the store to the density object."""


def rock_salt(a: str, b: str, edge: float, *, conventional: bool = False) -> Structure:
    """Rock salt in the primitive or the conventional cell."""
    primitive = Structure(
        np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) * edge / 2, [a, b], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
    )
    if not conventional:
        return primitive
    corners = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    sites = np.concatenate([corners, (corners + np.array([0.5, 0, 0])) % 1])
    return Structure(np.eye(3) * edge, [a] * 4 + [b] * 4, sites)


def chgcar_object(
    structure: Structure, points: int, *, spin: bool = False, change: Callable[[dict[str, Any]], Any] | None = None
) -> bytes:
    """A density object in the format of the store: values times volume, with the number of electrons as mean."""
    charges = {str(site.specie): (float(VALENCE[str(site.specie)]), 0.45) for site in structure}
    total = gaussians(structure, (points,) * 3, charges).values * structure.volume
    grids = {"total": total} | ({"diff": total * 0.1} if spin else {})
    return gzipped_chgcar(structure, grids, change=change)


def gzipped_chgcar(
    structure: Structure,
    grids: Mapping[str, NDArray[np.float64]],
    *,
    change: Callable[[dict[str, Any]], Any] | None = None,
) -> bytes:
    """gzip-compressed JSON of a Chgcar, written by pymatgen and monty."""
    from monty.json import MontyEncoder
    from pymatgen.io.vasp.inputs import Poscar
    from pymatgen.io.vasp.outputs import Chgcar

    chgcar = Chgcar(Poscar(structure), dict(grids))
    content = {"data": json.loads(json.dumps(chgcar, cls=MontyEncoder))}
    if change is not None:
        content = change(content)
    return gzip.compress(json.dumps(content).encode(), compresslevel=1, mtime=0)


def material(number: int, *, points: int = 24, spin: bool = False, conventional: bool = False) -> Material:
    """A synthetic rock salt with complete documents."""
    a, b = PAIRS[number % len(PAIRS)]
    edge = 4.6 + 0.003 * number
    structure = rock_salt(a, b, edge)
    ident, task = f"mp-{number}", f"mp-{2_000_000 + number}"
    return Material(
        ident,
        structure,
        summary={
            "material_id": ident,
            "formula_pretty": f"{a}{b}",
            "structure": structure.as_dict(),
            "symmetry": {"crystal_system": "Cubic", "symbol": "Fm-3m", "number": 225, "point_group": "m-3m"},
            "last_updated": "2025-01-01T00:00:00",
            "deprecated": False,
            "is_stable": True,
            "origins": [
                {"name": name, "task_id": task, "last_updated": "2024-01-01T00:00:00"}
                for name in ("electronic_structure", "magnetism")
            ],
            "formation_energy_per_atom": -1.0 - 0.001 * number,
            "energy_above_hull": 0.0,
            "efermi": 2.0 + 0.01 * number,
            "band_gap": 5.0,
            "total_magnetization": 0.0,
            "bulk_modulus": {"voigt": 31.0, "reuss": 29.0, "vrh": 30.0},
            "shear_modulus": {"voigt": 16.0, "reuss": 14.0, "vrh": 15.0},
        },
        calc_types={f"mp-{1_000_000 + number}": "GGA Structure Optimization", task: "GGA Static"},
        updated={task: "2024-01-01T00:00:00"},
        text=f"{a}{b} is Halite, Rock Salt structured and crystallizes in the cubic Fm-3m space group. "
        f"All {a}-{b} bond lengths are {edge / 2:.2f} Å.",
        objects={task: chgcar_object(rock_salt(a, b, edge, conventional=conventional), points, spin=spin)},
    )


class Standin:
    """The service; :meth:`running` starts it."""

    def __init__(self, materials: list[Material] | None = None) -> None:
        self.materials = {one.ident: one for one in materials or []}
        self.release = RELEASE
        self.version = "0.86.4"
        self.keys = {KEY}
        self.log: list[tuple[str, str, dict[str, str]]] = []
        self.leaks: list[str] = []
        """Requests to the data store that carried a key."""
        self.faults: list[tuple[str, Fault]] = []
        self.delay = 0.0
        self.stall_after: int | None = None
        """Number of answered downloads; any further one waits until this is None."""
        self.busy = self.busiest = 0
        """Downloads in progress, and their maximum so far."""
        self._downloads = 0
        self._connections = 0
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[Standin]:
        server = _server(self)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def fail(self, where: str, fault: Fault) -> None:
        """Let requests fail that have ``where`` in their path."""
        self.faults.append((where, fault))

    def requests(self, where: str, *, method: str = "GET") -> list[dict[str, str]]:
        """Queries of the requests that have ``where`` in their path."""
        return [query for verb, path, query in self.log if verb == method and where in path]

    def requested_objects(self) -> list[str]:
        """Task ids of the requested densities, in order."""
        return [path.rpartition("/")[2].removesuffix(".json.gz") for _, path, _ in self.log if "/chgcars/" in path]

    def settle(self, *, seconds: float = 60) -> None:
        """Wait until every request of ended clients is in the log."""
        # Connections are accepted in order: once this one is answered, all earlier ones have been counted.
        with urlopen(f"{self.url}/heartbeat", timeout=seconds) as answer:
            answer.read()
        end = time.monotonic() + seconds
        while self._connections:
            assert time.monotonic() < end, f"{self._connections} connections are still open"
            time.sleep(0.01)

    def connected(self, change: int) -> None:
        """Count a connection that begins (1) or ends (-1)."""
        with self._lock:
            self._connections += change

    def wait_for_release(self) -> None:
        """Wait for the delay of the next download."""
        with self._lock:
            self._downloads += 1
            number = self._downloads
        time.sleep(self.delay)
        while self.stall_after is not None and number > self.stall_after:
            time.sleep(0.01)

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for position, (where, fault) in enumerate(self.faults):
                if where in path and fault.times > 0 and fault.method in (None, method):
                    if fault.skip:
                        self.faults[position] = (where, replace(fault, skip=fault.skip - 1))
                        return None
                    self.faults[position] = (where, replace(fault, times=fault.times - 1))
                    return fault
        return None

    def note(self, method: str, path: str, query: dict[str, str]) -> None:
        with self._lock:
            self.log.append((method, path, query))

    def page(self, kind: str, query: dict[str, str], *, empty: bool) -> dict[str, Any]:
        documents = list(getattr(self, f"_{kind}")(query))
        first = int(query.get("_skip", 0))
        last = first + int(query.get("_limit", 100))
        fields = query.get("_fields", "").split(",") if query.get("_fields") else None
        chosen = [
            {name: value for name, value in document.items() if fields is None or name in fields}
            for document in documents[first:last]
        ]
        return {"data": [] if empty else chosen, "meta": {"total_doc": len(documents)}}

    def object(self, task: str) -> bytes | None:
        for one in self.materials.values():
            if task in one.objects:
                return one.objects[task]
        return None

    def _summary(self, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        ids = set(query["material_ids"].split(",")) if "material_ids" in query else None
        elements = set(query["elements"].split(",")) if "elements" in query else set()
        for one in self.materials.values():
            summary = one.summary
            if (
                (ids is None or one.ident in ids)
                and (query.get("crystal_system") in (None, summary["symmetry"]["crystal_system"]))
                and (query.get("spacegroup_number") in (None, str(summary["symmetry"]["number"])))
                and (query.get("is_stable") in (None, str(summary["is_stable"])))
                and elements <= {str(element) for element in one.structure.elements}
                and not summary["deprecated"]
            ):
                yield summary

    def _core(self, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        for ident in query["material_ids"].split(","):
            if ident in self.materials:
                yield {"material_id": ident, "calc_types": self.materials[ident].calc_types}

    def _tasks(self, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        requested = set(query["task_ids"].split(","))
        for one in self.materials.values():
            for task, when in one.updated.items():
                if task in requested:
                    yield {"task_id": task, "last_updated": when}

    def _robocrys(self, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        for ident in query["material_ids"].split(","):
            if ident in self.materials and (text := self.materials[ident].text) is not None:
                yield {"material_id": ident, "description": text, "robocrys_version": "0.2.11"}


def _server(standin: Standin) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        def process_request(self, request: Any, client_address: Any) -> None:
            standin.connected(1)
            super().process_request(request, client_address)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                standin.connected(-1)

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # a killed client
                super().handle_error(request, client_address)

    return Server(("127.0.0.1", 0), _handler(standin))


def _handler(standin: Standin) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            return

        def do_HEAD(self) -> None:
            self._answer("HEAD")

        def do_GET(self) -> None:
            self._answer("GET")

        def _answer(self, method: str) -> None:
            parts = urlsplit(self.path)
            query = {name: ",".join(values) for name, values in parse_qs(parts.query).items()}
            standin.note(method, parts.path, query)
            fault = standin.fault_for(method, parts.path)
            if fault is not None and fault.status is not None:
                self._send(fault.status, fault.body, dict(fault.headers), method)
            elif parts.path.startswith(f"/{BUCKET}/"):
                self._object(method, parts.path, fault)
            elif parts.path.rstrip("/") == "/heartbeat":
                heartbeat = {"db_version": standin.release, "access_controlled_batch_ids": ["gnome_r2scan_statics"]}
                self._json(200, heartbeat | {"version": standin.version}, method, fault)
            elif self.headers.get("x-api-key") not in standin.keys:
                self._json(403, {"detail": "Invalid authentication credentials"}, method)
            else:
                self._documents(parts.path, query, fault, method)

        def _documents(self, path: str, query: dict[str, str], fault: Fault | None, method: str) -> None:
            kind = path.strip("/").rpartition("/")[2]
            if kind not in PARAMETERS:
                self._json(404, {"detail": "Not Found"}, method)
            elif unknown := set(query) - PARAMETERS[kind]:
                self._json(400, {"detail": f"unknown parameters {sorted(unknown)}"}, method)
            else:
                page = standin.page(kind, query, empty=fault is not None and fault.empty)
                self._json(200, page, method, fault)

        def _object(self, method: str, path: str, fault: Fault | None) -> None:
            if any(name.lower() == "x-api-key" for name in self.headers) or "Authorization" in self.headers:
                standin.leaks.append(path)
            data = standin.object(path.rpartition("/")[2].removesuffix(".json.gz"))
            if data is None:
                body = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>none</Message></Error>"
                self._send(404, body if method == "GET" else b"", {"Content-Type": "application/xml"}, method)
                return
            if fault is not None and fault.change is not None:
                data = fault.change(data)
            headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Accept-Ranges": "bytes"}
            status = 200
            if method == "GET" and (byte_range := self.headers.get("Range")):
                first, _, last = byte_range.removeprefix("bytes=").partition("-")
                whole = len(data)
                end = min(int(last) if last else whole - 1, whole - 1)
                data, status = data[int(first) : end + 1], 206
                headers["Content-Range"] = f"bytes {first}-{end}/{whole}"
            if method == "GET":
                with standin._lock:
                    standin.busy += 1
                    standin.busiest = max(standin.busiest, standin.busy)
                standin.wait_for_release()
            try:
                self._send(status, data, headers, method, cut=fault is not None and fault.cut)
            finally:
                if method == "GET":
                    with standin._lock:
                        standin.busy -= 1

        def _json(self, status: int, content: Any, method: str, fault: Fault | None = None) -> None:
            body = json.dumps(content).encode()
            if fault is not None and fault.change is not None:
                body = fault.change(body)
            cut = fault is not None and fault.cut
            self._send(status, body, {"Content-Type": "application/json"}, method, cut=cut)

        def _send(
            self, status: int, body: bytes, headers: Mapping[str, str], method: str, *, cut: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if method != "HEAD":
                try:
                    self.wfile.write(body[: len(body) // 2] if cut else body)
                except (BrokenPipeError, ConnectionResetError):
                    cut = True
            if cut:
                self.close_connection = True

    return Handler
