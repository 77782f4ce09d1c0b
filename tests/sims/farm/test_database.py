"""What a device has uploaded does not outlive its deletion in pages or in the write-ahead log."""

import os
import sqlite3
import stat
from contextlib import closing

from farm.database import forget_deleted

UPLOAD = os.urandom(16) + b"an edit that a device sent" * 400


def test_bytes_of_deleted_rows_are_in_no_file_of_the_database_and_the_rest_stays(tmp_path):
    database = tmp_path / "state.db"
    left_open = sqlite3.connect(database)  # so that the log is not emptied by the last one who closes
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE objects (id INTEGER, content BLOB)")
        connection.executemany("INSERT INTO objects VALUES (?, ?)", [(n, UPLOAD) for n in range(20)])
        connection.execute("INSERT INTO objects VALUES (99, x'07')")
        connection.commit()
        left_open.execute("SELECT count(*) FROM objects").fetchone()
        connection.execute("DELETE FROM objects WHERE id < 99")
        connection.commit()
    os.chmod(database, 0o600)

    def held():
        return [path.name for path in tmp_path.iterdir() if UPLOAD[:16] in path.read_bytes()]

    assert held()  # deleted, and there to read
    left_open.close()
    forget_deleted(database)
    assert held() == []
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT id, content FROM objects").fetchall() == [(99, b"\x07")]
    assert stat.S_IMODE(database.stat().st_mode) == 0o600


def test_without_a_database_there_is_nothing_to_forget(tmp_path):
    forget_deleted(tmp_path / "state.db")
    assert not list(tmp_path.iterdir())
