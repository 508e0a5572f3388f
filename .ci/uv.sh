# Sourced by the scripts beside it: finds uv, or installs it, and runs commands in the project's environment.
# A machine that has Python 3.11 or later and nothing else is enough.
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$repo"
export CI="${CI:-true}"

python=$(command -v python3 || command -v python)
if ! command -v uv >/dev/null && ! "$python" -m uv --version >/dev/null 2>&1; then
  # Where the system's Python may not be changed, uv gets an environment of its own.
  if ! "$python" -m pip install -q uv; then
    "$python" -m venv "$scratch/uv"
    python="$scratch/uv/bin/python"
    "$python" -m pip install -q uv
  fi
fi

uv() {
  if [ -n "$(type -P uv)" ]; then
    command uv "$@"
  else
    "$python" -m uv "$@"
  fi
}

uv_run() {
  uv run --project "$repo" "$@"
}
