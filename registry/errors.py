"""Every error that ecdreg raises on purpose.

    EcdregError
    ├── ConfigurationError          a setting, an option or an argument that cannot be used
    │   └── UnknownNameError        a name that is in no catalog
    ├── DatabaseError
    │   ├── DatabaseUnreachableError   no server answers
    │   ├── UnsuitableServerError      a server without pgvector, or too old
    │   └── SchemaBehindError          the schema is older (or newer) than the code
    ├── NotFoundError               no such crystal, split, model, encoder
    │   └── AmbiguousIdError        more than one crystal of that id
    ├── QueryError                  a filter or a vector that cannot be searched with
    ├── SourceError                 a source that cannot be read at all
    ├── InputError                  one file or value of one crystal that cannot be used
    ├── SplitError                  a split that cannot be made or used
    └── ModelError
        ├── ArtifactError           weights that are missing or do not match their checksum
        └── IncompatibleInputError  an input other than the one that the model was trained on

A message is one line: what, which value, what to do. Only ``cli`` turns these into
exit codes:

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
    """Base of every error that ecdreg raises on purpose."""


class ConfigurationError(EcdregError):
    """A setting, an option or an argument that cannot be used."""


class UnknownNameError(ConfigurationError):
    """A name that is in no catalog; the message proposes the nearest ones."""


class DatabaseError(EcdregError):
    """The database cannot be used."""


class DatabaseUnreachableError(DatabaseError):
    """No server answers, or the embedded one cannot be started."""


class UnsuitableServerError(DatabaseError):
    """The server answers, but lacks pgvector or is too old."""


class SchemaBehindError(DatabaseError):
    """The schema and the code are not of the same revision."""


class NotFoundError(EcdregError):
    """No crystal, split, model or encoder of that name."""


class AmbiguousIdError(NotFoundError):
    """More than one crystal of that id; ``source:id`` tells them apart."""


class QueryError(EcdregError):
    """A filter or a vector that cannot be searched with."""


class SourceError(EcdregError):
    """A source that cannot be read at all; nothing was ingested."""


class InputError(EcdregError):
    """One file or value of one crystal that cannot be used; becomes a recorded outcome."""


class SplitError(EcdregError):
    """A split that cannot be made or used."""


class ModelError(EcdregError):
    """A model version that cannot be trained, loaded or used."""


class ArtifactError(ModelError):
    """Weights that are missing or do not match their checksum."""


class IncompatibleInputError(ModelError):
    """An input of another density kind, level of theory, recipe or text level."""
