"""The calls that are measured: each a real SDK over an in-memory transport that answers as the service does."""

import json
import time

QUESTION = "What is a ledger?"
CHAT_USAGE = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 128,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
MESSAGE_USAGE = {
    "input_tokens": 86,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 1920,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 300,
    "service_tier": "standard",
}
GEMINI_USAGE = {
    "promptTokenCount": 2006,
    "candidatesTokenCount": 172,
    "thoughtsTokenCount": 128,
    "cachedContentTokenCount": 1920,
    "totalTokenCount": 2306,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 2006}],
}


def transport(body, content_type):
    """An HTTP client whose every answer is this one."""
    import httpx2

    def answer(_):
        return httpx2.Response(200, content=body, headers={"content-type": content_type})

    return httpx2.Client(transport=httpx2.MockTransport(answer))


def server_sent(parts, *, named=False):
    events = ((f"event: {part['type']}\n" if named else "") + f"data: {json.dumps(part)}\n\n" for part in parts)
    return "".join(events).encode()


def openai_call(*, chunks=0, embeddings=False):
    import openai

    head = {"id": "chatcmpl-1", "created": 1790000000, "model": "gpt-4o-2024-08-06", "service_tier": "default"}
    if embeddings:
        vector = [((index * 37) % 101) / 101 for index in range(1536)]
        data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(100)]
        small = {"prompt_tokens": 700, "total_tokens": 700}
        body = {"object": "list", "model": "text-embedding-3-small", "data": data, "usage": small}
    else:
        message = {"role": "assistant", "content": "word " * 60, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        body = {**head, "object": "chat.completion", "choices": [choice], "usage": CHAT_USAGE}
    encoded = json.dumps(body).encode()
    if chunks:
        head_of = {**head, "object": "chat.completion.chunk"}
        parts = []
        for number in range(chunks):
            delta = {"content": "word "} if number else {"role": "assistant", "content": ""}
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
            parts.append({**head_of, "choices": [choice], "usage": None})
        last = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
        parts += [{**head_of, "choices": [last], "usage": None}, {**head_of, "choices": [], "usage": CHAT_USAGE}]
        encoded = server_sent(parts) + b"data: [DONE]\n\n"
    client = openai.OpenAI(
        api_key="x", http_client=transport(encoded, "text/event-stream" if chunks else "application/json")
    )
    messages = [{"role": "system", "content": "You help."}, {"role": "user", "content": QUESTION}]
    if embeddings:
        return lambda: client.embeddings.create(
            model="text-embedding-3-small", input=["text"] * 100, encoding_format="float"
        )
    options = {"stream": True, "stream_options": {"include_usage": True}} if chunks else {}
    return lambda: client.chat.completions.create(model="gpt-4o", messages=messages, **options)


def anthropic_call(*, events=0):
    import anthropic

    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929"}
    whole = {**message, "content": [{"type": "text", "text": "word " * 60}], "stop_reason": "end_turn"}
    encoded = json.dumps({**whole, "stop_sequence": None, "usage": MESSAGE_USAGE}).encode()
    if events:
        start = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}}
        end = {"stop_reason": "end_turn", "stop_sequence": None}
        encoded = server_sent(
            [
                {"type": "message_start", "message": {**start, "usage": {**MESSAGE_USAGE, "output_tokens": 1}}},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                *[delta] * (events - 5),
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": end, "usage": {"output_tokens": 300}},
                {"type": "message_stop"},
            ],
            named=True,
        )
    client = anthropic.Anthropic(
        api_key="x", http_client=transport(encoded, "text/event-stream" if events else "application/json")
    )
    messages = [{"role": "user", "content": QUESTION}]
    return lambda: client.messages.create(
        model="claude-sonnet-4-5", max_tokens=400, messages=messages, stream=bool(events)
    )


def gemini_call(*, chunks=0):
    from google import genai
    from google.genai import types

    def part(text, reason):
        content = {"parts": [{"text": text}], "role": "model"}
        candidate = {"content": content, "index": 0, **({"finishReason": reason} if reason else {})}
        head = {"modelVersion": "gemini-2.5-flash", "responseId": "abc"}
        return {"candidates": [candidate], "usageMetadata": GEMINI_USAGE, **head}

    encoded = json.dumps(part("word " * 60, "STOP")).encode()
    if chunks:
        encoded = server_sent([part("word ", "") for _ in range(chunks - 1)] + [part("", "STOP")])
    options = types.HttpOptions(httpx_client=transport(encoded, "text/event-stream" if chunks else "application/json"))
    client = genai.Client(api_key="x", http_options=options)
    ask = client.models.generate_content_stream if chunks else client.models.generate_content
    return lambda: ask(model="gemini-2.5-flash", contents=QUESTION)


def read(result, first):
    """Read a stream to its end; the CPU time of its first chunk if that is what is wanted."""
    taken = None
    if hasattr(result, "__next__"):
        if first:
            next(result)
            taken = time.thread_time_ns()
        for _ in result:
            pass
    return taken
