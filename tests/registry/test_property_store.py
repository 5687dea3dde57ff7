"""Properties that users add: columns, filters, similarity answers, other processes, validation, removal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from registry.database import connect, session_scope
from registry.encoders import EncoderKey, ensure_encoder, set_encoder_alias, write_embeddings
from registry.errors import ConfigurationError, DatabaseError, QueryError, UnknownNameError
from registry.models import Property
from registry.postgres.roles import grant
from registry.postgres.schema import downgrade, schema_status, upgrade
from registry.properties import (
    BUILTIN_PROPERTIES,
    PROPERTIES,
    TARGETS,
    PropertyDefinition,
    property_named,
    refresh_properties,
    suspect_reason,
    target_names,
)
from registry.property_store import add_property, list_properties, remove_property
from registry.search.filters import materials, parse
from registry.search.vectors import similar_to_crystal, similar_to_text
from registry.settings import Settings
from tests.registry.conftest import AddCrystal

HARDNESS = PropertyDefinition(
    "hardness_vickers", "GPa", "Vickers' hardness", "Vickers hardness", 0.0, 150.0, "outside the range given for it"
)
SHA = "0" * 64


@pytest.fixture(autouse=True)
def _forget_added() -> Iterator[None]:
    """No definition of a test's database stays in this process."""
    yield
    PROPERTIES.replace_added(())


def scalar(engine: Engine, sql: str) -> object:
    with engine.connect() as connection:
        return connection.scalar(text(sql))


