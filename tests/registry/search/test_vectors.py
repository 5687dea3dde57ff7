from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from registry.crystals import WrittenCrystal
from registry.encoders import EncoderKey, ensure_encoder, set_encoder_alias, write_embeddings
from registry.errors import AmbiguousIdError, NotFoundError, QueryError
from registry.search.vectors import similar_to_crystal, similar_to_vector

SHA = "ab" * 32
# Directions in a plane [degree from the first axis]: cosine distances are known exactly.
ANGLES = {"mp-1": 0.0, "mp-2": 10.0, "mp-3": -20.0, "mp-4": 60.0, "mp-5": 180.0}
FORMULAS = {"mp-1": "MgO", "mp-2": "CaO", "mp-3": "TiN", "mp-4": "TiC", "mp-5": "NaCl"}


def _vector(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 0.0])


@pytest.fixture(autouse=True)
def plane(session: Session, add_crystal: Callable[..., WrittenCrystal]) -> None:
    encoder = ensure_encoder(
        session, EncoderKey(weights_sha256=SHA, preprocessing={}), name="plane", modality="image", dim=3
    )
    set_encoder_alias(session, "default", encoder)
    rows = []
    for i, (ident, angle) in enumerate(ANGLES.items()):
        values = {"k_vrh": 100.0 + 10 * i}
        written = add_crystal(ident, formula=FORMULAS[ident], values=values, densities=False)
        rows.append((written.revision_id, _vector(angle) * (i + 1), SHA))
    write_embeddings(session, encoder, rows)


def test_nearest_first_by_the_angle(session: Session) -> None:
    found = similar_to_crystal(session, "mp-1")
    assert [n.source_id for n in found] == ["mp-2", "mp-3", "mp-4", "mp-5"], "and not itself"
    distances = [1 - np.cos(np.radians(ANGLES[n.source_id])) for n in found]
    assert [n.distance for n in found] == pytest.approx(distances, abs=2e-6)
    assert (found[0].formula, found[0].space_group_symbol) == ("CaO", "Fm-3m")
    assert found[0].properties == {"formation_energy_per_atom": None, "efermi": None, "k_vrh": 110.0}
    assert list(found[0].as_row()) == [
        "source",
        "source_id",
        "formula",
        "distance",
        "space_group_symbol",
        "formation_energy_per_atom",
        "efermi",
        "k_vrh",
        "crystal_id",
    ]
    assert [n.source_id for n in similar_to_crystal(session, "test:mp-1", k=2)] == ["mp-2", "mp-3"]


def test_search_by_a_vector(session: Session) -> None:
    found = similar_to_vector(session, 7.5 * _vector(-18.0), encoder="plane", k=2)
    assert [n.source_id for n in found] == ["mp-3", "mp-1"]
    assert found[0].distance == pytest.approx(1 - np.cos(np.radians(2.0)), abs=2e-6)


def test_filter_is_part_of_the_search(session: Session) -> None:
    statements: list[str] = []
    connection = session.connection()
    event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
    found = similar_to_crystal(session, "mp-1", k=2, where="'Ti' = ANY(elements) AND k_vrh > 100")
    assert [n.source_id for n in found] == ["mp-3", "mp-4"], "two, though CaO is nearer"
    assert sum("similar_crystals" in statement for statement in statements) == 1
    assert sum(not statement.startswith(("SAVEPOINT", "RELEASE")) for statement in statements) == 1
    assert similar_to_crystal(session, "mp-1", where="k_vrh > 1e6") == []
    assert [n.formula for n in similar_to_vector(session, _vector(0), where="formula = 'NaCl'")] == ["NaCl"]


def test_unknown_crystals(session: Session, add_crystal: Callable[..., WrittenCrystal]) -> None:
    with pytest.raises(NotFoundError, match="no crystal 'mp-11'; did you mean mp-1"):
        similar_to_crystal(session, "mp-11")
    add_crystal("bare", formula="W", densities=False)
    with pytest.raises(NotFoundError, match="'bare' has no embedding of encoder 'plane'"):
        similar_to_crystal(session, "bare")
    add_crystal("mp-1", source="other", densities=False)
    with pytest.raises(AmbiguousIdError, match="use 'other:mp-1' or 'test:mp-1'"):
        similar_to_crystal(session, "mp-1")


def test_unknown_encoders(session: Session) -> None:
    with pytest.raises(NotFoundError, match=r"no encoder 'plain'; there are: plane$"):
        similar_to_crystal(session, "mp-1", encoder="plain")
    session.execute(text("DELETE FROM encoder_aliases"))
    with pytest.raises(NotFoundError, match="default"):
        similar_to_crystal(session, "mp-1")


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.ones(4), "4 dimensions"),
        (np.zeros(3), "zero"),
        (np.array([1.0, np.nan, 0.0]), "finite"),
        (np.array([1.0, np.inf, 0.0]), "finite"),
        (np.ones((1, 3)), "shape"),
        (np.array([]), "shape"),
    ],
)
def test_invalid_vectors(session: Session, vector: np.ndarray, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        similar_to_vector(session, vector)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("k_vrh / 0 > 1", "division by zero"),
        ("k_vrh * 1e308 > 1", "out of range"),
        ("formula LIKE 'Mg\\'", "LIKE pattern"),
        ("k_vhr > 1", "did you mean"),
    ],
)
def test_a_failed_search_leaves_the_transaction_usable(session: Session, where: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        similar_to_crystal(session, "mp-1", where=where)
    assert len(similar_to_crystal(session, "mp-1")) == 4


@pytest.mark.parametrize("k", [0, -1, 10**9])
def test_number_of_neighbours_out_of_range(session: Session, k: int) -> None:
    with pytest.raises(QueryError, match="k is"):
        similar_to_crystal(session, "mp-1", k=k)
