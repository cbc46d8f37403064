#!/usr/bin/env bash
# Everything that `make` needs on a bare machine. Says one sentence where it cannot go on.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .run

stop() { echo "setup: $*" >&2; exit 1; }

python=""
for candidate in python3.13 python3.12 python3.11 python3; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; break; fi
done
[ -n "$python" ] || stop "Python 3.11 or newer is not on PATH: install it, on Debian with: apt-get install python3 python3-venv"

if ! command -v "$UV" >/dev/null 2>&1; then
  echo "setup: installing uv into .run/uv"
  "$python" -m venv .run/uv || stop "$python cannot make a virtual environment: on Debian, apt-get install python3-venv"
  .run/uv/bin/python -m pip install --quiet 'uv>=0.8,<1' || stop "uv cannot be installed with pip: see the lines above"
  UV=.run/uv/bin/uv
fi
"$UV" sync --quiet --frozen --python "$("$python" -c 'import sys; print(sys.executable)')" || stop "the locked dependencies cannot be installed: see the lines above"
"$UV" run --frozen --no-sync python -m hack.cluster build || exit 1
"$UV" run --frozen --no-sync python -m hack.postgres || exit 1
"$UV" run --frozen --no-sync python -m hack.pgbouncer || exit 1
