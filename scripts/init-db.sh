#!/usr/bin/env bash
# Creates the database that DATABASE_URL names on a PostgreSQL server that runs already, and migrates it.
#   scripts/init-db.sh                                         # postgresql+asyncpg://localhost/nanobanana
#   DATABASE_URL=postgresql+asyncpg://me:pw@db:5432/nanobanana scripts/init-db.sh
# Safe to run again: a database that is there is only migrated, and needs no right to create databases. Not needed for
# `make run`, which starts a PostgreSQL of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
export DATABASE_URL="${DATABASE_URL:-postgresql+asyncpg://localhost/nanobanana}"

make --silent .venv/run.installed
.venv/bin/python -m app.cli.create_database
.venv/bin/nanobanana migrate
