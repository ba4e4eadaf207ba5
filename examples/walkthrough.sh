#!/bin/sh
# The whole way with curl: register, verify, sign in, refresh, a replayed token, reset, sign out.
#
#   WATCHWORD_MAIL=file:/tmp/mail scripts/serve --port 8123
#   examples/walkthrough.sh http://127.0.0.1:8123 /tmp/mail
#
# Prints a line a step; stops with 1 at the first answer that is not the expected one.
set -eu

url=${1:-${WALKTHROUGH_URL:-http://127.0.0.1:8000}}
mail=${2:-${WALKTHROUGH_MAIL:?"usage: $0 URL MAIL_DIRECTORY"}}
email=ada.$$.$(date +%s)@example.org
password='correct horse battery staple'
new_password='a dozen brown foxes jumping'

body=$(mktemp)
trap 'rm -f "$body"' EXIT
trap 'exit 1' HUP INT TERM

fail() {
  printf 'FAILED: %s\n' "$1" >&2
  cat "$body" >&2
  exit 1
}

# call METHOD PATH [curl arguments...]: the answer is in $body, its status in $status
call() {
  method=$1
  path=$2
  shift 2
  status=$(curl --silent --show-error --max-time 30 --output "$body" --write-out '%{http_code}' \
    --request "$method" "$@" "$url$path") || fail "$method $path: no answer from $url"
}

# post PATH JSON [curl arguments...]
post() {
  path=$1
  json=$2
  shift 2
  call POST "$path" --header 'Content-Type: application/json' --data "$json" "$@"
}

# step WHAT STATUSES [CODE]: check the last answer and print a line
step() {
  case " $2 " in
    *" $status "*) ;;
    *) fail "$1: $status, not $2" ;;
  esac
  if [ -n "${3:-}" ] && [ "$(field code)" != "$3" ]; then
    fail "$1: not $3"
  fi
  printf '%-42s %s%s\n' "$1" "$status" "${3:+ $3}"
}

# field NAME: the value of a text field of the answer
field() {
  sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$body"
}

bearer() {
  printf 'Authorization: Bearer %s' "$1"
}

# refused ACCESS_TOKEN WHAT: check that it is, now; where another of several workers answers, as soon
# as that one has heard of it, which takes 2 s at most
refused() {
  tries=0
  call GET /auth/me --header "$(bearer "$1")"
  while [ "$status" = 200 ] && [ "$tries" -lt 6 ]; do
    tries=$((tries + 1))
    sleep 0.5
    call GET /auth/me --header "$(bearer "$1")"
  done
  step "$2" 401
}

# mailed PREFIX: wait for a mail to us with such a token, and print the token. Mail may be
# quoted-printable: there a line that ends with = goes on in the next one.
mailed() {
  tries=0
  while [ "$tries" -lt 60 ]; do
    for file in "$mail"/*.eml; do
      if [ -f "$file" ] && grep -qi "^To:.*$email" "$file"; then
        token=$(tr -d '\r' <"$file" | sed -e ':a' -e '/=$/{' -e 'N' -e 's/=\n//' -e 'ba' -e '}' |
          sed -n "s/.*\($1_[A-Za-z0-9_-]\{43\}\).*/\1/p" | sed -n 1p)
        if [ -n "$token" ]; then
          printf '%s' "$token"
          return
        fi
      fi
    done
    tries=$((tries + 1))
    sleep 0.5
  done
  return 1
}

post /auth/register "{\"email\": \"$email\", \"password\": \"$password\"}"
step 'register' '201 202'

token=$(mailed wwv) || fail 'no mail with a token to verify came'
post /auth/verify-email "{\"token\": \"$token\", \"password\": \"$password\"}"
step 'verify the address with the mail' 204
post /auth/verify-email "{\"token\": \"$token\", \"password\": \"$password\"}"
step 'the same mail again' 401

post /auth/login "{\"email\": \"$email\", \"password\": \"not $password\"}"
step 'sign in with a wrong password' 401 invalid_credentials
post /auth/login "{\"email\": \"$email\", \"password\": \"$password\"}"
step 'sign in' 200
access=$(field access_token)
refresh=$(field refresh_token)
first_refresh=$refresh

call GET /auth/me --header "$(bearer "$access")"
step 'who am I' 200
[ "$(field email)" = "$email" ] || fail 'somebody else'

for turn in first second; do
  post /auth/refresh "{\"refresh_token\": \"$refresh\"}"
  step "$turn refresh" 200
  access=$(field access_token)
  refresh=$(field refresh_token)
done
call GET /auth/me --header "$(bearer "$access")"
step 'who am I, with the newest token' 200

post /auth/refresh "{\"refresh_token\": \"$first_refresh\"}"
step 'the first refresh token, replayed' 401 refresh_token_reused
refused "$access" 'the session is over: newest access token'
post /auth/refresh "{\"refresh_token\": \"$refresh\"}"
step 'the session is over: newest refresh token' 401

post /auth/password-reset-request "{\"email\": \"$email\"}"
step 'ask for another password' 202
token=$(mailed wwp) || fail 'no mail with a token to reset came'
post /auth/password-reset "{\"token\": \"$token\", \"new_password\": \"$new_password\"}"
step 'reset the password with the mail' 204
post /auth/login "{\"email\": \"$email\", \"password\": \"$password\"}"
step 'sign in with the old password' 401 invalid_credentials
post /auth/login "{\"email\": \"$email\", \"password\": \"$new_password\"}"
step 'sign in with the new one' 200
access=$(field access_token)

call POST /auth/logout --header "$(bearer "$access")"
step 'sign out' 204
refused "$access" 'the access token is refused'

echo 'The whole way.'