class TestAdd:
    def test_it_is_a_column_with_its_unit(self, engine: Engine) -> None:
        add_property(engine, HARDNESS)
        comment = scalar(
            engine,
            "SELECT col_description(attrelid, attnum) FROM pg_attribute"
            " WHERE attrelid = 'v_materials'::regclass AND attname = 'hardness_vickers'",
        )
        assert comment == "Vickers' hardness [GPa]; at the preferred level of theory"
        assert property_named("hardness_vickers") == HARDNESS
        assert not HARDNESS.builtin
        assert "outside its plausible range [0, 150]" in str(suspect_reason("hardness_vickers", 151.0))
        with Session(engine) as session:
            stored = session.get_one(Property, "hardness_vickers")
            assert (stored.builtin, stored.target, stored.lower_bound) == (False, False, None)
            assert session.scalar(select(Property.builtin).where(Property.name == "k_vrh"))

    def test_values_of_it_can_be_filtered(self, engine: Engine, add_crystal: AddCrystal, session: Session) -> None:
        add_property(engine, HARDNESS)
        for ident, value in (("a", 20.0), ("b", 90.0)):
            add_crystal(ident, values={"hardness_vickers": value, "k_vrh": 100.0}, densities=False, slices=False)
        view = materials()
        found = session.execute(select(view.c.source_id).where(parse("hardness_vickers > 50"))).scalars().all()
        assert found == ["b"]

    def test_the_schema_is_current_and_stays_so(self, engine: Engine, settings: Settings) -> None:
        add_property(engine, HARDNESS)
        assert schema_status(engine).state == "current"
        connect(settings).dispose()  # would raise: the server is not the embedded one
        before = scalar(engine, "SELECT ecdreg_surface()")
        upgrade(engine)
        assert scalar(engine, "SELECT ecdreg_surface()") == before
        assert schema_status(engine).state == "current"

    def test_a_row_written_by_sql_needs_an_upgrade(self, engine: Engine, settings: Settings) -> None:
        with engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO properties (name, unit, description, label, plausible_min, plausible_max,"
                    " range_reason) VALUES ('c11', 'GPa', 'elastic constant', 'c11', -100, 2000, 'too much')"
                )
            )
        assert schema_status(engine).state == "behind"
        upgrade(engine)
        connect(settings).dispose()
        assert property_named("c11").unit == "GPa"
        with pytest.raises(QueryError, match="is a text, compared with a number"):
            parse("c11 > 'x'")

    def test_another_process_reads_it(self, engine: Engine, cluster_url: str, home: Path) -> None:
        add_property(engine, HARDNESS)
        code = (
            "import sys; from pathlib import Path; from registry.database import connect;"
            "from registry.properties import property_named; from registry.settings import Settings;"
            "connect(Settings(home=Path(sys.argv[1]), database_url=sys.argv[2]));"
            "print(property_named('hardness_vickers').unit)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, home, cluster_url], capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.stderr) == ("GPa\n", "")

    def test_each_database_has_its_own(
        self, engine: Engine, settings: Settings, new_database: Callable[[], str], home: Path
    ) -> None:
        add_property(engine, HARDNESS)
        other = connect(Settings(home=home, database_url=new_database()))
        assert "hardness_vickers" not in PROPERTIES
        add_property(other, replace(HARDNESS, name="porosity", unit="1"))
        assert list(PROPERTIES) == [*BUILTIN_PROPERTIES, "porosity"]
        with engine.connect() as connection:
            refresh_properties(connection)
        assert list(PROPERTIES) == [*BUILTIN_PROPERTIES, "hardness_vickers"]
        assert schema_status(other).state == "current"
        other.dispose()

    def test_a_failed_addition_leaves_nothing(self, engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("CREATE VIEW mine AS SELECT formula FROM v_materials"))
        with pytest.raises(ConfigurationError, match=r"view mine depends on view v_materials"):
            add_property(engine, HARDNESS)
        assert "hardness_vickers" not in PROPERTIES
        assert scalar(engine, "SELECT count(*) FROM properties WHERE NOT builtin") == 0
        assert schema_status(engine).state == "current"

    def test_rights_of_readers_stay(self, engine: Engine) -> None:
        grant(engine, "reader")
        add_property(engine, HARDNESS)
        assert scalar(engine, "SELECT has_table_privilege('ecdreg_reader', 'v_materials', 'SELECT')")

    def test_only_the_owner_may(self, engine: Engine, cluster_url: str, home: Path) -> None:
        grant(engine, "writer", "wanda")
        theirs = connect(Settings(home=home, database_url=cluster_url.replace("postgres@", "wanda@")))
        with pytest.raises(DatabaseError, match="may not change the schema"):
            add_property(theirs, HARDNESS)
        theirs.dispose()


class TestTargets:
    def test_answers_of_searches_follow_the_flag(
        self, engine: Engine, session: Session, add_crystal: AddCrystal
    ) -> None:
        add_property(engine, replace(HARDNESS, target=True))
        assert target_names() == (*TARGETS, "hardness_vickers")
        encoder = ensure_encoder(
            session, EncoderKey(weights_sha256=SHA, preprocessing={}), name="plane", modality="composition", dim=2
        )
        set_encoder_alias(session, "default", encoder)
        rows = []
        for ident, vector in (("mp-1", [1.0, 0.0]), ("mp-2", [0.0, 1.0])):
            written = add_crystal(ident, values={"hardness_vickers": 7.0, "k_vrh": 1.5}, densities=False)
            rows.append((written.revision_id, np.array(vector, dtype=np.float32), SHA))
        write_embeddings(session, encoder, rows)
        [found] = similar_to_crystal(session, "mp-1")
        expected = {"formation_energy_per_atom": None, "efermi": None, "k_vrh": 1.5, "hardness_vickers": 7.0}
        assert found.properties == expected
        assert found.as_row()["hardness_vickers"] == 7.0
        assert similar_to_text(session, "crystal")[0].properties == expected
        names = list(session.execute(text("SELECT * FROM similar_crystals('mp-1')")).keys())
        assert names[-3:] == ["k_vrh", "hardness_vickers", "crystal_id"]
        comment = session.scalar(
            text(
                "SELECT col_description(attrelid, attnum) FROM pg_attribute"
                " WHERE attrelid = 'text_neighbour'::regclass AND attname = 'hardness_vickers'"
            )
        )
        assert comment == "Vickers hardness [GPa]"

    def test_default_training_targets_stay(self, engine: Engine) -> None:
        add_property(engine, replace(HARDNESS, target=True))
        assert TARGETS == ("formation_energy_per_atom", "efermi", "k_vrh")


class TestValidation:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"name": "Hardness"}, "lower-case letters"),
            ({"name": "1st"}, "lower-case letters"),
            ({"name": "a b"}, "lower-case letters"),
            ({"name": "x; DROP TABLE crystals"}, "lower-case letters"),
            ({"name": "h" * 64}, "63 characters"),
            ({"name": "k_vrh"}, "is built in"),
            ({"name": "formula"}, "another column"),
            ({"name": "distance"}, "another column"),
            ({"name": "id"}, "another column"),
            ({"name": "select"}, "keyword of SQL"),
            ({"name": "between"}, "keyword of SQL"),
            ({"name": "case"}, "keyword of SQL"),
            ({"unit": " "}, "the unit of 'hardness_vickers' is ' '"),
            ({"description": "two\nlines"}, "one line"),
            ({"label": ""}, "label"),
            ({"plausible_max": float("inf")}, "two numbers"),
            ({"plausible_min": 150.0}, "the smaller one first"),
            ({"plausible_min": float("nan")}, "two numbers"),
            ({"lower_bound": 1.0}, "no plausible value is below"),
        ],
    )
    def test_refused_in_one_line(self, engine: Engine, changes: dict[str, object], message: str) -> None:
        with pytest.raises(ConfigurationError, match=message) as caught:
            add_property(engine, replace(HARDNESS, **changes))  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
        assert schema_status(engine).state == "current"

    def test_twice(self, engine: Engine) -> None:
        add_property(engine, HARDNESS)
        with pytest.raises(ConfigurationError, match="in the registry already"):
            add_property(engine, HARDNESS)

    @pytest.mark.parametrize("name", ["date", "x", "c11", "poisson_ratio", "index", "level", "value"])
    def test_names_that_are_accepted_can_be_filtered(self, engine: Engine, name: str) -> None:
        add_property(engine, replace(HARDNESS, name=name))
        with engine.connect() as connection:
            connection.execute(select(materials().c[name]).where(parse(f"{name} > 1"))).all()


