"""A program that calls models and plain servers in a scope full of canaries: run by test_wire.py."""

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import anthropic
import httpx
import httpx2
import openai
import requests
import urllib3
from google import genai
from opentelemetry import baggage, context, trace

import spanledger

ROOT, CANARIES = sys.argv[1], dict(each.split("=", 1) for each in sys.argv[2:])
QUESTION = [{"role": "user", "content": "Hello"}]
ASKED = {"model": "gpt-4o", "messages": QUESTION}
MESSAGE = {"model": "claude-sonnet-4-5", "max_tokens": 50, "messages": QUESTION}
CONTENT = {"model": "gemini-2.5-flash", "contents": "Hello"}
OPENAI = {"base_url": f"{ROOT}/v1", "api_key": "x", "max_retries": 0}
ANTHROPIC = {"base_url": ROOT, "api_key": "x", "max_retries": 0}


def ask_openai():
    with openai.OpenAI(**OPENAI) as client:
        client.chat.completions.create(**ASKED)


def sync_calls():
    with openai.OpenAI(**OPENAI) as client:
        client.chat.completions.create(**ASKED)
        list(client.chat.completions.create(**ASKED, stream=True))
    with anthropic.Anthropic(**ANTHROPIC) as client:
        client.messages.create(**MESSAGE)
        list(client.messages.create(**MESSAGE, stream=True))
    client = genai.Client(api_key="x", http_options={"base_url": ROOT})
    client.models.generate_content(**CONTENT)
    list(client.models.generate_content_stream(**CONTENT))


async def async_calls():
    async with openai.AsyncOpenAI(**OPENAI) as client:
        await client.chat.completions.create(**ASKED)
        async for _ in await client.chat.completions.create(**ASKED, stream=True):
            pass
    async with anthropic.AsyncAnthropic(**ANTHROPIC) as client:
        await client.messages.create(**MESSAGE)
        async for _ in await client.messages.create(**MESSAGE, stream=True):
            pass
    client = genai.Client(api_key="x", http_options={"base_url": ROOT}).aio
    await client.models.generate_content(**CONTENT)
    async for _ in await client.models.generate_content_stream(**CONTENT):
        pass


async def plain_async(library):
    async with library.AsyncClient() as client:
        await client.post(f"{ROOT}/plain/{library.__name__}.async", json={"a": 1})


def plain_calls():
    for library in (httpx, httpx2):
        with library.Client() as client:
            client.post(f"{ROOT}/plain/{library.__name__}", json={"a": 1})
        asyncio.run(plain_async(library))
    requests.post(f"{ROOT}/plain/requests", json={"a": 1}, timeout=10)
    urllib3.PoolManager().request("POST", f"{ROOT}/plain/urllib3", body=b"a")


def main():
    context.attach(baggage.set_baggage("shop", "1"))  # the application's own, to see that baggage does travel
    with trace.get_tracer("app").start_as_current_span("request"), spanledger.attribution(**CANARIES):
        sync_calls()
        asyncio.run(async_calls())
        with ThreadPoolExecutor(1) as pool:
            pool.submit(ask_openai).result()
        thread = threading.Thread(target=ask_openai)
        thread.start()
        thread.join()
        plain_calls()


main()
