"""Sets of options that several commands share: fields of a dataclass, which Typer sees as parameters of the command."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

__all__ = ["with_option_sets"]

F = TypeVar("F", bound=Callable[..., None])


def with_option_sets(command: F) -> F:
    """Give a command the options of the dataclasses among its parameters.

    A parameter whose annotation is a dataclass is replaced by the fields of that dataclass, each an option with its
    own ``Annotated`` type and default; the command receives the object that they make.

    Parameters
    ----------
    command
        Function of a command. Its own parameters keep their order, the sets stand where they are named.
    """
    hints = get_type_hints(command, include_extras=True)
    sets: dict[str, tuple[Callable[..., Any], list[str]]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        annotation = hints[parameter.name]
        if not dataclasses.is_dataclass(annotation):
            parameters.append(parameter.replace(annotation=annotation, kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        fields = dataclasses.fields(annotation)
        of_fields = get_type_hints(annotation, include_extras=True)
        sets[parameter.name] = (annotation, [field.name for field in fields])  # type: ignore[assignment]
        parameters += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
                annotation=of_fields[field.name],
            )
            for field in fields
        ]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        made = {name: make(**{field: values.pop(field) for field in fields}) for name, (make, fields) in sets.items()}
        command(**made, **values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del run.__wrapped__  # Typer reads the signature of what is wrapped
    return run  # type: ignore[return-value]
