"""``ecdreg plot map``: figures, and interactive pages that request nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import Engine, text

from tests.conftest import Invoke


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r"const D = (\{.*\});\n", page)
    assert found is not None
    return dict(json.loads(found[1]))


def test_figure_and_page(invoke: Invoke, vectors: dict[str, list[float]], tmp_path: Path) -> None:
    picture, page = tmp_path / "map.png", tmp_path / "map.html"
    done = invoke("plot", "map", "-o", picture, "-o", page)
    assert done.exit_code == 0
    assert "Principal components" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [str(picture), str(page)]
    with Image.open(picture) as image:
        assert image.size[0] > 600
        assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 100
    data = data_of(page.read_text(encoding="utf-8"))
    assert len(data["points"]) == len(data["ids"]) == 24
    assert data["colour"] == "k_vrh"
    by_id = dict(zip(data["ids"], data["values"]["k_vrh"], strict=True))
    assert by_id["test:mp-1"] == 40.0
    assert by_id["test:mp-8"] is None, "a suspect value has no colour"
    assert "band_gap" not in data["values"], "a property without values is not offered"


def test_page_requests_nothing(invoke: Invoke, vectors: dict[str, list[float]], tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    assert invoke("plot", "map", "-o", page).exit_code == 0
    source = page.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=|url\((?!#)|@import|fetch\(|XMLHttpRequest""", source)
    assert set(re.findall(r"https?://[^\"' ]+", source)) == {"http://www.w3.org/2000/svg"}, "a name, not an address"


def test_names_cannot_end_the_script(
    invoke: Invoke, engine: Engine, vectors: dict[str, list[float]], tmp_path: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE crystals SET source_id = '</script><b>x' WHERE source_id = 'mp-3'"))
    page = tmp_path / "map.html"
    assert invoke("plot", "map", "-o", page).exit_code == 0
    source = page.read_text(encoding="utf-8")
    assert source.count("</script>") == 1
    assert "test:</script><b>x" in data_of(source)["ids"]


def test_colours_by_category_and_filter(invoke: Invoke, vectors: dict[str, list[float]], tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    done = invoke(
        "plot", "map", "-o", page, "-o", tmp_path / "map.svg", "--color", "prototype", "--where", "k_vrh > 100"
    )
    assert done.exit_code == 0
    data = data_of(page.read_text(encoding="utf-8"))
    assert (len(data["points"]), data["colour"]) == (16, "prototype")
    assert set(data["groups"]["prototype"]) == {"AB-cF8-225"}
    assert (tmp_path / "map.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--color", "k_vhr"), "did you mean 'k_vrh'"),
        (("--color", "x'; DROP TABLE crystals"), "cannot be coloured by"),
        (("--method", "tsne"), "choose from pca, umap"),
        (("--encoder", "circel:metric"), "circle:metric"),
        (("--where", "k_vrh > 1e6"), "a map needs 3"),
        (("-o", "map.gif"), "must end in"),
        (("-o", "missing/map.png"), "no such folder"),
    ],
)
def test_invalid_arguments_are_one_line(
    invoke: Invoke, vectors: dict[str, list[float]], arguments: tuple[str, ...], message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    done = invoke("plot", "map", *arguments)
    assert done.exit_code in (1, 2)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert message in done.stderr
    assert list(tmp_path.glob("*map*")) == []
