"""Which service the records are of."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import unquote

from opentelemetry import trace

from spanledger import conventions
from spanledger.settings import Settings


def service_of(settings: Settings, tracer_provider: Any) -> dict[str, Any]:
    """Service name, version and environment: from the settings, else the provider's resource, else the environment."""
    resource = getattr(tracer_provider or trace.get_tracer_provider(), "resource", None)
    attributes = _resource_of_environment() if resource is None else resource.attributes
    name = attributes.get(conventions.SERVICE_NAME)
    if str(name).startswith("unknown_service"):
        name = None
    return {
        "service_name": settings.app_name or name,
        "service_version": attributes.get(conventions.SERVICE_VERSION) or None,
        "environment": settings.environment or attributes.get(conventions.ENVIRONMENT),
    }


def _resource_of_environment() -> dict[str, str]:
    """What OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME say, where there is no SDK provider to ask.

    The SDK's own detectors run in a thread pool, which can't be made at interpreter exit, where short programs are.
    """
    pairs = (pair.partition("=") for pair in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    attributes = {name.strip(): unquote(value.strip()) for name, sign, value in pairs if sign}
    if os.environ.get("OTEL_SERVICE_NAME"):
        attributes["service.name"] = os.environ["OTEL_SERVICE_NAME"]
    return attributes
