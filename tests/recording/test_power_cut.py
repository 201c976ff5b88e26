"""What survives a power cut: every row that was acknowledged, once, in files that are whole.

A process lives on a recorded disk, then the power is cut at many moments, and what may be left of the disk is opened by
the ordinary code. `SPANLEDGER_SOAK` asks for hundreds of cuts in many lives instead of some tens in one. Directories
that were just made are taken to be there: it is not SQLite that makes them.
"""

import itertools
import os
import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.recording.power import Disk, recorded

from spanledger.ledger.sqlite import SqliteLedger, open_for_reading
from spanledger.model import Cost, Usage, UsageRecord, at, record_id_for, row_of
from spanledger.recording.outbox import Draft, Outbox, OutboxFullError
from spanledger.recording.sink import SinkError

SOAK = bool(os.environ.get("SPANLEDGER_SOAK"))
LIVES = 10 if SOAK else 1
STEPS = 300 if SOAK else 100
CUTS = 60
FEW_CUTS = 20
BOUND = 100_000
"""Bytes in an outbox, for it to be full soon."""


def row(number):
    record_id = record_id_for(1_790_000_000 + number, str(number))
    return row_of(
        UsageRecord(
            record_id=record_id, started_at=at(0), operation="chat", provider="openai", source=f"test {number}",
            usage=Usage(input_tokens=number, usage_status="reported"), cost=Cost(),
        )
    )  # fmt: skip


@dataclass
class Life:
    """What a process did until its disk was taken away."""

    disk: Disk
    outboxes: Path
    ledger: Path
    rows: dict[str, str] = field(default_factory=dict)
    """Id → source of every row it appended."""
    appends: list[tuple[int, frozenset[str]]] = field(default_factory=list)
    """How long the log was when an append returned, and the ids of its rows."""
    refused: int = 0

    def append(self, outbox, rows):
        try:
            outbox.append([Draft.of(each) for each in rows])
        except OutboxFullError:
            self.refused += 1
            return
        self.rows.update({each["record_id"]: each["source"] for each in rows})
        self.appends.append((len(self.disk.log), frozenset(each["record_id"] for each in rows)))

    def acknowledged(self, moment):
        return set().union(*(ids for returned, ids in self.appends if returned <= moment))


def delivered(outbox, ledger, entries, *, synced=True):
    ledger.send([entry.row for entry in entries])
    outbox.taken("ledger", entries[-1].seq, synced=synced)


def delivered_the_wrong_way_round(outbox, ledger, entries, *, synced=True):
    outbox.taken("ledger", entries[-1].seq, synced=synced)
    ledger.send([entry.row for entry in entries])


def lived(home, seed, *, full_sync=True, deliver=delivered):
    """First appends until the outbox is full, then appends and deliveries at random.

    Now and then the ledger is opened anew, or the outbox is handed to an heir.
    """
    source = random.Random(seed)
    numbers = itertools.count()

    def new_outbox():
        return Outbox.create(life.outboxes, ["ledger"], full_sync=full_sync, max_bytes=BOUND)

    def heir_of(outbox):
        outbox.close()
        if outbox.path.exists():
            return Outbox.adopt(outbox.path)
        life.disk.unlinked(outbox.path)  # it was empty; the one name that goes without SQLite
        return new_outbox()

    with recorded() as disk:
        life = Life(disk, home / "outbox", home / "ledger.db")
        ledger = SqliteLedger(life.ledger, clock=lambda: datetime(2026, 9, 1, tzinfo=UTC))
        outbox = new_outbox()
        while not life.refused:
            life.append(outbox, [row(next(numbers)) for _ in range(20)])
        for _ in range(STEPS):
            step = source.random()
            if step < 0.5:
                life.append(outbox, [row(next(numbers)) for _ in range(source.randint(1, 20))])
            elif step < 0.9:
                if entries := outbox.waiting("ledger", source.randint(1, 40)):
                    deliver(outbox, ledger, entries, synced=source.random() < 0.5)
            elif step < 0.95:
                ledger.close()
            elif full_sync:  # whoever adopts an outbox syncs fully, whatever its first owner did
                outbox = heir_of(outbox)
        outbox.close()
        ledger.close()
    return life


