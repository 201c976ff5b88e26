"""Captured attribution: it comes back whole, only to who has the key, and whatever else is given restores nobody."""

import base64
import hashlib
import hmac
import importlib
import json
import logging
import os
import stat
import subprocess
import sys
import threading
from functools import partial

import openai
import pytest

import spanledger
from spanledger import Attribution, attribution, capture, restore
from spanledger.context.carrier import key, key_of
from spanledger.context.scope import current
from spanledger.context.values import trimmed
from spanledger.model import NOBODY

web = importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__.split(".")[0])
ANSWER = {"id": "c", "model": "gpt-4o", "choices": [], "usage": None}
CALL = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
NAMES = ("user_id", "session_id", "organization_id", "feature", "team", "project", "cost_center", "message_id")
EVERYTHING = {name: f"{name} of ada" for name in NAMES}
METADATA = {"text": "x", "yes": True, "no": False, "count": -(2**63), "ratio": 0.1, "zero": 0, "größe": "é"}
KEY, OTHER = "k" * 32, "other-" * 6


@pytest.fixture(autouse=True)
def nothing_refused_yet():
    trimmed.clear()
    yield
    trimmed.clear()


@pytest.fixture
def own_key():
    """The key of this process, put back as it was."""
    used = key._use
    yield key
    key._use = used


