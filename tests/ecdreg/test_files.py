"""Files of a crystal: arguments, and warnings that explain an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecdreg import Registry
from ecdreg.files import CrystalFiles, read_crystal, warnings_on_error
from registry.errors import ConfigurationError, IncompatibleInputError, QueryError
from tests.conftest import Invoke


def test_paths_may_be_strings() -> None:
    files = CrystalFiles.of("a.cif", None, None, None)
    assert (files.structure, bool(files)) == (Path("a.cif"), True)
    assert not CrystalFiles.of(None, None, None, None)
    with pytest.raises(ConfigurationError, match="the level of theory GGA belongs to a density"):
        CrystalFiles.of("a.cif", None, None, "GGA").check()


def test_rendered_images_are_not_made_from_files() -> None:
    with pytest.raises(IncompatibleInputError, match="rendered elsewhere"):
        read_crystal(CrystalFiles(Path("a.cif")), recipes=["imported"], texts=False)


def test_warnings_are_printed_before_the_error_that_they_explain(
    invoke: Invoke, cluster_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(registry: Registry, *arguments: object, **options: object) -> None:
        with warnings_on_error(["CHGCAR: no deformation density"]):
            raise QueryError("no slice")

    monkeypatch.setattr(Registry, "similar", fail)
    done = invoke("similar", "mp-1")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines() == ["warning: CHGCAR: no deformation density", "error: no slice"]
