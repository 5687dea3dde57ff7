"""Leaderboard: the scores of every model, as the view ``v_leaderboard`` has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from ecdreg.results import Results
from registry.database import session_scope
from registry.properties import TARGETS, property_named

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection

__all__ = ["LeaderboardRow", "leaderboard"]


@dataclass(frozen=True)
class LeaderboardRow:
    """One configuration: means over the folds and runs, with standard deviations (``_sd``).

    Scores are rounded to four decimals; the table ``metrics`` has all digits.
    """

    target: str
    unit: str
    """Unit of every ``rmse``."""
    model: str
    kind: str
    split: str
    version: int
    """Newest version with this configuration."""
    n_runs: int
    """Runs that differ in their seed."""
    folds: int
    n_cv: int | None
    cv_r2: float | None
    cv_r2_sd: float | None
    cv_rmse: float | None
    cv_rmse_sd: float | None
    n_holdout: int | None
    holdout_r2: float | None
    holdout_r2_sd: float | None
    holdout_rmse: float | None
    holdout_rmse_sd: float | None
    cv_coverage: float | None
    """Share of the cross-validated crystals with a true value inside the 90 % interval."""
    holdout_coverage: float | None
    """The same share of the holdout."""
    trained_on: str | None
    """Training data of a reference model, which may contain the crystals that it is scored on; else None."""
    config_sha256: str


_QUERY = """
SELECT * FROM v_leaderboard
WHERE (CAST(:split AS text) IS NULL OR split = :split)
  AND (CAST(:targets AS text[]) IS NULL OR target = ANY(CAST(:targets AS text[])))
"""


def leaderboard(
    registry: RegistryConnection, *, targets: Sequence[str] | None = None, split: str | None = None
) -> Results[LeaderboardRow]:
    """Read the leaderboard: targets in their usual order, then splits, the best in cross-validation first.

    Parameters
    ----------
    registry
        An open registry.
    targets
        Only models of these properties; None: of all.
    split
        Only models of this split; None: of all.

    Raises
    ------
    UnknownNameError
        If there is no such property.
    """
    for name in targets or ():
        property_named(name)
    with session_scope(registry.engine) as session:
        found = session.execute(text(_QUERY), {"split": split, "targets": list(targets) if targets else None})
        rows = [LeaderboardRow(**row) for row in found.mappings()]
    order = {target: place for place, target in enumerate(TARGETS)}
    rows.sort(key=lambda row: (order.get(row.target, len(order)), row.target, row.split))
    notes = () if rows else ("no finished models yet; `ecdreg train stacked` makes some",)
    return Results(tuple(rows), notes)
