"""`python -m spanledger.testing.loopback`: the provider as a process."""

from __future__ import annotations

import argparse
import contextlib
import sys

from spanledger.testing.loopback.server import Loopback


def main() -> None:
    """Serve until interrupted; the first line printed is the base URL for an OpenAI client."""
    parser = argparse.ArgumentParser(
        prog="python -m spanledger.testing.loopback",
        description="A provider on this machine that speaks the wire formats of the large providers.",
    )
    parser.add_argument("--port", type=int, default=0)
    server = Loopback(parser.parse_args().port)
    sys.stdout.write(server.base_url + "\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        server.serve()


if __name__ == "__main__":
    main()
