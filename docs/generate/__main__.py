"""``python -m docs.generate``: write the generated pages of the documentation."""

from __future__ import annotations

import argparse
import sys

from docs.generate.pages import write
from docs.generate.sql_page import EXAMPLES, refresh


def main() -> None:
    """Write the pages; with ``--examples``, run the SQL examples first."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.generate", description="Write docs/cli.md, schema.md, sql.md."
    )
    parser.add_argument(
        "--examples",
        action="store_true",
        help=f"first run the examples of {EXAMPLES.name} on the registry of the environment and store their results",
    )
    if parser.parse_args().examples:
        from registry.database import connect
        from registry.settings import Settings

        engine = connect(Settings.from_environ())
        with engine.connect() as connection:
            refresh(connection)
        engine.dispose()
        sys.stdout.write(f"{EXAMPLES}\n")
    for path in write():
        sys.stdout.write(f"{path}\n")


main()