def what_is_wrong(life, moment, image, home):
    """Open what the cut has left, look at it, then deliver the rest: the set of what is wrong with it."""
    for path, content in image.items():
        place = home / path.relative_to(life.ledger.parent)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.write_bytes(content)
    wrong, waiting = set(), []
    ledger = SqliteLedger(home / "ledger.db")
    try:
        kept = ledger.write(
            lambda connection: [each for (each,) in connection.execute("SELECT record_id FROM usage_records")]
        )
        ledger.write(must_be_whole)
        for path in sorted((home / "outbox").glob("*.db")):
            if (outbox := Outbox.adopt(path)) is None:
                continue
            with closing(outbox):
                must_be_whole(outbox._connection)
                entries = outbox.waiting("ledger", len(life.rows) + 1)
                waiting += [entry.row["record_id"] for entry in entries]
                if entries:
                    delivered(outbox, ledger, entries)
    except (sqlite3.DatabaseError, SinkError) as error:
        return {f"damaged: {error}"}
    finally:
        ledger.close()
    with closing(open_for_reading(home / "ledger.db")) as connection:
        found = [tuple(each) for each in connection.execute("SELECT record_id, source FROM usage_records")]
    known = {record_id for record_id, _ in found}
    there = {*kept, *waiting}
    if life.acknowledged(moment) - there or there - known:
        wrong.add("lost")
    if len(kept) > len(set(kept)) or len(found) > len(known):
        wrong.add("doubled")
    if set(found) - life.rows.items():
        wrong.add("changed")
    if any(0 < len(ids & known) < len(ids) for _, ids in life.appends):
        wrong.add("half an append")
    return wrong


def must_be_whole(connection):
    said = [tuple(row) for row in connection.execute("PRAGMA integrity_check")]
    if said != [("ok",)]:
        raise sqlite3.DatabaseError(f"{said}")


def cut(life, where, *, seed=0, times=CUTS, lies=False):
    """Cut the power so many times, half of them at the moment an append returns: what is wrong each time."""
    for number in range(times):
        source = random.Random(seed * 1_000_003 + number)
        moment = source.choice([source.randint(0, len(life.disk.log)), source.choice(life.appends)[0]])
        yield what_is_wrong(life, moment, life.disk.after_cut(moment, source, lies=lies), where / str(number))


@pytest.mark.parametrize("seed", range(LIVES))
def test_a_power_cut_loses_no_acknowledged_row_doubles_none_and_damages_nothing(tmp_path, seed):
    life = lived(tmp_path / "before", seed)
    (own, *_) = (entry[1] for entry in life.disk.log)
    assert min(life.disk.count("sync", path) for path in (own, life.ledger)) > 5  # checkpoints
    assert [wrong for wrong in cut(life, tmp_path / "after", seed=seed) if wrong] == []


# That the cuts are cruel enough to show what would be wrong.


def test_with_relaxed_durability_a_power_cut_loses_the_newest_rows_and_damages_nothing(tmp_path):
    life = lived(tmp_path / "before", 0, full_sync=False)
    wrong = set().union(*cut(life, tmp_path / "after", times=FEW_CUTS))
    assert {"lost"} <= wrong <= {"lost", "half an append"}  # half: where only the other half was in the ledger


def test_rows_that_left_the_outbox_before_the_ledger_had_them_would_be_lost(tmp_path):
    life = lived(tmp_path / "before", 0, deliver=delivered_the_wrong_way_round)
    assert any("lost" in wrong for wrong in cut(life, tmp_path / "after", times=10 * CUTS))


def test_a_disk_that_says_it_has_synced_and_has_not_would_lose_rows_and_damage_files(tmp_path):
    life = lived(tmp_path / "before", 0)
    wrong = set().union(*cut(life, tmp_path / "after", times=FEW_CUTS, lies=True))
    assert {each.partition(":")[0] for each in wrong} >= {"lost", "damaged"}
