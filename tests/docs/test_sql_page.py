"""The examples of ``docs/sql.md`` run on the crystals of the bundled sample and give the results on the page."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, text

from docs.generate.sql_page import EXAMPLES, Example, examples, query, refresh, sql_reference
from registry.crystals import CrystalData, DescriptionData, PropertyData, write_crystal
from registry.database import connect, session_scope
from registry.encoders import EncoderKey, ensure_encoder, set_encoder_alias, write_embeddings
from registry.files.grids import GridStore
from registry.provenance import finish_run, start_run
from registry.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import Clones

SHA = "0" * 64
# Results that depend on vectors or models, which are not made here.
LEARNT = re.compile(r"similar_crystals|similar_to_vector|embedding_of|v_leaderboard|v_predictions|v_ingest_runs")


@pytest.fixture(scope="module")
def sample(clones: Clones, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The sample's values and texts, with vectors of numbers for its two frozen encoders."""
    url = clones.server.url(clones.make())
    engine = connect(Settings(home=Path("/nonexistent"), database_url=url))
    folder = files("ingest") / "sample"
    texts = {row["id"]: row for row in _rows(folder / "descriptions.csv")}
    store = GridStore((tmp_path_factory.mktemp("sql page") / "grids").as_uri())
    with session_scope(engine) as session:
        run = start_run(session, source="sample", source_release=None, parameters={})
        revisions = []
        for row in _rows(folder / "properties.csv"):
            names = [name for name in row if name not in ("id", "formula", "level_of_theory") and row[name]]
            about = texts[row["id"]]
            crystal = CrystalData(
                source="sample",
                source_id=row["id"],
                formula=row["formula"],
                structure={},
                space_group_number=225 if "Fm-3m" in about["description"] else 216,
                space_group_symbol="Fm-3m" if "Fm-3m" in about["description"] else "F-43m",
                prototype=None,
                n_sites=1,
                volume=1.0,
                content_sha256=SHA,
                properties=tuple(PropertyData(name, float(row[name]), row["level_of_theory"]) for name in names),
                descriptions=(DescriptionData("all", about["description"], about["generator"]),),
            )
            revisions.append(write_crystal(session, crystal, run_id=run.id, grids=store).revision_id)
        finish_run(session, run)
        random = np.random.default_rng(0)
        for name, dim in (("efficientnet_lite0:metric", 8), ("minilm:keywords", 6)):
            encoder = ensure_encoder(
                session,
                EncoderKey(weights_sha256=SHA, preprocessing={"name": name}),
                name=name,
                modality="image",
                dim=dim,
            )
            write_embeddings(session, encoder, [(r, random.normal(size=dim), SHA) for r in revisions])
            if dim == 8:
                set_encoder_alias(session, "default", encoder)
    yield engine
    engine.dispose()


@pytest.fixture
def db(sample: Engine) -> Iterator[Connection]:
    with sample.connect() as connection:
        yield connection


def _rows(path: Any) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("example", examples(), ids=lambda e: e.about[:40])
def test_example_gives_the_result_on_the_page(db: Connection, example: Example) -> None:
    result = query(db, example.sql)
    columns = [[cell.strip() for cell in heading.split("|")] for heading in (result[0], example.result[0])]
    assert columns[0] == columns[1]
    if not LEARNT.search(example.sql) and "words_rank" not in example.sql:
        assert result == example.result
    if "similar" in example.sql:
        assert len(result) == len(example.result), "as many rows"


def test_examples_use_every_function_and_view(db: Connection) -> None:
    from registry.postgres.surface import SURFACE_OBJECTS

    statements = " ".join(example.sql for example in examples())
    for name in SURFACE_OBJECTS:
        kind, _, rest = name.partition(" ")
        if kind in ("VIEW", "FUNCTION") and not rest.startswith("ecdreg_"):
            assert rest.partition("(")[0] in statements, f"no example uses {rest}"


def test_page_has_every_argument_and_column(db: Connection) -> None:
    page = sql_reference()
    functions = db.execute(
        text(
            "SELECT proname, pg_get_function_arguments(oid) FROM pg_proc"
            " WHERE pronamespace = 'public'::regnamespace AND proname ~ '^(similar_|embedding_of)'"
        )
    ).all()
    assert len(functions) == 4
    for name, arguments in functions:
        assert f"### {name}\n" in page
        for argument in arguments.replace("integer", "int").replace("::text", "").split(", "):
            assert re.sub(r"NULL::\w+(\[\])?", "NULL", argument) in page
    for view, column in db.execute(
        text(
            "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
            " WHERE c.relkind IN ('v', 'c') AND c.relnamespace = 'public'::regnamespace"
        )
    ):
        assert f"| `{column}` |" in page.partition(f"### {view}\n")[2].partition("###")[0]


def test_refresh_writes_the_results(db: Connection, tmp_path: Path) -> None:
    path = tmp_path / "examples.sql"
    path.write_text("-- Head.\n\n-- One.\nSELECT 1 AS one, NULL AS none, 'x' AS text;\n--> old\n", encoding="utf-8")
    refresh(db, path)
    assert path.read_text(encoding="utf-8").splitlines()[-4:] == [
        "--> one | none | text",
        "--> ----+------+-----",
        "-->   1 |      | x",
        "--> (1 row)",
    ]
    [example] = examples(path)
    assert (example.about, example.result[-1]) == ("One.", "(1 row)")
    assert EXAMPLES.read_text(encoding="utf-8").count(";\n-->") == len(examples())
