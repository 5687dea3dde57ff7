"""Base of all configuration types: frozen pydantic models whose errors are one clear line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from registry.errors import ConfigurationError

__all__ = ["ConfigModel", "Fraction", "Name", "Whole", "Widths", "validated"]

Model = TypeVar("Model", bound="ConfigModel")


class ConfigModel(BaseModel):
    """A frozen set of named values; unknown names and values of another type are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values; :func:`train.config.kinds.parse_config` reads them back."""
        return self.model_dump(mode="json", serialize_as_any=True)

    def replace(self, **fields: Any) -> Self:
        """A copy with other values of some fields, validated.

        Raises
        ------
        ConfigurationError
            If a field is unknown or its value cannot be used.
        """
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        return validated(type(self), {**kept, **fields})


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("give a name")
    return value


Whole = Annotated[int, Field(strict=True, ge=1)]
"""A whole number of 1 or more."""
Fraction = Annotated[float, Field(strict=True, ge=0, lt=1)]
"""A number from 0 to below 1."""
Name = Annotated[str, Field(strict=True), AfterValidator(_not_blank)]
"""A name that is not blank."""
Widths = Annotated[tuple[Whole, ...], Field(min_length=1)]
"""Widths of dense layers."""


def validated(model: type[Model], values: Mapping[str, Any], *, where: str = "") -> Model:
    """An instance of a configuration type.

    Parameters
    ----------
    model
        The type.
    values
        Values of its fields, as Python, JSON or TOML gives them.
    where
        Name of the field that holds the instance, for messages.

    Raises
    ------
    ConfigurationError
        If a field is missing or unknown, or its value cannot be used; the message names the field.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigurationError(_message(error, model, where)) from None


def _message(error: ValidationError, model: type[ConfigModel], where: str) -> str:
    """One line for the first fault: field, value and remedy."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in ((where,) if where else ()) + first["loc"])
    kind, value = first["type"], first.get("input")
    if kind == "extra_forbidden":
        known = _names(model)
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
        return f"{path} is not a field of this configuration; {hint}"
    if kind == "missing":
        return f"{path} is missing from the configuration"
    reason = str(first["msg"]).removeprefix("Value error, ")
    if not path:
        return reason
    return f"{path} is {value!r}; {reason[:1].lower()}{reason[1:]}"


def _names(model: type[ConfigModel]) -> list[str]:
    """Names of the fields of a type and of the types that it holds."""
    found: dict[str, None] = {}
    waiting: list[type[ConfigModel]] = [model]
    seen: set[type[ConfigModel]] = set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for name, field in current.model_fields.items():
            found[name] = None
            waiting += [held for held in _held(field.annotation) if held not in seen]
    return list(found)


def _held(annotation: Any) -> list[type[ConfigModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, ConfigModel) else []
    return [held for argument in getattr(annotation, "__args__", ()) for held in _held(argument)]