def warnings_in(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


def base64_of(content):
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def forged(held, version="v1", signed_with=KEY):
    body = base64_of(json.dumps(held).encode())
    return f"{version}.{body}.{base64_of(hmac.digest(signed_with.encode(), body.encode(), 'sha256'))}"


def restored(text):
    with restore(text) as found:
        assert current() == found
    assert current() is NOBODY
    return found


def ask():
    http = web.Client(transport=web.MockTransport(lambda _: web.Response(200, json=ANSWER)))
    with openai.OpenAI(api_key="x", http_client=http) as client:
        client.chat.completions.create(**CALL)


# What is captured comes back


@pytest.mark.parametrize(
    "given",
    [
        {"user_id": "ada"},
        {**EVERYTHING, **METADATA},
        {"user_id": "ädä 日本 🦔", "team": "a.b.c", "note": "=&%\"'\\{}", "\N{HEDGEHOG}": "…"},
        {"user_id": "x" * 5000, "note": "y" * 5000, "n" * 5000: 1},
    ],
    ids=["a user", "everything", "unicode", "long values"],
)
def test_what_is_captured_comes_back_whole(given):
    spanledger.configure()
    with attribution(**given) as held:
        text = capture()
    assert (restored(text), restored(text.encode())) == (held, held)
    assert (text.isascii(), text.isprintable(), text.count("."), " " in text) == (True, True, 2, False)
    assert trimmed["refused"] == 0


def test_where_nobody_is_captured_nobody_is_restored():
    spanledger.configure()
    with attribution(user_id="ada"), restore(None):
        text = capture()
    assert (restored(text), restored(capture())) == (NOBODY, NOBODY)


def test_numbers_and_booleans_come_back_as_what_they_are():
    spanledger.configure()
    with attribution(**METADATA):
        text = capture()
    found = restored(text).metadata
    assert [(name, value, type(value)) for name, value in found.items()] == [
        (name, value, type(value)) for name, value in METADATA.items()
    ]


@pytest.mark.parametrize("character", ['"', "\\", "é", "🦔", "\x00", "\udc80"])
def test_a_captured_text_has_a_bound_and_comes_back_at_its_longest(character):
    spanledger.configure()
    longest = character * (256 // len(character.encode("utf-8", "surrogatepass")))
    metadata = {f"{number:03}" + longest[:-3]: longest for number in range(40)}
    with attribution(**dict.fromkeys(NAMES, longest), metadata=metadata) as held:
        text = capture()
    assert len(text) <= 40_960
    assert restored(text) == held
    assert trimmed["refused"] == 0


def test_how_it_was_known_comes_back_too():
    spanledger.configure(signing_key=KEY)
    assert restored(forged({"user_id": "ada", "attribution_source": "late"})) == Attribution(
        user_id="ada", attribution_source="late"
    )


def test_what_is_restored_has_nothing_of_the_scopes_around_it():
    spanledger.configure()
    with attribution(user_id="ada"):
        text = capture()
    with attribution(user_id="bob", feature="bobs", note="bobs"):
        with restore(text) as found:
            assert found == Attribution(user_id="ada")
        with restore(forged({"user_id": "mallory"})) as found:
            assert found == NOBODY
        assert current() == Attribution(user_id="bob", feature="bobs", metadata={"note": "bobs"})


def test_a_scope_inside_a_restored_one_adds_to_it():
    spanledger.configure()
    with attribution(user_id="ada"):
        text = capture()
    with restore(text), attribution(feature="chat"):
        assert current() == Attribution(user_id="ada", feature="chat")


def test_a_captured_text_can_be_restored_again_and_again_and_decorates():
    spanledger.configure()
    with attribution(user_id="ada"):
        text = capture()
    scope = restore(text)
    assert [restored(text), restored(text), scope(current)(), scope(current)()] == [Attribution(user_id="ada")] * 4


# What is not ours restores nobody


def genuine():
    with attribution(user_id="ada"):
        return capture()


def changed(text, part, change):
    parts = text.split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)


def other_letter(text):
    return ("A" if text[0] != "A" else "B") + text[1:]


TAMPERED = {
    "another signature": lambda text: changed(text, 2, other_letter),
    "a signature of another length": lambda text: text[:-1],
    "a padded signature": lambda text: f"{text}=",
    "no signature": lambda text: changed(text, 2, lambda _: ""),
    "a signature beyond ASCII": lambda text: changed(text, 2, lambda part: "é" + part[1:]),
    "another body": lambda text: changed(text, 1, other_letter),
    "a body of somebody else": lambda text: changed(
        text, 1, lambda _: base64_of(b'{"user_id":"mallory","attribution_source":"scope"}')
    ),
    "no body": lambda text: changed(text, 1, lambda _: ""),
    "a body with a lone surrogate": lambda text: changed(text, 1, lambda part: "\udc80" + part),
    "another version": lambda text: changed(text, 0, lambda _: "v2"),
    "another version, signed": lambda _: forged({"user_id": "mallory"}, version="v2"),
    "signed with another key": lambda _: forged({"user_id": "mallory"}, signed_with=OTHER),
    "a space before": lambda text: f" {text}",
    "a newline after": lambda text: f"{text}\n",
    "one part more": lambda text: f"{text}.x",
    "twice": lambda text: f"{text},{text}",
    "a JWT": lambda _: "eyJhbGciOiJub25lIn0.eyJ1c2VyX2lkIjoibWFsbG9yeSJ9.",
    "garbage": lambda _: "\x00\xff../..%00",
    "bytes": lambda _: b"\xff\xfe\x00",
    "huge": lambda text: text + "A" * 10_000_000,
    "huge bytes": lambda text: text.encode() + b"A" * 10_000_000,
    "many dots": lambda _: "." * 40_000,
    "an attribution": lambda _: Attribution(user_id="mallory"),
    "a mapping": lambda _: {"user_id": "mallory"},
    "a number": lambda _: 7,
    "a list": lambda text: text.split("."),
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_what_is_not_signed_with_our_key_restores_nobody_is_said_once_and_counted(tamper, caplog):
    spanledger.configure(signing_key=KEY)
    with caplog.at_level(logging.WARNING, "spanledger"):
        given = tamper(genuine())
        with attribution(user_id="bob"), restore(given) as found:
            assert current() == found
        assert (found, restored(given)) == (NOBODY, NOBODY)
    said = [each for each in warnings_in(caplog) if "not signed with our key" in each]
    assert (len(said), trimmed["refused"]) == (1, 2)
    assert "mallory" not in caplog.text


@pytest.mark.parametrize(
    "held", [[], "text", 7, None, [["user_id", "mallory"]]], ids=["list", "text", "number", "null", "pairs"]
)
def test_a_signed_body_that_is_no_mapping_restores_nobody(held):
    spanledger.configure(signing_key=KEY)
    assert (restored(forged(held)), trimmed["refused"]) == (NOBODY, 1)


def test_keys_that_we_do_not_know_are_left_out():
    spanledger.configure(signing_key=KEY)
    held = {"user_id": "ada", "from_the_future": 1, "attribution_source": "scope"}
    assert restored(forged(held)) == Attribution(user_id="ada")


def test_a_call_under_a_refused_text_is_nobodys_in_the_ledger(ledger):
    spanledger.configure(signing_key=KEY)
    with attribution(user_id="bob"), restore(forged({"user_id": "mallory"}, signed_with=OTHER)):
        ask()
    assert ledger("user_id", "attribution_source") == [(None, None)]


# The key


def test_the_key_is_made_once_and_readable_by_its_owner_alone(home):
    spanledger.configure()
    assert not (home / "signing.key").exists()  # where nothing is signed there is none
    text = genuine()
    made = home / "signing.key"
    assert (stat.S_IMODE(made.stat().st_mode), len(made.read_bytes()), made.stat().st_nlink) == (0o600, 64, 1)
    kept = made.read_bytes()
    spanledger.shutdown()
    spanledger.configure()
    assert (restored(text), made.read_bytes()) == (Attribution(user_id="ada"), kept)
    assert [each.name for each in home.iterdir() if "signing" in each.name] == ["signing.key"]


def test_a_key_that_others_could_read_is_closed_to_them(home):
    home.mkdir(mode=0o700)
    (home / "signing.key").write_text("k" * 64)
    (home / "signing.key").chmod(0o644)
    assert key_of(None, home) == b"k" * 64
    assert stat.S_IMODE((home / "signing.key").stat().st_mode) == 0o600


def test_threads_that_make_the_key_at_once_agree(home):
    def make():
        start.wait()
        found.append(key_of(None, home))

    found, start = [], threading.Barrier(8, timeout=30)
    threads = [threading.Thread(target=make) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == [(home / "signing.key").read_bytes()] * 8
    assert [each.name for each in home.iterdir()] == ["signing.key"]


MAKING = """
import sys
from pathlib import Path
from spanledger.context.carrier import key_of
print("ready", flush=True)
sys.stdin.readline()
print(key_of(None, Path(sys.argv[1])).decode())
"""


def test_processes_that_make_the_key_at_once_agree(home):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", MAKING, home], **pipes) for _ in range(8)]
    assert [each.stdout.readline() for each in processes] == ["ready\n"] * 8
    for each in processes:
        each.stdin.write("\n")
        each.stdin.flush()
    found = [each.communicate(timeout=60)[0].strip() for each in processes]
    assert found == [(home / "signing.key").read_text()] * 8
    assert [each.name for each in home.iterdir()] == ["signing.key"]


def test_threads_that_sign_first_at_once_agree(home):
    def sign():
        start.wait()
        found.append(genuine())

    spanledger.configure()
    found, start = [], threading.Barrier(8, timeout=30)
    threads = [threading.Thread(target=sign) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [restored(each) for each in found] == [Attribution(user_id="ada")] * 8


def linked(home):
    (home.parent / "elsewhere").write_text("k" * 64)
    (home / "signing.key").symlink_to(home.parent / "elsewhere")


def linked_to_nothing(home):
    (home / "signing.key").symlink_to(home.parent / "nowhere")


def empty(home):
    (home / "signing.key").touch()


def short(home):
    (home / "signing.key").write_text("k" * 31)


def directory(home):
    (home / "signing.key").mkdir()


def a_pipe(home):
    os.mkfifo(home / "signing.key")


def file_for_directory(home):
    home.rmdir()
    home.write_text("no directory")


def link_for_directory(home):
    home.rmdir()
    (home.parent / "real").mkdir(mode=0o700)
    home.symlink_to(home.parent / "real")


def others_can_write(home):
    home.chmod(0o777)


TROUBLES = [linked, linked_to_nothing, empty, short, directory, a_pipe, file_for_directory, link_for_directory]


@pytest.mark.parametrize("trouble", [*TROUBLES, others_can_write], ids=lambda each: each.__name__)
def test_where_there_can_be_no_key_it_is_of_this_process_alone(trouble, home, caplog, own_key):
    home.mkdir(mode=0o700)
    trouble(home)
    with caplog.at_level(logging.WARNING, "spanledger"):
        own_key.use(partial(key_of, None, home))
        first, second = genuine(), genuine()
    assert (first, restored(first)) == (second, Attribution(user_id="ada"))
    said = warnings_in(caplog)
    assert (len(said), "There can be no signing key in" in said[0], "SPANLEDGER_SIGNING_KEY" in said[0]) == (
        1,
        True,
        True,
    )
    own_key.use(partial(key_of, None, home))  # another process
    assert (restored(first), trimmed["refused"]) == (NOBODY, 1)
    assert not (home.parent / "nowhere").exists()
    assert [each.name for each in home.parent.rglob("signing.key.*")] == []


def test_a_state_directory_that_is_a_file_leaves_capture_at_work(home, caplog, monkeypatch, tmp_path):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "given"))
    (tmp_path / "given").mkdir(mode=0o700)
    home.write_text("no directory")
    spanledger.configure()
    assert restored(genuine()) == Attribution(user_id="ada")


def test_the_key_of_the_settings_is_the_one(home, monkeypatch):
    monkeypatch.setenv("SPANLEDGER_SIGNING_KEY", KEY)
    spanledger.configure()
    assert genuine() == forged_as_captured(KEY)
    assert restored(forged({"user_id": "bob"})).user_id == "bob"
    assert not (home / "signing.key").exists()


def forged_as_captured(signed_with):
    body = base64_of(b'{"user_id":"ada","attribution_source":"scope"}')
    return f"v1.{body}.{base64_of(hmac.digest(signed_with.encode(), body.encode(), 'sha256'))}"


def test_a_key_that_is_too_short_is_not_taken_and_not_shown(home, monkeypatch, caplog):
    monkeypatch.setenv("SPANLEDGER_SIGNING_KEY", "tooshort123")
    with caplog.at_level(logging.WARNING, "spanledger"):
        spanledger.configure()
        text = genuine()
    said = [each for each in warnings_in(caplog) if "SPANLEDGER_SIGNING_KEY" in each]
    assert (len(said), "at least" in said[0]) == (1, True)
    assert "tooshort123" not in caplog.text
    assert (restored(text), (home / "signing.key").exists()) == (Attribution(user_id="ada"), True)
    assert text != forged_as_captured("tooshort123")


def test_a_key_that_differs_refuses_what_the_other_has_signed(monkeypatch, caplog):
    monkeypatch.setenv("SPANLEDGER_SIGNING_KEY", KEY)
    spanledger.configure()
    text = genuine()
    monkeypatch.setenv("SPANLEDGER_SIGNING_KEY", OTHER)
    with caplog.at_level(logging.WARNING, "spanledger"):
        spanledger.configure()
        assert (restored(text), trimmed["refused"]) == (NOBODY, 1)
    assert [KEY in caplog.text, OTHER in caplog.text] == [False, False]


# Hashed on spans


def test_a_hashed_user_is_the_same_for_the_same_and_cannot_be_tried_out(telemetry, ledger, home):
    providers = {"tracer_provider": telemetry.tracer_provider, "meter_provider": telemetry.meter_provider}
    spanledger.configure(**providers, span_attributes="hash:user_id,feature")
    for user in ("ada", "bob", "ada"):
        with attribution(user_id=user, feature="chat", team="t"):
            ask()
    assert ledger("user_id", "feature", "team") == [(user, "chat", "t") for user in ("ada", "bob", "ada")]
    written = [(span.attributes["user.id"], span.attributes["spanledger.feature"]) for span in telemetry.spans]
    kept = (home / "signing.key").read_bytes()
    ada, bob = (hmac.digest(kept, b"hash\0" + user, "sha256").hex()[:32] for user in (b"ada", b"bob"))
    assert written == [(ada, "chat"), (bob, "chat"), (ada, "chat")]
    plain = {hashlib.new(name, b"ada").hexdigest() for name in ("md5", "sha1", "sha256", "sha512", "blake2b")}
    assert not any(each.startswith(ada) or ada in each for each in plain)
    for span in telemetry.spans:
        assert not {"ada", "bob", "t"} & {str(value) for value in span.attributes.values()}


def test_a_hash_is_another_with_another_key(telemetry, ledger):
    providers = {"tracer_provider": telemetry.tracer_provider, "meter_provider": telemetry.meter_provider}
    for signing_key in (KEY, OTHER, KEY):
        spanledger.configure(**providers, span_attributes="hash:user_id", signing_key=signing_key)
        with attribution(user_id="ada"):
            ask()
    first, second, third = (span.attributes["user.id"] for span in telemetry.spans)
    assert (first == third, first == second) == (True, False)
    assert ledger("user_id") == [("ada",)] * 3


@pytest.mark.parametrize("text", [None, "", b""])
def test_where_nothing_was_captured_nobody_is_restored_without_a_word(text, caplog):
    refused = trimmed["refused"]
    with attribution(user_id="ada"), restore(text):
        assert current() == NOBODY
    assert (trimmed["refused"], caplog.records) == (refused, [])
