"""Names stand in three places: the constants, the published registry, the reference pages. They agree."""

import subprocess
import sys
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import yaml

import spanledger
from spanledger import attribution, conventions, model
from spanledger.recording.meters import Meters, token_buckets

ROOT = Path(__file__).parents[1]
GROUPS = yaml.safe_load((ROOT / "semconv" / "registry.yaml").read_text(encoding="utf-8"))["groups"]
ATTRIBUTES = {
    each["id"]: each for group in GROUPS if group["type"] == "attribute_group" for each in group["attributes"]
}
METRICS = {group["metric_name"]: group for group in GROUPS if group["type"] == "metric"}
OURS = ("spanledger.", "reason", "sink")


def spelled(value):
    """Every text in a constant: itself, or the values of a table."""
    if isinstance(value, str):
        return {value}
    return {each for each in value.values() if isinstance(each, str)} if isinstance(value, dict) else set()


def refs(group):
    return {each["ref"] for each in group.get("attributes", ())}


def members(name):
    return {each["value"] for each in ATTRIBUTES[name]["type"]["members"]}


def test_every_attribute_of_ours_is_in_the_registry_and_the_other_way_round():
    constants = {name: value for name, value in vars(conventions).items() if name.isupper() and name != "METRICS"}
    names = {
        text.removesuffix(".")
        for name, value in constants.items()
        if not name.startswith("METRIC_")
        for text in spelled(value)
        if text.startswith(OURS)
    }
    assert names == set(ATTRIBUTES)


def test_every_metric_of_ours_is_in_the_registry_and_the_other_way_round():
    ours = {name: row for name, row in conventions.METRICS.items() if name.startswith("spanledger.")}
    assert {name: (group["instrument"], group["unit"], group["brief"]) for name, group in METRICS.items()} == ours
    assert all(group["id"] == f"metric.{name}" for name, group in METRICS.items())


def test_every_reference_in_the_registry_leads_to_an_attribute():
    for group in GROUPS:
        if group["type"] != "attribute_group":
            assert refs(group) <= set(ATTRIBUTES), group["id"]


def test_values_of_attributes_are_those_of_the_code():
    every_count = {each.name: 1 for each in fields(model.Usage) if each.name not in ("other_usage", "usage_status")}
    usage = model.Usage(**{**every_count, "input_tokens": 9, "output_tokens": 9, "cache_write_tokens": 2})
    assert members("spanledger.bucket") == set(token_buckets(usage))
    assert members("spanledger.status") == set(get_args(model.Status))


def test_a_metric_carries_the_attributes_the_registry_lists(telemetry):
    keys = tuple(key for key in conventions.ATTRIBUTION if key not in ("user_id", "session_id"))
    meters = Meters(telemetry.meter_provider, keys=keys, limit=100, pending=lambda: 0, version="0")
    record = model.UsageRecord(
        record_id="1",
        started_at=datetime.now(UTC),
        operation="chat",
        provider="openai",
        source="tests",
        usage=model.Usage(input_tokens=1, usage_status="partial"),
        cost=model.Cost(cost_pusd=1, cost_status="partial", local_cost_pusd=2),
        attribution=model.Attribution(**dict.fromkeys(keys, "x")),
    )
    with attribution(note="x" * 300):
        meters.settled(record)
    meters.settled(replace(record, cost=None))
    meters.count(conventions.METRIC_LOST, 1, {conventions.REASON: "unbuildable"})
    for name in (conventions.METRIC_SPANS, conventions.METRIC_REPORTS):
        meters.count(name, 1, {conventions.OUTCOME: "merged"})
    for name in (conventions.METRIC_SENT, conventions.METRIC_FAILED, conventions.METRIC_DEAD):
        meters.count(name, 1, {conventions.SINK: "memory"})
    data = telemetry.reader.get_metrics_data()
    seen = {
        metric.name: {key for point in metric.data.data_points for key in point.attributes if key.startswith(OURS)}
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    listed = {name: refs(group) for name, group in METRICS.items()}
    assert listed.pop(conventions.METRIC_MISSING) == {conventions.METHOD}  # tests/instrumentation/test_missing.py
    assert seen == listed


def test_a_span_carries_nothing_that_is_not_documented(client, recording):
    keys = dict.fromkeys(conventions.ATTRIBUTION, "x")
    searches = [{"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search"}}]
    with spanledger.attribution(**keys, page="checkout"):
        client.responses.create(model="gpt-5.4", input="hi", extra_body={"loopback": {"output": searches}})
    (span,) = recording.spans
    listed = refs(next(group for group in GROUPS if group["id"] == "span.spanledger.genai.client"))
    ours = {name for name in span.attributes if name.startswith("spanledger.")}
    assert "spanledger.metadata.page" in ours
    assert {"spanledger.metadata" if name.startswith("spanledger.metadata.") else name for name in ours} <= listed
    page = (ROOT / "docs" / "reference" / "attributes.md").read_text(encoding="utf-8")
    assert not [name for name in set(span.attributes) - ours if f"`{name}`" not in page]


def test_no_attribute_is_listed_for_spans_that_none_can_carry():
    listed = refs(next(group for group in GROUPS if group["id"] == "span.spanledger.genai.client"))
    on_metrics_only = {
        conventions.CALL_STATUS, conventions.BUCKET, conventions.REASON, conventions.SINK, conventions.METHOD,
        conventions.OUTCOME, conventions.ATTRIBUTION_CHANGE,
    }  # fmt: skip
    on_events = refs(next(group for group in GROUPS if group["id"] == "event.spanledger.usage"))
    assert set(ATTRIBUTES) - listed - on_events == on_metrics_only - on_events


def test_the_reference_pages_are_what_the_tables_say():
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
