"""Counts the calls of many users: run by test_spoof.py.

Arguments: the attribution keys on metrics; "same" where each user has a value of each key, "crossed" where
they combine; how many users. Prints JSON: values per key, points, and MiB that the process grew by.
"""

import json
import resource
import sys
from datetime import UTC, datetime

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from spanledger import conventions
from spanledger.model import Attribution, Cost, Usage, UsageRecord
from spanledger.recording.meters import Meters

KEYS = tuple(sys.argv[1].split(","))
SPREAD, USERS = sys.argv[2], int(sys.argv[3])
READER = InMemoryMetricReader()
METERS = Meters(MeterProvider([READER], shutdown_on_exit=False), keys=KEYS, limit=100, pending=lambda: 0, version="0")
BEGUN = datetime(2026, 10, 1, tzinfo=UTC)
USAGE = Usage(input_tokens=5, output_tokens=9, usage_status="reported")
COST = Cost(10**6, None, "USD", "local", "priced")
SIZES = {"feature": 97, "team": 89, "project": 83, "cost_center": 79, "user_id": 73}


def whose(number):
    if SPREAD == "same":
        return Attribution(**{key: f"{key}-{number}" for key in SIZES})
    return Attribution(**{key: f"{key}-{number % size}" for key, size in SIZES.items()})


def count(numbers):
    for number in numbers:
        METERS.settled(
            UsageRecord(
                record_id="r", started_at=BEGUN, operation="chat", provider="openai", source="t",
                request_model="gpt-4o", response_model="gpt-4o", usage=USAGE, cost=COST, attribution=whose(number),
            )
        )  # fmt: skip


def grown():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


count(range(1000))
before = grown()
count(range(1000, USERS))
after = grown()
values, points, calls = {key: set() for key in KEYS}, {}, 0
for scope in READER.get_metrics_data().resource_metrics[0].scope_metrics:
    for metric in scope.metrics:
        points[metric.name] = len(metric.data.data_points)
        for point in metric.data.data_points:
            calls += point.value if metric.name == conventions.METRIC_CALLS else 0
            for key in KEYS:
                values[key].add(point.attributes.get(conventions.ATTRIBUTION[key]))
said = {key: len(each - {None}) for key, each in values.items()}
found = {"values": said, "points": max(points.values()), "calls": calls, "mib": round(after - before, 1)}
sys.stdout.write(json.dumps(found))
