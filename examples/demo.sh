#!/usr/bin/env bash
# The main job, end to end: a provider in its own process, an application that knows nothing of it, and the report.
# With OPENAI_API_KEY set and no OPENAI_BASE_URL the application talks to OpenAI itself.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-.venv/bin}
export SPANLEDGER_STATE_DIR=${SPANLEDGER_STATE_DIR:-$PWD/.demo}
rm -rf .demo

if [ -z "${OPENAI_API_KEY:-}" ] && [ -z "${OPENAI_BASE_URL:-}" ]; then
  coproc PROVIDER { exec "$BIN/python" -m spanledger.testing.loopback; }
  trap 'kill "$PROVIDER_PID" 2>/dev/null || true' EXIT
  read -r OPENAI_BASE_URL <&"${PROVIDER[0]}"
  export OPENAI_BASE_URL OPENAI_API_KEY=unused
  echo "A provider of our own answers at $OPENAI_BASE_URL; nothing leaves this machine and nothing is charged."
fi

echo "\$ opentelemetry-instrument python examples/support_desk/app.py"
OTEL_SERVICE_NAME=help-desk "$BIN/opentelemetry-instrument" "$BIN/python" examples/support_desk/app.py
for keys in feature,team user_id provider,model,operation; do
  echo
  echo "\$ spanledger report --by $keys"
  "$BIN/spanledger" report --by "$keys"
done
