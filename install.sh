#!/usr/bin/env bash
# Install into .venv, at the versions of constraints.txt:  ./install.sh ARGUMENTS OF `pip install`
#
# By uv, which takes a fraction of pip's time: the one on PATH, else its wheel, which Flower needs anyway. INSTALLER=pip has
# pip do it. uv reads none of pip's settings (mirrors, further indexes, folders of wheels), so they are handed to it; what is
# set for uv itself (UV_DEFAULT_INDEX, UV_TORCH_BACKEND=cpu, …) stays.
set -euo pipefail
cd "$(dirname "$0")"
python=$PWD/.venv/bin/python
export PIP_CONSTRAINT=${PIP_CONSTRAINT:-$PWD/constraints.txt}

uv=$(command -v uv || echo "$PWD/.venv/bin/uv")
if [ "${INSTALLER:-uv}" = pip ] || ! { [ -x "$uv" ] || "$python" -m pip install uv; }; then
  exec "$python" -m pip install "$@"
fi

# The value of one of pip's settings, from the environment or else its files.
setting() {
  "$python" -m pip config list | sed -n "s/^[^=]*\.$1='\(.*\)'$/\1/p" | head -n 1 | sed 's/\\n/ /g; s/^ *//'
}
# Set a variable of uv's, unless the user did or there is nothing to set.
hand() {
  if [ -n "$2" ] && [ -z "${!1:-}" ]; then export "$1=$2"; fi
}
hand UV_DEFAULT_INDEX "$(setting index-url)"
hand UV_FIND_LINKS "$(setting find-links | tr -s ' ' ',')"
further=$(setting extra-index-url)
if [ -n "$further" ]; then
  hand UV_INDEX "$further"
  hand UV_INDEX_STRATEGY unsafe-best-match # as pip has it: the best version wins, whichever index it is on
fi
exec "$uv" pip install --python "$python" --constraints "$PIP_CONSTRAINT" --build-constraints "$PIP_CONSTRAINT" "$@"
