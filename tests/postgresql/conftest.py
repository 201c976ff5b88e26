"""A real PostgreSQL for the tests in here, and a fresh database for each of them."""

import itertools
import os

import pytest
from tests.postgresql.server import Server

numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres():
    with Server(fsync="off") as running:
        yield running


@pytest.fixture
def database(postgres, monkeypatch):
    """The URL of this test's own empty database; the server may be stopped, restarted or killed meanwhile."""
    for name in list(os.environ):
        if name.startswith("PG"):  # what libpq would add to the URL
            monkeypatch.delenv(name)
    name = f"test_{next(numbers)}"
    postgres.start()
    yield postgres.create_database(name)
    postgres.start()
    postgres.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """The URL of a ledger that is not there yet, of either kind."""
    return request.getfixturevalue("database") if request.param == "postgresql" else f"sqlite:///{tmp_path}/l/ledger.db"