class TestRemove:
    def test_an_unused_one_goes(self, engine: Engine) -> None:
        before = scalar(engine, "SELECT ecdreg_surface()")
        add_property(engine, HARDNESS)
        remove_property(engine, "hardness_vickers")
        assert scalar(engine, "SELECT ecdreg_surface()") == before
        with pytest.raises(UnknownNameError):
            property_named("hardness_vickers")
        with pytest.raises(QueryError, match="no column"):
            parse("hardness_vickers > 1")

    def test_a_used_one_stays(self, engine: Engine, session: Session, add_crystal: AddCrystal) -> None:
        add_property(engine, HARDNESS)
        add_crystal("a", values={"hardness_vickers": 7.0}, densities=False)
        session.commit()
        with pytest.raises(ConfigurationError, match="used by 1 values and 0 splits"):
            remove_property(engine, "hardness_vickers")
        assert schema_status(engine).state == "current"
        with session_scope(engine) as listing:
            found = {one.definition.name: (one.values, one.splits) for one in list_properties(listing)}
        assert found["hardness_vickers"] == (1, 0)
        assert list(found) == [*BUILTIN_PROPERTIES, "hardness_vickers"]

    def test_built_in_ones_stay(self, engine: Engine) -> None:
        with pytest.raises(ConfigurationError, match="built in"):
            remove_property(engine, "g_vrh")
        with pytest.raises(UnknownNameError, match="no property 'colour'"):
            remove_property(engine, "colour")


class TestOlderRegistries:
    def test_one_of_revision_5_upgrades_without_loss(
        self, engine: Engine, session: Session, add_crystal: AddCrystal
    ) -> None:
        add_crystal("a", values={"k_vrh": 7.0}, densities=False, text="a cubic crystal")
        session.commit()
        downgrade(engine, "0005")
        assert scalar(engine, "SELECT count(*) FROM properties") == len(BUILTIN_PROPERTIES)
        assert scalar(engine, "SELECT text FROM descriptions WHERE level = 'keywords'") == "a cubic crystal"
        upgrade(engine)
        assert scalar(engine, "SELECT k_vrh FROM v_materials") == 7.0
        assert scalar(engine, "SELECT text FROM descriptions WHERE text_level = 'keywords'") == "a cubic crystal"
        assert scalar(engine, "SELECT lower_bound FROM properties WHERE name = 'k_vrh'") == 0.0
        assert scalar(engine, "SELECT count(*) FROM properties WHERE builtin") == len(BUILTIN_PROPERTIES)

    def test_a_user_property_of_a_built_in_name_keeps_its_unit(self, engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE properties SET builtin = false, unit = 'Mbar' WHERE name = 'g_vrh'"))
        with pytest.raises(ConfigurationError, match=r"'Mbar'.*'GPa'"):
            upgrade(engine)
