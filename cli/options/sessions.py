"""The transaction of a command that needs one and no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.options.common import open_engine

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["open_session"]


@contextmanager
def open_session() -> Iterator[Session]:
    """A session on the registry's database: committed at the end, rolled back on an error.

    Raises
    ------
    EcdregError
        As :func:`cli.options.common.common.open_engine`.
    """
    from registry.database import session_scope

    with session_scope(open_engine()) as session:
        yield session
