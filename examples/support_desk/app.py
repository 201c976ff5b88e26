"""A small help desk: the kind of program spanledger watches. Its only line about spanledger is `attribution(...)`.

Run it with `spanledger run -- python examples/support_desk/app.py`. It talks to the service that
OPENAI_BASE_URL names, or to OpenAI itself with OPENAI_API_KEY alone.
"""

import asyncio
import os

from openai import AsyncOpenAI, OpenAI

from spanledger import attribution

CHAT = os.environ.get("CHAT_MODEL", "gpt-4o-mini")
REASONING = os.environ.get("REASONING_MODEL", "gpt-5.4")
EMBEDDING = os.environ.get("EMBEDDING_MODEL", "text-embedding-3-small")

QUESTIONS = {
    "ada": "My invoice shows two seats but I only use one. Can you correct it?",
    "grace": "How do I export all my projects before I close the account?",
    "edsger": "The report for October is empty although there was traffic.",
}


def index_articles(client: OpenAI) -> None:
    """Search: embed the articles of the help center."""
    with attribution(feature="search", team="platform"):
        articles = ["How invoices work", "Exporting your data", "Reports and time zones", "Closing an account"]
        client.embeddings.create(model=EMBEDDING, input=articles)


def answer(client: OpenAI, user: str, question: str) -> str:
    """Answers: one whole, one streamed."""
    with attribution(feature="answers", team="support", user_id=user):
        draft = client.chat.completions.create(
            model=CHAT,
            messages=[
                {"role": "system", "content": "You answer customers of a project management tool, briefly."},
                {"role": "user", "content": question},
            ],
        )
        stream = client.chat.completions.create(
            model=CHAT,
            messages=[{"role": "user", "content": f"Make this friendlier: {draft.choices[0].message.content}"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


async def triage(client: AsyncOpenAI) -> None:
    """Triage: all tickets at once, with the Responses API."""
    with attribution(feature="triage", team="support"):
        tickets = (
            client.responses.create(model=REASONING, input=f"Urgent or not? {question}")
            for question in QUESTIONS.values()
        )
        await asyncio.gather(*tickets)


def main() -> None:
    """A morning at the help desk."""
    client = OpenAI()
    index_articles(client)
    for user, question in QUESTIONS.items():
        answer(client, user, question)

    async def all_tickets() -> None:
        async with AsyncOpenAI() as asynchronous:
            await triage(asynchronous)

    asyncio.run(all_tickets())
    print(f"{len(QUESTIONS)} customers answered.")


if __name__ == "__main__":
    main()
