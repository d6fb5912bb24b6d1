#!/bin/sh
# Installs what tests, demo and benchmarks use from Debian. Does nothing, and needs no
# root, when all of it is there.
set -eu

# The agents for Pacemaker are unpacked, not installed: they would bring all of it.
agents=$(dirname "$0")/../.tools/resource-agents
if [ ! -d "$agents/usr/lib/ocf" ]; then
	mkdir -p "$agents"
	(cd "$agents" && { apt-get download -qq resource-agents || { apt-get update -qq && apt-get download -qq resource-agents; }; })
	dpkg -x "$agents"/resource-agents_*.deb "$agents"
fi

want="drbdmeta:drbd-utils nbdkit:nbdkit nbdinfo:libnbd-bin qemu-io:qemu-utils fio:fio nbd-server:nbd-server nbd-client:nbd-client vblade:vblade ip:iproute2 strace:strace gcc:gcc"
missing=""
for w in $want; do
	PATH="$PATH:/usr/sbin:/sbin" command -v "${w%%:*}" >/dev/null 2>&1 || missing="$missing ${w##*:}"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ]; then
	echo "missing Debian packages:$missing" >&2
	echo "install them: sudo apt-get install$missing" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq --no-install-recommends $missing >/dev/null
