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
# On vLLM's image: of what vLLM needs, too, the versions that it takes, for the oldest Python that it
# may have; on newer ones it wants a setuptools below 81. Some indexes lack the newest certifi that it
# asks for.
version=$(sed -n 's/^ARG VLLM_IMAGE=.*:v//p' Dockerfile)
resolved=$(mktemp)
printf 'certifi\n' >"$resolved.override"
printf 'vllm==%s\nsetuptools<81\n' "$version" | "$uv" pip compile --quiet --override "$resolved.override" \
  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate --no-header \
  --no-emit-index-url --no-emit-find-links --extra eval --extra signatures \
  --output-file "$resolved" pyproject.toml -
"$uv" pip compile --quiet --constraint "$resolved" --python-version 3.11 \
  --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --no-emit-index-url \
  --no-emit-find-links --generate-hashes "$@" --extra eval --extra signatures \
  --output-file image/vllm.lock pyproject.toml
rm "$resolved" "$resolved.override"

echo torch | compile --generate-hashes --constraint image/eval.lock --output-file image/torch.lock -
printf 'hatchling\nsetuptools\n' |
  compile --generate-hashes --constraint image/torch.lock --output-file image/build.lock -
