#!/usr/bin/env bash
# The whole flow with curl, against a server that runs already: register, log in, create a key, generate, look, revoke, log out.
#   scripts/manual-test.sh [URL]          # default http://127.0.0.1:8000
# Prints each step and ends with the first one that does not answer as it should.
set -euo pipefail
URL="${1:-http://127.0.0.1:8000}"
WORK="$(mktemp -d)"
trap 'rm -rf "$WORK"' EXIT
SIZE=640x360
EMAIL="manual-$(od -An -N6 -tx1 /dev/urandom | tr -d ' \n')@example.com"
ACCOUNT="{\"email\":\"$EMAIL\",\"password\":\"correct horse battery staple\"}"

fail() { echo "FAILED: $*" >&2; exit 1; }

# call NAME EXPECTED_STATUS curl-arguments...: the answer's body is in $WORK/body, its headers in $WORK/headers
call() {
  local name="$1" expected="$2" status
  shift 2
  status="$(curl -sS -o "$WORK/body" -D "$WORK/headers" -w '%{http_code}' "$@")" || fail "$name: no answer from $URL"
  [ "$status" = "$expected" ] || fail "$name: expected $expected, got $status: $(cat "$WORK/body")"
  echo "ok $expected  $name"
}
post() { local name="$1" expected="$2" path="$3" body="$4"; shift 4
  call "$name" "$expected" -X POST "$URL$path" -H 'Content-Type: application/json' -d "$body" "$@"; }
field() { sed -n "s/.*\"$1\":\"\\([^\"]*\\)\".*/\\1/p" "$WORK/body"; }
has() { grep -qiE "$1" "$WORK/headers" || fail "$2"; }

call "the process lives" 200 "$URL/health"
call "it can serve" 200 "$URL/ready"

post "register" 201 /v1/auth/register "$ACCOUNT"
post "register the same address again" 409 /v1/auth/register "$ACCOUNT"
post "log in with a wrong password" 401 /v1/auth/login "{\"email\":\"$EMAIL\",\"password\":\"wrong wrong\"}"
post "log in" 200 /v1/auth/login "$ACCOUNT"
TOKEN="Authorization: Bearer $(field access_token)"
call "who am I" 200 "$URL/v1/auth/me" -H "$TOKEN"
[ "$(field email)" = "$EMAIL" ] || fail "the account is not the one that registered"

post "create a key" 201 /v1/keys '{"name":"manual test"}' -H "$TOKEN"
RAW="$(field key)"; KEY_ID="$(field id)"; KEY="Authorization: Bearer $RAW"
[[ "$RAW" =~ ^nb_live_[0-9a-f]{32}$ ]] || fail "the key is not of the promised form"
call "list the keys" 200 "$URL/v1/keys" -H "$TOKEN"
grep -q "$KEY_ID" "$WORK/body" || fail "the new key is not in the list"
! grep -q "$RAW" "$WORK/body" || fail "the list shows the raw key"

post "generate without a key" 401 /v1/generate '{"prompt":"A cute banana"}'
post "generate a size that cannot be drawn" 422 /v1/generate '{"prompt":"A cute banana","size":"1x1"}' -H "$KEY"
post "generate" 200 /v1/generate "{\"prompt\":\"A cute banana\",\"size\":\"$SIZE\"}" -H "$KEY"
has '^ratelimit: ' "the answer does not tell the limit"
IMAGE="$(field url)"

call "look at the image" 200 "$URL/v1/images/${IMAGE##*/}"
has '^content-type: image/png' "the image is not a PNG"
cp "$WORK/body" "$WORK/image.png"
DIMENSIONS="$(od -An -j16 -N8 -tu1 "$WORK/image.png" | awk '{print $3*256+$4 "x" $7*256+$8}')"
[ "$DIMENSIONS" = "$SIZE" ] || fail "the image is $DIMENSIONS, not $SIZE"
call "look again" 200 "$URL/v1/images/${IMAGE##*/}"
cmp -s "$WORK/body" "$WORK/image.png" || fail "the image changed between two looks"

call "revoke the key" 204 -X DELETE "$URL/v1/keys/$KEY_ID" -H "$TOKEN"
post "generate with the revoked key" 401 /v1/generate '{"prompt":"A cute banana"}' -H "$KEY"

post "change the password with a wrong one" 422 /v1/auth/password \
  '{"current_password":"wrong wrong","new_password":"a banana is a berry"}' -H "$TOKEN"
post "change the password" 200 /v1/auth/password \
  '{"current_password":"correct horse battery staple","new_password":"a banana is a berry"}' -H "$TOKEN"
NEW_TOKEN="Authorization: Bearer $(field access_token)"
call "the earlier token" 401 "$URL/v1/auth/me" -H "$TOKEN"
call "log out everywhere" 204 -X POST "$URL/v1/auth/logout-all" -H "$NEW_TOKEN"
call "the later token" 401 "$URL/v1/auth/me" -H "$NEW_TOKEN"

echo "All is well: $IMAGE was $DIMENSIONS pixels."
