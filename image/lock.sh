#!/bin/sh
# Writes the image's lock files, of the versions that the tests use: lock.sh UV
#
# torch and what only it needs have a lock of their own, for bases that have no torch.
set -eu

uv=$1
cd "$(dirname "$0")/.."

compile() {
  "$uv" pip compile --quiet --constraint constraints.txt --universal --python-version 3.11 \
    --no-annotate --no-header --no-emit-index-url --no-emit-find-links "$@"
}

torch=$(compile --extra eval pyproject.toml |
  sed -n -E 's/^(torch|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==.*/\1/p' |
  grep -v -x -e nvidia-ml-py -e nvidia-modelopt)
set --
for name in $torch; do
  set -- "$@" --no-emit-package "$name"
done

compile --generate-hashes "$@" --extra eval --extra signatures \
  --output-file image/eval.lock pyproject.toml
echo torch | compile --generate-hashes --constraint image/eval.lock --output-file image/torch.lock -
printf 'hatchling\nsetuptools\n' |
  compile --generate-hashes --constraint image/torch.lock --output-file image/build.lock -
