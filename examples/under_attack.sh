#!/bin/sh
# Start a server with its defaults, attack it, and see what gets through.
#
#   examples/under_attack.sh [DIRECTORY]
#
# Prints what was tried, how much of it the server even looked at, and what got through; then what
# its audit says. Stops with 1 if anything did. The server, its database and its log are in
# DIRECTORY, or in a folder that is removed afterwards. Takes half a minute, on this machine alone.
set -eu
. "$(dirname -- "$0")/../scripts/_venv"
use_venv server

if [ "$#" -gt 0 ]; then
  mkdir -p "$1"
  directory=$(CDPATH='' cd -- "$1" && pwd -P)
else
  directory=$(mktemp -d)
  trap 'rm -rf "$directory"' EXIT
  trap 'exit 1' HUP INT TERM
fi

"$python" "$root/examples/under_attack/attack.py" "$directory"
