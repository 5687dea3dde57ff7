"""Density objects in the open data store of the Materials Project: one gzip-compressed JSON file per calculation.

mp-api raises one error for an object that is missing, refused, truncated or late. Here each has its
own error: a missing object stays missing, every other failure may be repeated. Nothing in an object
is executed: class names are compared, never imported.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ingest.sources.mp.rate_limiter import RETRIED_STATUSES, RateLimiter, RetryableError, parse_retry_after
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

_CLIENT_LOCK = threading.Lock()

T = TypeVar("T")


class ObjectMissingError(InputError):
    """The object does not exist (404); another request would not change that."""


class ObjectRefusedError(InputError):
    """The store refuses the object (403)."""


class ObjectUnavailableError(OSError):
    """The store did not deliver the whole object; a later run may succeed."""


@dataclass(frozen=True, eq=False)
class FetchedObject:
    """A downloaded object."""

    key: str
    data: bytes
    etag: str | None

    @property
    def sha256(self) -> str:
        """SHA-256 of the downloaded bytes (hex)."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class ObjectStore:
    """The open data store. Picklable, so that worker processes download themselves; needs no key."""

    limiter: RateLimiter
    endpoint: str | None = None
    """URL of another S3 store; None: Amazon."""

    def fetch(self, key: str) -> FetchedObject:
        """Download an object.

        Raises
        ------
        ObjectMissingError, ObjectRefusedError, ObjectUnavailableError
            If it does not exist, is refused, or does not arrive completely after several attempts.
        """

        def get(client: Any) -> FetchedObject:
            with self.limiter.download_slot():
                self.limiter.wait_for_turn()
                response = client.get_object(Bucket=BUCKET, Key=key)
                data = response["Body"].read()
            expected = response.get("ContentLength")
            if expected is not None and expected != len(data):
                raise RetryableError(f"{len(data)} of {expected} bytes arrived")
            return FetchedObject(key, data, _unquoted(response.get("ETag")))

        return self._with_retries(key, get)

    def size(self, key: str) -> int:
        """Size of an object in bytes, without a download.

        Raises
        ------
        ObjectMissingError, ObjectRefusedError, ObjectUnavailableError
            As :meth:`fetch`.
        """
        return int(self._head(key)["ContentLength"])

    def etag(self, key: str) -> str | None:
        """ETag of an object, the checksum of the store, without a download.

        Raises
        ------
        ObjectMissingError, ObjectRefusedError, ObjectUnavailableError
            As :meth:`fetch`.
        """
        return _unquoted(self._head(key).get("ETag"))

    def _head(self, key: str) -> Mapping[str, Any]:
        def head(client: Any) -> Mapping[str, Any]:
            with self.limiter.download_slot():
                self.limiter.wait_for_turn()
                response: Mapping[str, Any] = client.head_object(Bucket=BUCKET, Key=key)
                return response

        return self._with_retries(key, head)

    def _with_retries(self, key: str, request: Callable[[Any], T]) -> T:
        client = _client(self.endpoint, self.limiter.connect_timeout, self.limiter.read_timeout)
        try:
            return self.limiter.retry(lambda: self._attempt(key, lambda: request(client)))
        except RetryableError as error:
            raise _unavailable(key, str(error)) from None

    def _attempt(self, key: str, request: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError, IncompleteReadError, ResponseStreamingError

        try:
            return request()
        except ClientError as error:
            metadata: Mapping[str, Any] = error.response.get("ResponseMetadata", {})
            status = metadata.get("HTTPStatusCode")
            if status == 404:
                raise ObjectMissingError(f"no density object: {key} is not in {BUCKET} (404)") from None
            if status == 403:
                raise ObjectRefusedError(f"density object refused: {key} (403)") from None
            retry_after = parse_retry_after(metadata.get("HTTPHeaders", {}).get("retry-after"))
            too_long = retry_after is not None and retry_after > self.limiter.max_retry_after
            if status not in RETRIED_STATUSES or too_long:
                raise _unavailable(key, f"status {status}") from None
            raise RetryableError(f"status {status}", retry_after=retry_after) from None
        except (IncompleteReadError, ResponseStreamingError):
            raise RetryableError("the download was truncated") from None
        except BotoCoreError as error:  # connection reset, timeout, unknown host
            raise RetryableError(f"{type(error).__name__}: {error}") from None


def object_key(task_id: str) -> str:
    """Key of the density object of a calculation.

    Parameters
    ----------
    task_id
        In either spelling, ``mp-1234`` or ``mp-ft``; the keys of the store have the spelling that
        belongs to the number.

    Raises
    ------
    InputError
        If it is not an id.
    """
    from emmet.core.mpid import AlphaID

    try:
        spelled = AlphaID(task_id.rpartition("-")[2], prefix="mp").string
    except ValueError as error:
        raise InputError(f"{task_id!r} is not a task id of the Materials Project: {error}") from None
    return f"chgcars/{spelled}.json.gz"


def decode_chgcar(data: bytes, *, level_of_theory: str, provenance: str) -> tuple[Structure, list[DensityData]]:
    """Structure and densities in a density object.

    Parameters
    ----------
    data
        The downloaded bytes.
    level_of_theory
        Level of theory of the calculation.
    provenance
        Description of the calculation.

    Returns
    -------
    structure
        Structure of the calculation: its cell is that of the grid, and may differ from the material's.
    densities
        ``total`` and, for a spin-polarised calculation, ``spin``; values in e/Å^3 (those of the file
        divided by the volume of the cell), float64, shape (n1, n2, n3).

    Raises
    ------
    InputError
        If it is damaged or not a charge density; the message names the part.
    """
    content = _json(data)
    # The nested lists take several times the memory of the arrays.
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


def _unavailable(key: str, reason: str) -> ObjectUnavailableError:
    return ObjectUnavailableError(f"{key} could not be downloaded now ({' '.join(reason.split())[:200]})")


def _json(data: bytes) -> Any:
    import orjson

    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"damaged density object: gzip: {error}") from None
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:  # also for NaN, which is not JSON
        raise InputError(f"damaged density object: not JSON: {error}") from None


