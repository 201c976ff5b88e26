"""The price list is loaded by one thread; nobody else waits for it, and no child inherits half of it."""

import os
import threading
import time

import pytest

from spanledger.pricing.loader import Prices


@pytest.fixture
def slow(tmp_path):
    """A price file that can be read once somebody has written it: a pipe."""
    path = tmp_path / "prices.json"
    os.mkfifo(path)
    return path


def write(path):
    path.write_text('{"version": 1, "currency": "USD"}')


def test_to_ask_for_prices_never_waits_for_whoever_is_loading_them(slow):
    prices = Prices(fixups=False, files=(slow,))
    loading = threading.Thread(target=prices.wait)
    loading.start()
    for _ in range(100):
        prices.warm()
    assert prices.ready is None
    write(slow)
    loading.join()
    assert prices.ready is prices.wait()


def test_a_fork_waits_for_a_load_under_way_so_that_the_child_has_prices(slow):
    prices = Prices(fixups=False, files=(slow,))
    prices.warm()
    while not prices._loading.locked():
        time.sleep(0.001)
    threading.Timer(0.5, write, (slow,)).start()
    child = os.fork()
    if child == 0:
        os._exit(0 if prices.ready is not None and prices.wait() is prices.ready else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert prices.ready is not None


def test_a_child_loads_what_its_parent_had_not_begun_to(tmp_path):
    prices = Prices(fixups=False)
    child = os.fork()
    if child == 0:
        prices.warm()
        os._exit(0 if prices.wait() is prices.ready else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert prices.ready is None
