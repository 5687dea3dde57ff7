"""Rendering of templates."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from ecdreg.output.rendering import environment, render


def test_templates_compile_and_escape() -> None:
    names = environment().list_templates()
    pages = [name for name in names if name.endswith(".html.j2")]
    assert len(pages) >= 8
    for name in pages:
        environment().get_template(name)
    assert "<title>a &lt; b</title>" in render("figures/figure.html.j2", title="a < b", image="")


def test_missing_variable_of_a_template_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="image"):
        render("figures/figure.html.j2", title="x")
