"""Groups of commands."""

from __future__ import annotations

import typer

__all__ = ["command_group"]


def command_group(help: str) -> typer.Typer:
    """A group of commands with the settings that all share."""
    return typer.Typer(
        help=help, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
    )
