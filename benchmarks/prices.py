"""What pricing a call costs: medians over many batches, in microseconds, beside genai-prices itself.

python benchmarks/prices.py
"""

import statistics
import time
from datetime import UTC, datetime
from decimal import Decimal

from genai_prices import Usage as TheirUsage
from genai_prices import calc_price

from spanledger.model import Usage
from spanledger.pricing.book import PriceBook

NOW = datetime.now(UTC)
USAGE = Usage(
    input_tokens=2006, output_tokens=300, cache_read_tokens=1920, reasoning_tokens=128, input_audio_tokens=0,
    output_audio_tokens=0, usage_status="reported",
)  # fmt: skip
THEIRS = TheirUsage(input_tokens=2006, output_tokens=300, cache_read_tokens=1920)
CONTEXT = (("service_tier", "default"),)


def known(book):
    return book.price(
        USAGE,
        provider="openai",
        models=("gpt-4o-2024-08-06", "gpt-4o"),
        at=NOW,
        context=CONTEXT,
        server="api.openai.com",
    )


def unknown(book):
    return book.price(USAGE, provider="openai", models=("house-model", "house-model"), at=NOW, context=CONTEXT)


def compiled(book):
    book._cache.clear()  # a model that was not asked for yet
    return known(book)


def peer(_):
    return calc_price(THEIRS, "gpt-4o", provider_id="openai", genai_request_timestamp=NOW)


def median(work, book, calls, batches=41):
    times = []
    for _ in range(batches):
        start = time.perf_counter()
        for _ in range(calls):
            work(book)
        times.append((time.perf_counter() - start) / calls * 1e6)
    return statistics.median(times)


def main():
    start = time.perf_counter()
    book = PriceBook()
    print(f"price book              {(time.perf_counter() - start) * 1e3:8.0f} ms, its data loaded already")
    assert known(book).cost_pusd == int(Decimal("0.005615") * 10**12)
    print(f"known model             {median(known, book, 500):8.2f} µs (target 6)")
    print(f"known to be unknown     {median(unknown, book, 500):8.2f} µs (target 10)")
    print(f"found and compiled      {median(compiled, book, 5):8.0f} µs (target 1000)")
    print(f"genai-prices calc_price {median(peer, book, 50):8.1f} µs")


if __name__ == "__main__":
    main()
