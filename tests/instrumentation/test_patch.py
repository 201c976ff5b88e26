"""Putting our wrapper on and taking it off."""

import inspect

import pytest
import wrapt

import spanledger
from spanledger import guard
from spanledger.instrumentation.patch import Watched
from spanledger.instrumentation.providers import PROVIDERS

QUESTION = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}


def methods():
    from openai.resources.chat.completions import AsyncCompletions, Completions
    from openai.resources.embeddings import Embeddings

    return {kind.__name__: vars(kind)["create"] for kind in (Completions, AsyncCompletions, Embeddings)}


def test_uninstrument_restores_identity_and_instrument_brings_the_same_wrapper_back(recording):
    watched = methods()
    assert all(isinstance(method, Watched) for method in watched.values())
    spanledger.uninstrument()
    bare = methods()
    assert bare == {name: method.__wrapped__ for name, method in watched.items()}
    assert not any(isinstance(method, Watched) for method in bare.values())
    spanledger.instrument()
    assert all(method is watched[name] for name, method in methods().items())


def test_wrapping_twice_wraps_once(recording, client, ledger):
    for _ in range(3):
        spanledger.instrument("openai")
    assert not isinstance(methods()["Completions"].__wrapped__, Watched)
    client.chat.completions.create(**QUESTION)
    assert len(ledger()) == 1


def test_where_somebody_wrapped_us_uninstrument_leaves_their_wrapper_and_records_nothing(recording, client, ledger):
    from openai.resources.chat.completions import Completions

    seen = []

    def theirs(wrapped, instance, args, kwargs):
        seen.append(1)
        return wrapped(*args, **kwargs)

    ours = vars(Completions)["create"]
    Completions.create = wrapt.FunctionWrapper(ours, theirs)
    try:
        client.chat.completions.create(**QUESTION)
        spanledger.uninstrument()
        client.chat.completions.create(**QUESTION)
        spanledger.instrument()
        client.chat.completions.create(**QUESTION)
    finally:
        Completions.create = ours
    assert len(seen) == 3
    assert len(ledger()) == 2


def test_a_method_that_a_client_has_bound_once_follows_the_switch_and_the_settings(recording, client, home, tmp_path):
    import sqlite3

    raw = client.chat.completions.with_raw_response
    raw.create(**QUESTION)
    spanledger.uninstrument()
    raw.create(**QUESTION)
    spanledger.configure(state_dir=tmp_path / "elsewhere")
    raw.create(**QUESTION)
    assert spanledger.flush()
    for place in (home, tmp_path / "elsewhere"):
        connection = sqlite3.connect(place / "ledger.db")
        assert connection.execute("SELECT count(*) FROM usage_records").fetchone() == (1,)
        connection.close()


def test_signature_docstring_and_kind_survive(recording):
    from openai.resources.embeddings import AsyncEmbeddings, Embeddings

    for method in (Embeddings.create, AsyncEmbeddings.create):
        bare = method.__wrapped__
        assert inspect.signature(method) == inspect.signature(bare)
        assert (method.__doc__, method.__name__) == (bare.__doc__, bare.__name__)
        assert inspect.iscoroutinefunction(method) == inspect.iscoroutinefunction(bare)


def test_an_unknown_provider_is_named(recording):
    with pytest.raises(ValueError, match="no provider 'opnai'; it has openai"):
        spanledger.instrument("opnai")


def test_an_unknown_setting_is_named():
    with pytest.raises(TypeError, match="no setting colour; it has enabled"):
        spanledger.configure(colour="red")


@pytest.mark.lenient
@pytest.mark.parametrize("place", ["reader", "request_attributes", "find_usage"])
def test_a_mistake_of_ours_does_not_reach_the_application_and_is_counted(client, monkeypatch, place, caplog):
    from spanledger.instrumentation.plan import Plan

    def broken(*_, **__):
        raise RuntimeError("ours")

    monkeypatch.setattr(Plan, place, broken)
    answer = client.chat.completions.create(**QUESTION)
    assert answer.usage.total_tokens == 14
    chunks = list(client.chat.completions.create(**QUESTION, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.completion_tokens == 9
    assert sum(guard.failures.values()) >= 2
    assert "the application is unaffected" in caplog.text


@pytest.mark.lenient
def test_a_mistake_of_ours_in_one_call_leaves_the_next_one_watched(client, monkeypatch, ledger):
    from spanledger.instrumentation.watching import Watcher

    def broken(*_, **__):
        raise RuntimeError("ours")

    with monkeypatch.context() as patched:
        patched.setattr(Watcher, "_ask_for_usage", broken)
        assert list(client.chat.completions.create(**QUESTION, stream=True))
    client.chat.completions.create(**QUESTION)
    assert ledger("stream", "usage_status") == [(0, "reported")]


def test_a_table_of_provider_names_fits_in_its_size():
    from pathlib import Path

    from spanledger.instrumentation import providers

    for file in Path(providers.__file__).parent.glob("*.py"):
        assert len(file.read_text().splitlines()) <= 200, file


def test_the_hosts_of_the_table_lead_to_their_provider():
    import openai

    from spanledger.instrumentation.server import server_of

    def named(url, kind=openai.OpenAI):
        client = kind(api_key="x", base_url=url)
        server = server_of(PROVIDERS["openai"], client, client._base_url)
        return server.provider, server.address, server.port, server.known

    assert named("https://api.openai.com/v1") == ("openai", "api.openai.com", None, True)
    assert named("https://eu.api.openai.com/v1") == ("openai", "eu.api.openai.com", None, True)
    assert named("https://api.x.ai/v1") == ("x_ai", "api.x.ai", None, True)
    assert named("https://api.groq.com/openai/v1") == ("groq", "api.groq.com", None, True)
    assert named("https://x.openai.azure.com/openai/v1") == ("azure.ai.openai", "x.openai.azure.com", None, True)
    assert named("https://openrouter.ai/api/v1") == ("openrouter", "openrouter.ai", None, True)
    assert named("http://localhost:8000/v1") == ("openai", "localhost", 8000, False)
    assert named("https://notopenai.com/v1") == ("openai", "notopenai.com", None, False)
    azure = openai.AzureOpenAI(api_key="x", azure_endpoint="https://proxy.example.org", api_version="2024-10-21")
    assert server_of(PROVIDERS["openai"], azure, azure._base_url).provider == "azure.ai.openai"
