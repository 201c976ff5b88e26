"""L11, L12, L15-L17: nothing of a session raises, and what can't be sent is logged and holds nothing else up."""

import asyncio
import threading
import uuid

import pytest
from openai import OpenAI
from opentelemetry import trace
from tests.compat.conftest import MESSAGE
from tests.export.receiver import Receiver

import spanledger
from spanledger.compat.lexia import LexiaHandler, channel


class Hostile:
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __int__ = __float__ = __str__


class Lazy:
    @property
    def response_uuid(self):
        raise RuntimeError("not loaded")


@pytest.mark.parametrize(
    "usage",
    [(Hostile(), "prompt"), (1, Hostile()), (1, "prompt", Hostile())],
    ids=["tokens", "type", "cost"],
)
def test_l12_an_object_that_can_not_be_shown_raises_nothing(usage, message, said):
    session = LexiaHandler().begin(message)
    session.usage(*usage)
    assert len(said()) == 1


def test_l15_whatever_is_streamed_raises_nothing(message):
    LexiaHandler().begin(message).stream(Hostile())


def test_l17_whatever_went_wrong_raises_nothing(message):
    LexiaHandler().begin(message).error(Hostile())


def test_l2_a_message_that_can_not_be_read_raises_nothing():
    LexiaHandler().begin(Lazy()).usage(1, "prompt")


def test_l15_an_address_that_is_no_text_raises_nothing():
    LexiaHandler().begin({**MESSAGE, "stream_url": 7}).stream("Hello")


@pytest.mark.parametrize("what", [{"response_uuid": uuid.uuid4()}, {"headers": "x-tenant=acme"}, {"headers": {"x": 7}}])
def test_l16_what_can_not_be_sent_is_logged_and_the_next_message_is_sent(what, said, monkeypatch):
    failed = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    with Receiver() as platform:
        LexiaHandler().begin({**MESSAGE, "url": f"{platform.url}/a", **what}).close()
        LexiaHandler().begin({**MESSAGE, "url": f"{platform.url}/b"}).close()
        channel._POST._waiting.join()
        assert [each.path for each in platform.requests][-1:] == ["/b"]
    assert failed == []


def test_l12_a_long_value_is_shortened_in_the_log(message, said):
    LexiaHandler().begin(message).usage("9" * 5000, "prompt")
    (line,) = said()
    assert len(line) < 500


HELLO = [{"role": "user", "content": "Hello! How are you?"}]


def _answered(session):
    with OpenAI() as client:
        usage = client.chat.completions.create(model="gpt-4o", messages=HELLO).usage
    session.usage(usage.prompt_tokens, "prompt")
    session.usage(usage.completion_tokens, "completion")
    session.close()


def test_l16_a_session_that_is_closed_elsewhere_logs_no_error(message, caplog):
    spanledger.configure()

    async def main():
        session = LexiaHandler().begin(message)

        async def later():
            _answered(session)

        await asyncio.create_task(later())
        return trace.get_current_span()

    span = asyncio.run(main())
    assert [each.getMessage() for each in caplog.records if each.levelname == "ERROR"] == []
    assert not span.get_span_context().is_valid  # else later calls here are children of a session that has ended


def test_l21_a_watched_image_that_is_reported_too_is_paid_once(message, ledger):
    spanledger.configure()
    session = LexiaHandler().begin(message)
    with OpenAI() as client:
        client.images.generate(model="dall-e-3", prompt="A cat", size="1024x1024")
    session.usage(50, "function_call", cost="0.04", label="DALL-E 3 Image")
    session.close()
    assert sum(cost for (cost,) in ledger("cost_pusd")) == 40_000_000_000
