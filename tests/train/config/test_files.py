"""Files of configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.errors import ConfigurationError
from tests.train.conftest import flat_config
from train.config.files import read_config, toml_of
from train.config.kinds import parse_config
from train.models.options import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_configuration_survives_its_file(kind: str, tmp_path: Path) -> None:
    config = flat_config(kind, "efermi")
    file = tmp_path / "config.toml"
    file.write_text(toml_of(config), encoding="utf-8")
    assert parse_config({"target": "efermi", **read_config(file, kind)}) == config


def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    with pytest.raises(ConfigurationError, match=r"cannot read .*config.toml"):
        read_config(file, "image")
    file.write_text("kind = [", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="is not TOML"):
        read_config(file, "image")
    file.write_text('kind = "text"\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="of kind 'text', not 'image'"):
        read_config(file, "image")
