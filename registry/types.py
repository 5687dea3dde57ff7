"""Column types: float32 arrays, stored as little-endian ``bytea``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import LargeBinary
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

__all__ = ["Float32Array"]


class Float32Array(TypeDecorator[NDArray[np.float32]]):
    """A float32 array, stored as little-endian bytes (4 bytes a value, C order).

    The result of a query is one-dimensional and read-only; other columns of the row contain the shape.
    """

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> bytes | None:
        return None if value is None else np.ascontiguousarray(value, dtype="<f4").tobytes()

    def process_result_value(self, value: Any, dialect: Dialect) -> NDArray[np.float32] | None:
        return None if value is None else np.frombuffer(bytes(value), dtype="<f4")
