#!/bin/sh
# make demo: shows bin/replblk at work. Options go to the demo (go run ./demo -h).
set -e
cd "$(dirname "$0")/.."
exec go run ./demo -replblk bin/replblk "$@"
