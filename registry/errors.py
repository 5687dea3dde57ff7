"""Errors of ecdreg.

    EcdregError
    ├── ConfigurationError          an invalid setting, option or argument
    │   └── UnknownNameError        a name that is not in a catalog
    ├── DatabaseError
    │   ├── DatabaseUnreachableError   no server answers
    │   ├── UnsuitableServerError      a server that is too old, or without pgvector
    │   └── SchemaBehindError          the schema is older or newer than the code
    ├── NotFoundError               no such crystal, split, model, encoder
    │   └── AmbiguousIdError        more than one crystal with that id
    ├── QueryError                  an invalid filter or vector of a search
    ├── SourceError                 a source that cannot be read
    ├── InputError                  an invalid file or value of one crystal
    ├── SplitError                  a split that cannot be created or used
    └── ModelError
        ├── ArtifactError           a file that is missing or does not match its checksum
        └── IncompatibleInputError  an input of another kind than the training inputs

A message is one line: what is wrong, with which value, and what to do. Only ``cli`` converts errors to exit codes:

>>> try:
...     raise NotFoundError("no crystal 'mp-0'; `ecdreg db shell` lists them in v_materials")
... except EcdregError as error:
...     print(error)
no crystal 'mp-0'; `ecdreg db shell` lists them in v_materials
"""

from __future__ import annotations

__all__ = [
    "AmbiguousIdError",
    "ArtifactError",
    "ConfigurationError",
    "DatabaseError",
    "DatabaseUnreachableError",
    "EcdregError",
    "IncompatibleInputError",
    "InputError",
    "ModelError",
    "NotFoundError",
    "QueryError",
    "SchemaBehindError",
    "SourceError",
    "SplitError",
    "UnknownNameError",
    "UnsuitableServerError",
]


class EcdregError(Exception):
    """Base class of all errors of ecdreg."""


class ConfigurationError(EcdregError):
    """An invalid setting, option or argument."""


class UnknownNameError(ConfigurationError):
    """A name that is not in a catalog; the message proposes similar names."""


class DatabaseError(EcdregError):
    """The database cannot be used."""


class DatabaseUnreachableError(DatabaseError):
    """No server answers, or the embedded one cannot be started."""


class UnsuitableServerError(DatabaseError):
    """The server is too old, or does not have pgvector."""


class SchemaBehindError(DatabaseError):
    """The schema and the code have different revisions."""


class NotFoundError(EcdregError):
    """No crystal, split, model or encoder has that name."""


class AmbiguousIdError(NotFoundError):
    """More than one crystal has that id; ``source:id`` is unique."""


class QueryError(EcdregError):
    """An invalid filter or vector of a search."""


class SourceError(EcdregError):
    """A source that cannot be read; nothing was ingested."""


class InputError(EcdregError):
    """An invalid file or value of one crystal; ingestion records it as an outcome."""


class SplitError(EcdregError):
    """A split that cannot be created or used."""


class ModelError(EcdregError):
    """A model version that cannot be trained, loaded or used."""


class ArtifactError(ModelError):
    """A file of weights or of a density that is missing or does not match its checksum."""


class IncompatibleInputError(ModelError):
    """An input of another density kind, level of theory, recipe or text level than the training inputs."""
