"""Calls of nobody are a value of their own: in reports, in `doctor`, and as a reason for a pipeline to fail."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.cli.test_commands import command

from spanledger.ledger.sqlite import SqliteLedger
from spanledger.model import NOBODY, Attribution, Cost, Usage, UsageRecord, record_id_at, row_of


def call(number, attribution, days=0, weight=1):
    started = datetime.now(UTC) - timedelta(days=days)
    return row_of(
        UsageRecord(
            record_id=record_id_at(int(started.timestamp() * 1e9) + number), started_at=started, operation="chat",
            provider="openai", source="test", request_model="gpt-4o", usage=Usage(), cost=Cost(),
            attribution=attribution, weight=weight,
        )
    )  # fmt: skip


@pytest.fixture
def filled(home):
    home.mkdir(mode=0o700)
    sink = SqliteLedger(home / "ledger.db")
    sink.send(
        [
            *(call(number, Attribution(feature="search")) for number in range(17)),
            call(17, Attribution(user_id="ada", attribution_source="unverified_headers")),
            call(18, NOBODY),
            call(19, NOBODY._replace(attribution_source="outlived")),
            call(20, NOBODY, days=8, weight=1000),
        ]
    )
    sink.close()
    return home


def test_a_report_names_those_that_nobody_is_known_for(filled):
    out = command("report", "--by", "feature", "--since", "7d").stdout
    assert [line.split("│")[1:3] for line in out.splitlines() if "│" in line][:2] == [
        [" search         ", "    17 "], [" (unattributed) ", "     3 "],
    ]  # fmt: skip
    assert '"feature": null' in command("report", "--by", "feature", "--format", "json").stdout
    assert "unverified_headers" in command("report", "--by", "attribution_source").stdout


@pytest.mark.parametrize(("most", "code"), [("5%", 1), ("9.9%", 1), ("10%", 0), ("0.1", 0), ("0", 1), ("100%", 0)])
def test_doctor_fails_where_more_calls_than_that_are_nobodys(filled, most, code):
    out = command("doctor", "--max-unattributed", most, expect=code).stdout
    assert "2 of 20 calls of the last 7 days are (unattributed), 10.0%" in out
    assert ("FAIL attribution" in out) == bool(code)


def test_doctor_warns_of_what_was_outlived_and_of_headers_that_anybody_can_send(filled):
    out = command("doctor").stdout
    assert "warn attribution: 1 calls were made by tasks that had outlived the scope they were started in" in out
    assert "warn attribution: 1 calls are attributed by headers that anybody can send (trust_all)" in out
    assert "capture() and restore()" in out


@pytest.mark.parametrize("share", ["5%%", "x", "-1%", "101%", "2", "nan", ""])
def test_what_is_no_share_is_wrong_use(home, share):
    done = command("doctor", "--max-unattributed", share, expect=2)
    assert done.stderr == f"spanledger: {share!r} is no share; try 5% or 0.05\n"


def test_doctor_warns_where_people_would_be_on_metrics(home):
    out = command("doctor", SPANLEDGER_METRIC_ATTRIBUTES="feature,user_id").stdout
    assert "warn metrics: user_id on every point, up to 100 of them" in out
    assert "warn metrics" not in command("doctor").stdout


def test_doctor_warns_where_baggage_goes_to_every_host_and_offers_the_switch(home):
    out = command("doctor", ANTHROPIC_OPEN_TELEMETRY_PROPAGATION="true").stdout
    assert "warn baggage: anthropic send OpenTelemetry baggage to every host, model providers included" in out
    assert "OTEL_PROPAGATORS=tracecontext stops it." in out
    switched = command("doctor", ANTHROPIC_OPEN_TELEMETRY_PROPAGATION="true", OTEL_PROPAGATORS="tracecontext").stdout
    assert "baggage" not in switched


def test_doctor_warns_where_one_person_would_have_a_hash_on_each_machine(home):
    url = "postgresql://user:password@localhost:1/nowhere"
    asked = {"SPANLEDGER_LEDGER_URL": url, "SPANLEDGER_SPAN_ATTRIBUTES": "feature,hash:user_id"}
    assert "hash:user_id is hashed with a key of this machine's alone" in command("doctor", expect=1, **asked).stdout
    assert "this machine's alone" not in command(
        "doctor", expect=1, SPANLEDGER_SIGNING_KEY="0123456789abcdef", **asked
    ).stdout  # fmt: skip
