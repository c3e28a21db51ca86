#!/usr/bin/env bash
# Resolves backend/pyproject.toml into requirements.txt and requirements-dev.txt: every version pinned, every file by its
# hash, no address. Run through `make lock`.
set -euo pipefail
cd "$(dirname "$0")/../backend"
compile() {
  uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
    --no-emit-index-url --no-emit-find-links "$@"
}
compile --extra embedded --group build --output-file requirements.txt
compile --extra embedded --group build --group dev --constraint requirements.txt --output-file requirements-dev.txt
