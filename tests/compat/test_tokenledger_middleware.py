"""TokenLedger's middleware by TokenLedger's names: it believes every header, and says so."""

import logging

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from flask import Flask

import spanledger
from spanledger.compat.tokenledger.middleware import FastAPIMiddleware, FlaskMiddleware
from spanledger.context.scope import current

SENT = {
    "X-USER-ID": "ada", "x-session-id": "s", "X-Organization-ID": "acme", "X-Feature": "search", "X-Team": "platform",
    "X-Project": "p", "X-Cost-Center": "CC-1",
}  # fmt: skip
ADA = spanledger.Attribution(
    user_id="ada", session_id="s", organization_id="acme", feature="search", team="platform", project="p",
    cost_center="CC-1", metadata={"page": "/ask", "http_method": "POST"}, attribution_source="unverified_headers",
)  # fmt: skip


def fastapi_says(headers, **names):
    app, seen = FastAPI(), []
    app.add_middleware(FastAPIMiddleware, **names)

    @app.post("/ask")
    async def ask():
        seen.append(current())

    assert TestClient(app).post("/ask", headers=headers).status_code == 200
    return seen


def flask_says(headers, **names):
    app, seen = Flask("app"), []
    FlaskMiddleware(app, **names)

    @app.post("/ask")
    def ask():
        seen.append(current())
        return ""

    assert app.test_client().post("/ask", headers=headers).status_code == 200
    return seen


@pytest.mark.parametrize("says", [fastapi_says, flask_says])
def test_headers_of_anybody_say_whose_a_request_is_with_one_warning(says, caplog):
    with caplog.at_level(logging.WARNING, "spanledger"):
        assert says(SENT) == [ADA]
    (record,) = caplog.records
    assert record.message.startswith("Whoever can reach this service can send X-User-ID, X-Session-ID, ")
    assert "and be billed as anybody" in record.message


@pytest.mark.parametrize("says", [fastapi_says, flask_says])
def test_the_headers_can_have_other_names(says):
    (found,) = says({"X-User-ID": "mallory", "Login": "bob"}, names={"user_id": "Login"})
    assert (found.user_id, found.team) == ("bob", None)
