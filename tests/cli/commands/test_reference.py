"""``ecdreg reference``: models that were trained elsewhere."""

from __future__ import annotations

import json

from tests.conftest import Invoke


def test_reference_models_are_listed(invoke: Invoke) -> None:
    done = invoke("reference", "list", "--json")
    assert done.exit_code == 0, done.stderr
    rows = {row["model"]: row for row in json.loads(done.stdout)}
    assert {"cgcnn", "chgnet"} <= set(rows)
    assert all("not leakage-free" in rows[name]["trained_on"] for name in ("cgcnn", "chgnet"))