def _structure(chgcar: dict[str, Any]) -> Structure:
    from pymatgen.core.structure import Structure

    # The layout depends on the version of pymatgen that wrote the object.
    poscar = chgcar.get("poscar") or chgcar
    try:
        return Structure.from_dict(poscar["structure"])
    except EcdregError:
        raise
    except Exception as error:  # noqa: BLE001  pymatgen raises errors of many types for an invalid dictionary
        raise InputError(f"damaged density object: no structure: {type(error).__name__}: {error}") from None


def _grid(grid: Any, name: str) -> NDArray[np.float64]:
    numbers = grid.get("data") if isinstance(grid, dict) else grid
    try:
        values = np.array(numbers, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"damaged density object: grid {name!r} is not an array of numbers: {error}") from None
    if values.ndim != 3 or not values.size:
        raise InputError(f"damaged density object: grid {name!r} has shape {values.shape}")
    if not np.isfinite(values).all():
        raise InputError(f"damaged density object: grid {name!r} has values that are not finite")
    return values


def _unquoted(etag: str | None) -> str | None:
    return None if etag is None else etag.strip('"')


def _client(endpoint: str | None, connect_timeout: float, read_timeout: float) -> Any:
    with _CLIENT_LOCK:  # many threads may use a client, but only one may create it
        return _new_client(endpoint, connect_timeout, read_timeout)


@cache
def _new_client(endpoint: str | None, connect_timeout: float, read_timeout: float) -> Any:
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.credentials import CredentialResolver

    session = botocore.session.get_session()
    # The data are open: no credentials are read from disk or from a cloud's metadata service.
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
