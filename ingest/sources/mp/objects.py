"""Density objects in the project's open data store: one gzip-compressed JSON file a calculation.

The client hides whether an object is not there, refused, cut off or just late behind one
error. Here each is its own: what is not there stays so, everything else deserves another try.
Nothing of an object is executed: classes that it names are compared, never imported.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ingest.sources.mp.rate_limiter import RETRIED, RateLimiter
from ingest.sources.mp.session import retry_after
from registry.crystals import DensityData
from registry.errors import EcdregError, InputError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = [
    "BUCKET",
    "FetchedObject",
    "ObjectMissingError",
    "ObjectRefusedError",
    "ObjectStore",
    "ObjectUnavailableError",
    "decode_chgcar",
    "object_key",
]

BUCKET = "materialsproject-parsed"

_REGION = "us-east-1"
_KINDS = {"total": "total", "diff": "spin"}

_MAKING = threading.Lock()

T = TypeVar("T")


class ObjectMissingError(InputError):
    """There is no such object (404): asking again changes nothing."""


class ObjectRefusedError(InputError):
    """The store refuses to give it (403)."""


class ObjectUnavailableError(OSError):
    """The store did not give it, or not all of it, this time."""


@dataclass(frozen=True, eq=False)
class FetchedObject:
    """An object as it came."""

    key: str
    data: bytes
    etag: str | None

    @property
    def sha256(self) -> str:
        """Of the bytes as they came (hex)."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class ObjectStore:
    """The open data store. Picklable, so that worker processes fetch for themselves; needs no key."""

    manners: RateLimiter
    endpoint: str | None = None
    """URL of another S3 store; None: Amazon's."""

    def fetch(self, key: str) -> FetchedObject:
        """A whole object.

        Raises
        ------
        ObjectMissingError, ObjectRefusedError, ObjectUnavailableError
            If it is not there, is refused, or does not arrive whole after several attempts.
        """

        def get(client: Any) -> FetchedObject:
            with self.manners.download_slot():
                self.manners.wait_for_turn()
                answer = client.get_object(Bucket=BUCKET, Key=key)
                data = answer["Body"].read()
            expected = answer.get("ContentLength")
            if expected is not None and expected != len(data):
                raise ObjectUnavailableError(f"{len(data)} of {expected} bytes arrived")
            return FetchedObject(key, data, _bare(answer.get("ETag")))

        return self._patiently(key, get)

    def size(self, key: str) -> int:
        """Bytes of an object, without fetching it.

        Raises
        ------
        ObjectMissingError, ObjectRefusedError, ObjectUnavailableError
            As :meth:`fetch`.
        """
        return int(self._head(key)["ContentLength"])

    def etag(self, key: str) -> str | None:
        """The store's own checksum of an object, without fetching it.

        Raises
        ------
        ObjectMissingError, ObjectRefusedError, ObjectUnavailableError
            As :meth:`fetch`.
        """
        return _bare(self._head(key).get("ETag"))

    def _head(self, key: str) -> Mapping[str, Any]:
        def head(client: Any) -> Mapping[str, Any]:
            with self.manners.download_slot():
                self.manners.wait_for_turn()
                answer: Mapping[str, Any] = client.head_object(Bucket=BUCKET, Key=key)
                return answer

        return self._patiently(key, head)

    def _patiently(self, key: str, ask: Callable[[Any], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError, IncompleteReadError, ResponseStreamingError

        client = _client(self.endpoint, self.manners.connect_timeout, self.manners.read_timeout)
        reason = ""
        for attempt in range(1, self.manners.attempts + 1):
            asked = None
            try:
                return ask(client)
            except ClientError as error:
                about: Mapping[str, Any] = error.response.get("ResponseMetadata", {})
                status = about.get("HTTPStatusCode")
                if status == 404:
                    raise ObjectMissingError(f"no density object: {key} is not in {BUCKET} (404)") from None
                if status == 403:
                    raise ObjectRefusedError(f"density object refused: {key} (403)") from None
                reason = f"status {status}"
                asked = retry_after(about.get("HTTPHeaders", {}).get("retry-after"))
                if status not in RETRIED or (asked is not None and asked > self.manners.longest_pause):
                    break
            except (IncompleteReadError, ResponseStreamingError):
                reason = "it was cut off"
            except (BotoCoreError, ObjectUnavailableError) as error:  # reset, timed out, no such host
                reason = f"{type(error).__name__}: {error}"
            if attempt < self.manners.attempts:
                time.sleep(self.manners.pause(attempt, asked))
        raise ObjectUnavailableError(f"{key} could not be downloaded just now ({' '.join(reason.split())[:200]})")


def object_key(task_id: str) -> str:
    """Where the density of a calculation lies.

    Parameters
    ----------
    task_id
        In either spelling, ``mp-1234`` or ``mp-ft``; the store has the one that belongs to its
        number.

    Raises
    ------
    InputError
        If it is no id.
    """
    from emmet.core.mpid import AlphaID

    try:
        spelled = AlphaID(task_id.rpartition("-")[2], prefix="mp").string
    except ValueError as error:
        raise InputError(f"{task_id!r} is no task id of the Materials Project: {error}") from None
    return f"chgcars/{spelled}.json.gz"


def decode_chgcar(data: bytes, *, level_of_theory: str, provenance: str) -> tuple[Structure, list[DensityData]]:
    """Structure and densities in a density object.

    Parameters
    ----------
    data
        The bytes as they came.
    level_of_theory
        Of the calculation.
    provenance
        How it was calculated.

    Returns
    -------
    structure
        That of the calculation: its cell is the grid's, and need not be the material's.
    densities
        ``total`` and, of a spin-polarised calculation, ``spin``; values in e/Å^3 (the file's divided
        by the volume of the cell), float64.

    Raises
    ------
    InputError
        If it is damaged or no charge density; the message says where.
    """
    content = _json(data)
    # Its nested lists take several times the room of the arrays.
    del data
    if not isinstance(content, dict) or "data" not in content:
        raise InputError("damaged density object: it has no entry 'data'")
    chgcar = content.pop("data")
    if chgcar is None:
        raise InputError("density object is empty: its entry 'data' is null")
    named = chgcar.get("@class") if isinstance(chgcar, dict) else type(chgcar).__name__
    if named != "Chgcar":
        raise InputError(f"density object holds a {named}, not a Chgcar")
    structure = _structure(chgcar)
    grids = chgcar.get("data")
    if not isinstance(grids, dict) or "total" not in grids:
        raise InputError("damaged density object: it has no grid 'total'")
    densities = []
    for name, kind in _KINDS.items():
        if (grid := grids.pop(name, None)) is not None:
            values = _grid(grid, name) / structure.volume
            lattice = np.array(structure.lattice.matrix, dtype=np.float64)
            densities.append(DensityData(kind, level_of_theory, values, lattice, provenance))
    if len({density.values.shape for density in densities}) != 1:
        raise InputError("damaged density object: its grids have different shapes")
    return structure, densities


def _json(data: bytes) -> Any:
    import orjson

    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"damaged density object: gzip: {error}") from None
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:  # NaN too, which is no JSON
        raise InputError(f"damaged density object: no JSON: {error}") from None


def _structure(chgcar: dict[str, Any]) -> Structure:
    from pymatgen.core.structure import Structure

    # Depends on the version of pymatgen that wrote it.
    poscar = chgcar.get("poscar") or chgcar
    try:
        return Structure.from_dict(poscar["structure"])
    except EcdregError:
        raise
    except Exception as error:  # noqa: BLE001  pymatgen raises whatever a strange dictionary leads to
        raise InputError(f"damaged density object: no structure: {type(error).__name__}: {error}") from None


def _grid(grid: Any, name: str) -> NDArray[np.float64]:
    numbers = grid.get("data") if isinstance(grid, dict) else grid
    try:
        values = np.array(numbers, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"damaged density object: grid {name!r} is no block of numbers: {error}") from None
    if values.ndim != 3 or not values.size:
        raise InputError(f"damaged density object: grid {name!r} has shape {values.shape}")
    if not np.isfinite(values).all():
        raise InputError(f"damaged density object: grid {name!r} has values that are not finite")
    return values


def _bare(etag: str | None) -> str | None:
    return None if etag is None else etag.strip('"')


def _client(endpoint: str | None, connect_timeout: float, read_timeout: float) -> Any:
    with _MAKING:  # a client may be used by many threads, but not be made by them
        return _made(endpoint, connect_timeout, read_timeout)


@cache
def _made(endpoint: str | None, connect_timeout: float, read_timeout: float) -> Any:
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.credentials import CredentialResolver

    session = botocore.session.get_session()
    # The data are open: nobody's credentials are looked for, on disk or in a cloud's metadata service.
    session.register_component("credential_provider", CredentialResolver([]))
    return session.create_client(
        "s3",
        region_name=_REGION,
        endpoint_url=endpoint,
        config=Config(
            signature_version=UNSIGNED,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            retries={"total_max_attempts": 1},
            max_pool_connections=4,
            user_agent_extra="ecdreg",
        ),
    )
