#!/bin/sh
# Makes what compose.yaml hands to its services, one file a secret, in ./secrets beside this file.
# What is there already is left alone. MAIL is the URL of your mail server.
#   MAIL=smtp://user:password@mail.example.com:587 sh deploy/secrets.sh
# WATCHWORD says how the command is run where it is not in the image.
set -eu
folder=${SECRETS:-$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)/secrets}

# The folder keeps others of this machine out; in a container its files belong to nobody there,
# so each must be readable to the one user that it runs as.
mkdir -p "$folder"
chmod 700 "$folder"

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

# keep NAME: what comes in, unless there is something already
keep() {
  text=$(cat)
  [ -n "$text" ] || { echo "$1: there is nothing to keep" >&2; exit 1; }
  [ -e "$folder/$1" ] || printf '%s\n' "$text" >"$folder/$1"
  chmod 444 "$folder/$1"
}

if [ ! -e "$folder/mail" ] && [ -z "${MAIL:-}" ]; then
  echo "set MAIL to the URL of your mail server: smtp://user:password@mail.example.com:587" >&2
  exit 2
fi
[ -e "$folder/mail" ] || printf '%s' "$MAIL" | keep mail
[ -e "$folder/secret" ] || ${WATCHWORD:-docker run --rm watchword} secret generate | keep secret
random | keep probe_token
random | keep postgres_password
echo "postgresql://watchword:$(cat "$folder/postgres_password")@postgres/watchword" | keep database
echo "redis://redis:6379/0" | keep sessions__store
echo "The secrets are in $folder. Keep a copy of secret elsewhere: without it what is sealed is lost."
