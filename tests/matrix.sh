#!/usr/bin/env bash
# The tests that drive the SDKs, in every cell of Python × SDKs that we promise; behind `make matrix`.
# Arguments are handed to pytest instead of the usual paths. MATRIX_HOME says where the environments are made.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
HOME_OF_CELLS=${MATRIX_HOME:-.venv-matrix}
UV=${UV:-.venv/bin/uv}
if (($# == 0)); then set -- tests/instrumentation tests/contracts tests/trips; fi

# Python, then what is pinned: the oldest we promise, the last of each major, the newest.
CELLS=(
  # openai took httpx 0.28 from 1.55.3 on
  "3.11 openai==1.26.0 httpx<0.28 anthropic==0.43.0 google-genai==1.0.0 boto3==1.34.131 aiobotocore==2.13.1"
  # here `beta.chat.completions.parse` calls `create`
  "3.11 openai==1.40.0 httpx<0.28 anthropic==0.73.0 google-genai==1.10.0 boto3 aiobotocore<3"
  "3.11 openai==1.109.1 anthropic==0.125.0 google-genai==1.75.0 boto3 aiobotocore"
  "3.12 openai==2.54.0 anthropic==1.14.0 google-genai==2.34.0 boto3 aiobotocore"
  "3.13 openai>=3,<4 anthropic>=2,<3 google-genai>=3,<4 boto3 aiobotocore>=3"
)
NEEDS=(pytest pytest-timeout hypothesis anyio uvicorn pyyaml)

# A Python that really runs: pyenv's shims are there for versions that are switched off, too.
python_of() {
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
    if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  return 1
}

make_venv() { # python, where
  if [[ -x $UV ]]; then "$UV" venv -q --clear --python "$1" "$2"; else "$1" -m venv --clear "$2"; fi
}

install() { # where, what…
  local where=$1
  shift
  if [[ -x $UV ]]; then
    "$UV" pip install -q --python "$where/bin/python" "$@"
  else
    "$where/bin/python" -m pip install -q --disable-pip-version-check "$@"
  fi
}

# `&&` throughout: inside an `if`, bash does not stop at a failing command.
run_cell() { # where, python, pins…; pytest's arguments are in PYTEST_ARGUMENTS
  local where=$1 python=$2
  shift 2
  make_venv "$python" "$where" &&
    install "$where" -e . "${NEEDS[@]}" "$@" &&
    "$where/bin/python" -m pytest -q -p no:cacheprovider "${PYTEST_ARGUMENTS[@]}"
}

PYTEST_ARGUMENTS=("$@")
summary=()
failed=0
ran=0
mkdir -p "$HOME_OF_CELLS"
for cell in "${CELLS[@]}"; do
  read -r version pins <<<"$cell"
  read -ra pins <<<"$pins"
  name=${pins[0]%%,*}
  name="py$version-${name//[^A-Za-z0-9.]/}"
  where=$HOME_OF_CELLS/$name
  echo "=== Python $version, ${pins[*]}"
  if ! python=$(python_of "$version"); then
    echo "Python $version is not on this machine: left out"
    summary+=("$version|${pins[0]}|-|left out: no Python $version|")
    continue
  fi
  ran=$((ran + 1))
  log=$where.log
  if run_cell "$where" "$python" "${pins[@]}" 2>&1 | tee "$log"; then
    state=passed
  else
    state=FAILED
    failed=$((failed + 1))
  fi
  installed=$("$where/bin/python" -c 'from importlib.metadata import version; print(version("openai"))' 2>/dev/null || echo -)
  counts=$(grep -E '^[0-9]+ [a-z]+.* in [0-9.]+s' "$log" | tail -n 1 || true)
  summary+=("$version|${pins[0]}|$installed|$state|$counts")
done

echo
printf '%-8s %-18s %-10s %-26s %s\n' Python asked openai result tests
for line in "${summary[@]}"; do
  IFS='|' read -r version asked installed state counts <<<"$line"
  printf '%-8s %-18s %-10s %-26s %s\n' "$version" "$asked" "$installed" "$state" "$counts"
done
if ((ran == 0)); then
  echo "no cell could run"
  exit 1
fi
exit $((failed > 0))
