#!/usr/bin/env bash
# Resolves backend/pyproject.toml into requirements.txt and requirements-dev.txt, the clients of the tests into
# tests/clients/locked, and Patroni into tests/ha/locked: every version pinned, every file by its hash, no address. Run
# through `make lock`.
set -euo pipefail
cd "$(dirname "$0")/../backend"
compile() {
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
    --no-emit-index-url --no-emit-find-links "$@"
}
compile pyproject.toml --extra embedded --group build --output-file requirements.txt
compile pyproject.toml --extra embedded --extra otel --group build --group dev --constraint requirements.txt --output-file requirements-dev.txt
for clients in python python-previous nodejs; do
  compile "tests/clients/locked/$clients.in" --output-file "tests/clients/locked/$clients.txt"
done
compile tests/ha/locked/patroni.in --output-file tests/ha/locked/patroni.txt
python -m tests.clients.environments nodejs
PATH="$PWD/../.clients/nodejs/bin:$PATH"
for clients in node node-previous; do
  cd "tests/clients/locked/$clients"
  npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved --no-audit --no-fund
  node -e 'const lock = require("./package-lock.json"); Object.values(lock.packages).forEach((each) => delete each.funding);
    fs.writeFileSync("package-lock.json", JSON.stringify(lock, null, 2) + "\n")'
  cd -
done
