"""I19: the route to Google, whose client closes what it has opened when nobody holds it."""

from tests.compat.seeds import billed

from spanledger.compat.indoxrouter import IndoxRouter


def test_i19_google_is_asked_by_its_own_sdk(truth, calls):
    hello = [{"role": "user", "content": "Hello!"}]
    usage = IndoxRouter(api_key="k").chat_completions(provider="google", model="gemini-2.5-flash", messages=hello).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == billed(truth())[0]
    assert calls() == billed(truth())
