#!/usr/bin/env bash
# Starts `gate action` in an environment of its own; whatever else the action does, Python does.
#
# The environment is kept between jobs, outside the workspace, under a name made of the locked
# packages and the Python that runs them. It is built beside that place and renamed into it, so
# that no job ever sees half of one. The gate itself is not installed: it runs from this checkout.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
lock=$root/requirements.lock
python=${QUANT_GATE_INPUT_PYTHON:-python3}
wheels=${QUANT_GATE_INPUT_WHEELS:-}

# Until there is a verdict; of an output's values the last one is taken.
if [ -n "${GITHUB_OUTPUT:-}" ]; then echo 'status=error' >>"$GITHUB_OUTPUT"; fi

give_up() {
  local code=$1 message=${2//%/%25}
  message=${message//$'\r'/%0D}
  printf '::error title=quant-gate::%s\n' "${message//$'\n'/%0A}"
  if [ "$code" = 3 ] && [ "${QUANT_GATE_INPUT_ON_INFRA_ERROR:-}" = warn ]; then exit 0; fi
  exit "$code"
}

find_python() {
  command -v git >/dev/null ||
    give_up 3 'git is not installed on this runner. Run: sudo apt-get install git'
  command -v "$python" >/dev/null ||
    give_up 3 "Python is not installed as $python. Run: sudo apt-get install python3 python3-venv"
  # -I: neither the workspace nor the caller's variables say what is imported.
  "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    give_up 3 "$python is $("$python" --version 2>&1); quant-gate needs Python 3.11 or newer. \
Install one and name it in the input python."
  command -v uv >/dev/null || "$python" -I -c 'import ensurepip, venv' 2>/dev/null ||
    give_up 3 "$python cannot make environments. Run: sudo apt-get install \
$("$python" -I -c 'import sys; print("python{}.{}-venv".format(*sys.version_info))')"
}

# What the environment depends on: the packages, and the interpreter with its C library.
key() {
  "$python" -I - "$lock" <<'PYTHON'
import hashlib, pathlib, platform, sys, sysconfig
parts = [sys.version, sys.base_prefix, sysconfig.get_platform(), *platform.libc_ver()]
lock = pathlib.Path(sys.argv[1]).read_bytes()
print(hashlib.sha256(lock + "\0".join(parts).encode()).hexdigest()[:16])
PYTHON
}

# The first place that can be written to: kept between jobs if possible.
find_directory() {
  local candidate
  for candidate in "${RUNNER_TOOL_CACHE:-${HOME:+$HOME/.cache}}" "${RUNNER_TEMP:-}"; do
    directory=$candidate/quant-gate
    if [ -n "$candidate" ] && mkdir -p "$directory" 2>/dev/null && [ -w "$directory" ]; then
      return
    fi
  done
  give_up 3 'RUNNER_TOOL_CACHE, HOME and RUNNER_TEMP name no directory that can be written to.'
}

complete() {
  [ -f "$1/.complete" ] && [ -x "$1/bin/python" ]
}

install_into() {
  local source=()
  if [ -n "$wheels" ]; then source=(--no-index --find-links "$wheels"); fi
  if command -v uv >/dev/null; then
    uv venv --quiet --python "$(command -v "$python")" "$1" &&
      uv pip install --quiet --python "$1/bin/python" --require-hashes --no-build \
        "${source[@]}" --requirement "$lock"
  else
    "$python" -I -m venv "$1" &&
      "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes --only-binary :all: "${source[@]}" --requirement "$lock"
  fi
}

build() {
  echo "quant-gate: making its Python environment, once: $venv"
  made=$(mktemp -d "$venv.XXXXXXXX")
  trap 'rm -rf -- "$made"' EXIT
  # In the background and a group of its own, so that a cancelled job ends at once.
  set -m
  install_into "$made" &
  trap 'kill -TERM -- "-$!"; give_up 130 "Cancelled while the environment was made."' INT TERM
  wait "$!" || give_up 3 "The packages of quant-gate could not be installed; pip's or uv's message \
is above. Without a package index, name a directory of wheels in the input wheels."
  set +m
  chmod 755 "$made"
  touch "$made/.complete"
  rm -rf -- "$venv"
  mv -T -- "$made" "$venv"
  trap - EXIT INT TERM
  # Of earlier versions of the action, those that no job has used for a month.
  find "$directory" -mindepth 2 -maxdepth 2 -name .complete -mtime +30 -printf '%h\0' |
    xargs --null --no-run-if-empty rm -rf --
}

find_python
find_directory
venv=$directory/$(key)
if ! complete "$venv"; then
  # Jobs that start together wait for the first; without flock each builds, and the last one stays.
  exec {held}>"$venv.lock"
  if command -v flock >/dev/null; then flock --timeout 600 "$held" || :; fi
  complete "$venv" || build
  exec {held}>&-
fi

touch "$venv/.complete" || :
# -P: the workspace holds what a pull request brings, and is no place to import from.
export PYTHONPATH=$root
exec "$venv/bin/python" -P -m gate action
