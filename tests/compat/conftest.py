"""What the tests in here share: SDKs that reach the provider on this machine, receivers, a message, a database."""

import pytest
from tests.export.receiver import Answer, Receiver
from tests.postgresql.conftest import database, postgres  # noqa: F401  # fixtures

import spanledger
from spanledger.compat.lexia import ChatMessage
from spanledger.export.formats.tokentally import PATH as TALLY
from spanledger.export.formats.usage_api import PATH as USAGES

OLD_MODELS = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")
"""The documents ask for models that Anthropic's SDK warns of by now."""
MESSAGE = {
    "thread_id": "t1", "model": "gpt-4o", "message": "Hello!", "conversation_id": 7, "response_uuid": "answer-1",
    "message_uuid": "question-1", "channel": "c1", "variables": [{"name": "LANG", "value": "en"}], "url": "",
}  # fmt: skip


@pytest.fixture(autouse=True)
def surroundings(provider, usage_api, monkeypatch):
    """What a deployment says in its environment; a message is answered nowhere else."""
    for name, said in {
        "OPENAI_BASE_URL": provider.base_url, "OPENAI_API_KEY": "unused",
        "ANTHROPIC_BASE_URL": provider.root, "ANTHROPIC_API_KEY": "unused",
        "GOOGLE_GEMINI_BASE_URL": provider.root, "GOOGLE_API_KEY": "unused",
        "LEXIA_API_BASE_URL": usage_api.url,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, said)
    for name in ("CENTRIFUGO_URL", "CENTRIFUGO_API_KEY", "DATABASE_URL", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def usage_api():
    """A usage API that takes whatever comes."""
    with Receiver() as made:
        yield made


@pytest.fixture
def tally():
    """A TokenTally that answers with figures of its own."""
    with Receiver(lambda _: Answer(200, {}, b'{"success": true, "record_id": "r1", "cost_usd": 0.125}')) as made:
        yield made


@pytest.fixture
def message():
    return ChatMessage(**MESSAGE)


@pytest.fixture(params=["watched", "unwatched"])
def watching(request):
    """Every SDK watched before, or none but what a program watches itself."""
    if request.param == "watched":
        spanledger.configure()
    return request.param == "watched"


@pytest.fixture
def truth(provider):
    """What the provider has answered in this test."""
    before = len(provider.truth)
    return lambda: provider.truth[before:]


@pytest.fixture
def sent(usage_api):
    """The rows that the usage API has got."""
    return lambda: [each.json for each in usage_api.requests if each.path == USAGES]


@pytest.fixture
def tallied(tally):
    """What TokenTally was told."""
    return lambda: [each.json for each in tally.requests if each.path == TALLY]


@pytest.fixture
def calls(ledger, home):
    """Input and output of every model call in the ledger; tools are none."""

    def found():
        assert spanledger.flush()
        rows = ledger("operation", "input_tokens", "output_tokens") if (home / "ledger.db").exists() else []
        return [row[1:] for row in rows if row[0] != "execute_tool"]

    return found


@pytest.fixture
def said(caplog):
    """What spanledger has logged."""
    caplog.set_level("INFO", "spanledger")
    return lambda level="WARNING": [each.getMessage() for each in caplog.records if each.levelname == level]
