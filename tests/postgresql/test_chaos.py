"""Producers and relays killed at random while the server breaks down: nothing missing, nothing twice.

A short form runs always; `SPANLEDGER_SOAK=1` asks for fifty kills.
"""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from tests.postgresql.records import asked
from tests.postgresql.server import Server

from spanledger.assembly import deliver_left
from spanledger.recording.survey import survey
from spanledger.settings import read_settings

SOAK = "SPANLEDGER_SOAK" in os.environ  # asked now: every test takes our settings out of its environment
KILLS = 50 if SOAK else 3
PRODUCER = """
import os, sys, threading, time
import httpx2, spanledger
from openai import OpenAI
from spanledger import assembly

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
BODY = {"id": "c", "model": "gpt-4o", "choices": [], "usage": USAGE}
def answer(request):
    return httpx2.Response(200, json=BODY)

spanledger.configure()
client = OpenAI(api_key="x", http_client=httpx2.Client(transport=httpx2.MockTransport(answer)))
recorder = assembly._runtime.recorder
calls = 0

def tell():
    while True:
        os.write(1, b"%d %d\\n" % (recorder.committed, calls))
        time.sleep(0.001)

threading.Thread(target=tell, daemon=True).start()
while True:
    with spanledger.attribution(user_id=sys.argv[1], session_id=str(calls)):
        client.chat.completions.create(model="gpt-4o", messages=[])
    calls += 1
    time.sleep(0.002)
"""
RELAY = """
from spanledger.assembly import deliver_left
from spanledger.settings import read_settings
settings = read_settings()
while True:
    deliver_left(settings, 5)
    print("round", flush=True)
"""


@pytest.fixture
def durable(monkeypatch):
    """A server as durable as one in production."""
    for name in list(os.environ):
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    with Server() as running:
        yield running


class Doomed:
    """A process that gets going, is left to it for a random while, and is killed."""

    def __init__(self, program, *arguments):
        self.name = arguments[0] if arguments else "relay"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._lines = []
        self._going = threading.Event()
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self):
        for line in self._process.stdout:
            self._lines.append(line)
            if line.startswith("round") or int(line.split()[0]) > 0:
                self._going.set()
        self._going.set()

    def kill_after(self, seconds):
        assert self._going.wait(60), self.name
        assert self._process.poll() is None, self._process.stderr.read()
        time.sleep(seconds)
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._reading.join()
        self._process.stderr.close()
        self._process.stdout.close()

    def acknowledged(self):
        """How many calls it has said to be on the disk."""
        whole = [line.split() for line in self._lines if re.fullmatch(r"\d+ \d+\n", line)]
        return int(whole[-1][0])


@pytest.mark.timeout(1800 if SOAK else 120)
def test_whatever_is_killed_every_acknowledged_call_is_in_the_ledger_once(home, durable, monkeypatch, capsys):
    url = durable.create_database("chaos")
    monkeypatch.setenv("SPANLEDGER_LEDGER_URL", url)
    monkeypatch.setenv("SPANLEDGER_FLUSH_INTERVAL", "0.05")
    source = random.Random(11)
    producers, restarts, began = [], 0, time.monotonic()
    with contextlib.ExitStack() as stack:
        lives = []

        def start(number):
            relay = number % 3 == 2
            lives.append(Doomed(RELAY) if relay else Doomed(PRODUCER, f"producer {number}"))
            if not relay:
                producers.append(lives[-1])

        stack.callback(lambda: [each.kill_after(0) for each in lives])
        for number in range(3):
            start(number)
        for number in range(KILLS):
            if number % 3 == 2:
                source.choice([durable.restart, durable.kill])()
                restarts += 1
            lives[0].kill_after(source.uniform(0.0, 0.7))
            lives.pop(0)
            durable.start()
            start(number + 3)
    durable.start()
    settings = read_settings()
    rounds = 0
    while not deliver_left(settings, 30) or survey(home / "outbox"):
        rounds += 1
        assert rounds < 20, survey(home / "outbox")
    found = {}
    for user, session in asked(url, "SELECT user_id, session_id FROM usage_records"):
        found.setdefault(user, []).append(int(session))
    missing = sum(len({*range(each.acknowledged())} - {*found.get(each.name, [])}) for each in producers)
    doubled = sum(len(sessions) - len({*sessions}) for sessions in found.values())
    acknowledged = sum(each.acknowledged() for each in producers)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{KILLS + 3} kills ({len(producers)} producers), {restarts} breakdowns of the server,"
            f" {acknowledged} calls acknowledged, {sum(map(len, found.values()))} in the ledger, {missing} missing,"
            f" {doubled} twice, {time.monotonic() - began:.0f} s\n"
        )
    assert (missing, doubled) == (0, 0)
    assert acknowledged >= len(producers)
