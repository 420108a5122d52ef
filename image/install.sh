#!/bin/sh
# Installs quant-gate, and what it evaluates with, into an image: install.sh UID LOCK [TORCH_LOCK]
#
# Without a lock for torch, the base's own is used and must be the same afterwards.
set -eu

uid=$1
lock=$2
torch_lock=${3:-}
here=$(dirname "$0")
home=/opt/quant-gate

torch() {
  "$1" -c 'from importlib.metadata import distribution as d; t = d("torch")
print(t.version, t.locate_file("torch"))'
}

python3 -m venv --system-site-packages "$home"
if [ -n "$torch_lock" ]; then
  "$home/bin/pip" install --require-hashes -r "$here/$torch_lock"
fi
before=$(torch "$home/bin/python")
# Two packages come as source: what builds them is locked as well, and nothing is resolved.
"$home/bin/pip" install --no-deps --require-hashes -r "$here/build.lock"
"$home/bin/pip" install --no-deps --no-build-isolation --require-hashes -r "$here/$lock"
"$home/bin/pip" install --no-deps --no-index "$here"/../*.whl
after=$(torch "$home/bin/python")
if [ "$before" != "$after" ]; then
  echo "torch was $before and is $after" >&2
  exit 1
fi

useradd --uid "$uid" --no-create-home --home-dir /cache --shell /usr/sbin/nologin gate
# Of whatever user the image runs as.
mkdir -m 1777 /cache
