#!/usr/bin/env bash
# Makes the secrets that compose.yaml names, each in a file of secrets/, and keeps those that are there.
set -euo pipefail
cd "$(dirname "$0")/.."
# Only you may enter the folder. The files are open to be read: Compose mounts each alone, for a user of the container.
mkdir -p secrets
chmod 0700 secrets
umask 0022

make() { # NAME WORDS...: the file, with what the words print, whole or not at all
  [[ -s secrets/$1 ]] || { "${@:2}" > secrets/.new && mv secrets/.new "secrets/$1"; }
}
random() { head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; } # BYTES, as twice as many digits

make secret_key random 32
make postgres_password random 32
make database_url printf 'postgresql://nanobanana:%s@postgres:5432/nanobanana\n' "$(cat secrets/postgres_password)"
make grafana_password random 32
make s3_access_key_id random 10
make s3_secret_access_key random 20
