"""Power cuts without pulling a plug: what SQLite asks of the disk, in order, and the disks a cut may leave of it.

As in SQLite's own crash tests: what was synced is there, and of the rest any part may be. Only a VFS sees what is
written and synced, and the standard library has none, so our code runs over APSW, which brings an SQLite of its own.
"""

import ctypes
import os
import sqlite3
from collections import defaultdict
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from unittest import mock

import apsw

SECTOR = 512
VFS = "recording"
CHECKPOINT_PAGES = 40
"""Checkpoints come after so many pages in the log, for there to be many; SQLite's own 1000 changes nothing else."""


class Disk:
    """The writes, truncations, syncs and changed names of all files, in one order.

    A file is known by a number, as by an inode: a name may go and come back as another file.
    """

    def __init__(self):
        self.log = []
        self._files = {}

    def opened(self, path):
        """The number of the file of that name, a new one if there is none yet."""
        if path not in self._files:
            assert path.stat().st_size == 0, f"{path} was written before anybody looked"
            self._files[path] = len(self.log)
            self.log.append(("name", path, len(self.log)))
        return self._files[path]

    def unlinked(self, path):
        if self._files.pop(path, None) is not None:
            self.log.append(("name", path, None))

    def count(self, what, path):
        """How often this was done to files of that name."""
        files = {entry[2] for entry in self.log if entry[:2] == ("name", path)}
        return sum(entry[0] == what and entry[1] in files for entry in self.log)

    def after_cut(self, cut, source, *, lies=False):
        """A disk as it may be if the power goes when `cut` entries are done: name → content of what is there.

        Each write that no sync of its file covers is kept, dropped or torn into sectors; a name whose directory was
        not synced is what it was at any moment since. A disk that lies has synced nothing.
        """
        done = self.log[:cut]
        synced = {} if lies else {entry[1]: at for at, entry in enumerate(done) if entry[0].startswith("sync")}
        luck = source.random()
        contents, names = defaultdict(bytearray), defaultdict(lambda: [None])
        for at, (what, where, *rest) in enumerate(done):
            settled = at < synced.get(where.parent if what == "name" else where, -1)
            if what == "name":
                names[where] = rest if settled else names[where] + rest
            elif what == "write":
                offset, data = rest
                for start, part in [(offset, data)] if settled else _what_stays(offset, data, luck, source):
                    _write(contents[where], start, part)
            elif what == "truncate" and (settled or source.random() < luck):
                del contents[where][rest[0] :]
        found = {path: source.choice(files) for path, files in names.items()}
        return {path: bytes(contents[file]) for path, file in found.items() if file is not None}


def _what_stays(offset, data, luck, source):
    """What of a write that was not synced is on the disk."""
    if source.random() < luck:
        return [(offset, data)]
    end = offset + len(data)
    fate = source.choice(["dropped", "only its size", "torn"])
    if fate != "torn":
        return [(end, b"")] if fate == "only its size" else []
    edges = [offset, *range(offset - offset % SECTOR + SECTOR, end, SECTOR), end]
    return [(start, data[start - offset : stop - offset]) for start, stop in pairwise(edges) if source.random() < 0.5]


def _write(content, offset, data):
    end = offset + len(data)
    content.extend(bytes(max(0, end - len(content))))
    content[offset:end] = data


class _Vfs(apsw.VFS):
    def __init__(self, disk):
        super().__init__(VFS, "")
        self._disk = disk

    def xOpen(self, name, flags):  # noqa: N802
        return _File(self._disk, name, flags)

    def xDelete(self, filename, syncdir):  # noqa: N802
        self._disk.unlinked(Path(filename))
        super().xDelete(filename, syncdir)


class _File(apsw.VFSFile):
    def __init__(self, disk, name, flags):
        super().__init__("", name, flags)
        self._log = disk.log
        self._number = disk.opened(Path(name.filename() if isinstance(name, apsw.URIFilename) else name))

    def xWrite(self, data, offset):  # noqa: N802
        self._log.append(("write", self._number, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize):  # noqa: N802
        self._log.append(("truncate", self._number, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags):  # noqa: N802
        # First told of, then done: the sync of the directory that may follow inside is to come after it in the log.
        self._log.append(("sync", self._number))
        super().xSync(flags)


_OpenDirectory = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int))


@contextmanager
def recorded():
    """Everything that is opened by `sqlite3.connect` meanwhile is on the disk this yields."""
    disk = Disk()
    vfs = _Vfs(disk)
    address = vfs.xGetSystemCall("openDirectory")
    original = _OpenDirectory(address)

    # SQLite opens the directory of a file in order to sync it, and for nothing else; no method of a VFS is told.
    @_OpenDirectory
    def open_directory(path, descriptor):
        disk.log.append(("sync directory", Path(os.fsdecode(path)).parent))
        return original(path, descriptor)

    vfs.xSetSystemCall("openDirectory", ctypes.cast(open_directory, ctypes.c_void_p).value)
    try:
        with mock.patch("sqlite3.connect", Connection):
            yield disk
    finally:
        vfs.xSetSystemCall("openDirectory", address)
        vfs.unregister()


class Connection:
    """As much of `sqlite3.Connection` as the outbox and the ledger use to write."""

    def __init__(self, database, *, timeout, isolation_level, check_same_thread, uri=False):
        assert (isolation_level, check_same_thread) == (None, False), "APSW knows nothing else"
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | (apsw.SQLITE_OPEN_URI if uri else 0)
        with _errors_of_sqlite3():
            self._connection = apsw.Connection(os.fspath(database), flags=flags, vfs=VFS)
            self._connection.set_busy_timeout(int(timeout * 1000))
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")

    def execute(self, statement, parameters=()):
        return self._run(self._connection.execute, statement, parameters)

    def executemany(self, statement, parameters):
        return self._run(self._connection.executemany, statement, parameters)

    def _run(self, way, statement, parameters):
        before = self._connection.total_changes()
        with _errors_of_sqlite3():
            rows = way(statement, parameters).fetchall()
        return Answer(rows, self._connection.total_changes() - before)

    @property
    def in_transaction(self):
        return self._connection.in_transaction

    def close(self):
        with _errors_of_sqlite3():
            self._connection.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.in_transaction:
            self.execute("COMMIT" if kind is None else "ROLLBACK")


class Answer:
    """As much of `sqlite3.Cursor`."""

    def __init__(self, rows, rowcount):
        self._rows = iter(rows)
        self.rowcount = rowcount

    def __iter__(self):
        return self._rows

    def fetchone(self):
        return next(self._rows, None)

    def fetchall(self):
        return list(self._rows)


_CLASSES = {
    apsw.ConstraintError: sqlite3.IntegrityError,
    apsw.MismatchError: sqlite3.IntegrityError,
    apsw.TooBigError: sqlite3.DataError,
    apsw.CorruptError: sqlite3.DatabaseError,
    apsw.NotADBError: sqlite3.DatabaseError,
}


@contextmanager
def _errors_of_sqlite3():
    try:
        yield
    except apsw.Error as error:
        translated = _CLASSES.get(type(error), sqlite3.OperationalError)(str(error))
        translated.sqlite_errorcode = getattr(error, "extendedresult", apsw.SQLITE_ERROR)
        raise translated from error
