#!/bin/sh
# Measures replblk beside nbdkit, nbd-server, qemu-nbd and a QEMU quorum in the same run.
# BENCH_QUICK=1 takes three minutes instead of twenty-five. Arguments go to `bench run`,
# see `bench/out/bench run -h`; the program to measure is REPLBLK, or bin/replblk.
set -eu
cd "$(dirname "$0")/.."
mkdir -p bench/out
CGO_ENABLED=0 go build -trimpath -o bench/out/bench ./bench
[ -z "${BENCH_QUICK:-}" ] || set -- -quick "$@"
exec bench/out/bench run -out bench/out -replblk "${REPLBLK:-bin/replblk}" "$@"
