"""The SuperLink's database after a run: what devices have sent is gone from its tables, and here from its pages too.

Flower deletes a message as soon as it is answered and read. SQLite leaves the bytes in free pages and in the
write-ahead log, where an edit that a device sent could be read after it was averaged.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def forget_deleted(database: Path) -> None:
    """Write the database anew without its free pages, and empty its write-ahead log; nobody may have it open.

    Promise: no byte of a row that was deleted is left in the folder (tests/sims/farm/test_database.py).

    Raises:
        sqlite3.Error: it is no database, or somebody has it open.
    """
    if not database.is_file():
        return
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
