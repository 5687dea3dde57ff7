"""Groups of commands, and the words for types of values in help texts."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer
from typer.core import TyperGroup

__all__ = ["command_group", "name_types"]

_TYPES: dict[type, str] = {int: "INTEGER", float: "NUMBER", Path: "PATH"}


class _Group(TyperGroup):
    """A group with a help that has the first line of each command in full."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        children = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, (child.help or "").partition("\n")[0])
                    for name, child in children
                    if child and not child.hidden
                ]
            )


def command_group(help: str) -> typer.Typer:
    """A group of commands with the settings that all share."""
    return typer.Typer(
        cls=_Group,
        help=help,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
    )


def name_types(command: Any) -> None:
    """Name the type of each option without a metavar, in the same words under every version of Typer.

    Parameters
    ----------
    command
        A click command; its options are changed.
    """
    hints = get_type_hints(inspect.unwrap(command.callback))
    for parameter in command.params:
        if parameter.param_type_name == "option" and not (parameter.metavar or parameter.is_flag or parameter.count):
            hint = hints.get(parameter.name)
            parameter.metavar = next(
                (word for kind, word in _TYPES.items() if kind is hint or kind in get_args(hint)), "TEXT"
            )
