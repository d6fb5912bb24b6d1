#!/bin/bash
# Builds what the interop tests boot: Debian's kernel with its drbd module and an initramfs that
# ends in a shell on the second serial line. Prints the folder with `vmlinux` and `initrd`.
# Needs root and Debian; downloads about 100 MB once and does nothing when all of it is there.
#
# REPLBLK_LAB names the folder (default /var/tmp/replblk-lab).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
lab=${REPLBLK_LAB:-/var/tmp/replblk-lab}
export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C DEBIAN_FRONTEND=noninteractive

# What the tests call on this side of the machine : its Debian package.
host_tools="qemu-system-x86_64:qemu-system-x86 ip:iproute2 mkfs.ext4:e2fsprogs cpio:cpio depmod:kmod xz:xz-utils busybox:busybox-static
	drbdmeta:drbd-utils fio:fio tcpdump:tcpdump dmsetup:dmsetup"
# What is copied into the machine. drbdadm re-executes drbdadm-84 when the 8.4 module is loaded.
guest_tools="drbdadm drbdsetup drbdmeta /lib/drbd/drbdadm-84 /lib/drbd/drbdsetup-84 fio mkfs.ext4 fsck.ext4 dmsetup"
guest_modules="virtio_pci virtio_net virtio_blk virtio_rng drbd crc32c_generic sha1_generic sha256_generic
	md5 hmac crc32_generic dm-mod dm-flakey loop nbd aoe ext4"

die() { echo "interop: $*" >&2; exit 1; }

# stamp changes when the kernel must be fetched or the initramfs rebuilt.
stamp() { cat "$here/setup.sh" "$here/init"; }

install_packages() {
	local missing="" w
	for w in $host_tools; do command -v "${w%%:*}" >/dev/null || missing="$missing ${w##*:}"; done
	# busybox of the package "busybox" is dynamic and lacks applets; the static one must be it
	ldd "$(command -v busybox || echo /nonexistent)" >/dev/null 2>&1 && missing="$missing busybox-static"
	[ -z "$missing" ] && return
	apt-get update -qq >&2
	# shellcheck disable=SC2086 # a list of words
	apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# fetch_kernel unpacks the newest linux-image that linux-image-amd64 depends on into kernel/.
fetch_kernel() {
	compgen -G kernel/boot/vmlinuz-\* >/dev/null && return
	local image
	image=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n1)
	[ -n "$image" ] || { apt-get update -qq >&2
		image=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n1); }
	[ -n "$image" ] || die "no package linux-image-amd64; is this Debian?"
	rm -rf deb kernel.new; mkdir deb
	chmod 777 deb # apt downloads as another user
	(cd deb && apt-get download -qq "$image" >&2)
	dpkg -x deb/*.deb kernel.new
	rm -rf deb
	mv kernel.new kernel
}

# with_libraries copies a program and the shared libraries it is linked with.
with_libraries() {
	local path f
	path=$(command -v "$1") || die "no program $1"
	for f in "$path" $(ldd "$path" 2>/dev/null | grep -oE '/[^ )]+' || true); do
		mkdir -p "root$(dirname "$f")"
		[ -e "root$f" ] || cp -L "$f" "root$f"
	done
}

build_root() {
	local kv m ko t
	kv=$(basename kernel/lib/modules/*)
	[ -d "kernel/lib/modules/$kv/kernel/drivers/block/drbd" ] || die "kernel $kv has no drbd module"
	depmod -b kernel "$kv"
	rm -rf root
	mkdir -p root/{bin,sbin,usr/bin,usr/sbin,lib64,proc,sys,dev,tmp,etc,run,root,var/lib/drbd,var/lock} "root/lib/modules/$kv"
	ln -s ../run root/var/run
	cp "$(command -v busybox)" root/bin/busybox
	for t in $guest_tools; do with_libraries "$t"; done
	for m in $guest_modules; do
		modprobe -d kernel -S "$kv" --show-depends "$m" | sed -n 's/^insmod \([^ ]*\).*/\1/p' |
			while read -r ko; do cp -n "$ko" "root/lib/modules/$kv/"; done
	done
	cp kernel/lib/modules/"$kv"/modules.{order,builtin,builtin.modinfo} "root/lib/modules/$kv/"
	depmod -b root "$kv"
	printf 'root:x:0:0::/root:/bin/sh\n' >root/etc/passwd
	printf 'root:x:0:\n' >root/etc/group
	install -m 755 "$here/init" root/init
	(cd root && find . | cpio -o -H newc --quiet) >initrd.new # not compressed: that would be undone under emulation
	cp "kernel/boot/vmlinuz-$kv" vmlinuz
	unpacked vmlinuz >vmlinux
	mv initrd.new initrd
}

# unpacked prints the kernel within a bzImage, which QEMU starts as well: the machine's own unpacking takes longer
# than the rest of its boot.
unpacked() {
	local setup offset length
	setup=$(od -An -tu1 -j497 -N1 "$1")
	read -r offset length < <(od -An -tu4 -j584 -N8 "$1")
	offset=$(((setup + 1) * 512 + offset))
	# the last four bytes are the size
	dd if="$1" bs=1M iflag=skip_bytes,count_bytes skip=$offset count=$((length - 4)) status=none | xz -dc
}

[ "$(id -u)" = 0 ] || die "needs root: it installs packages, makes network devices and boots a machine"
install_packages
mkdir -p "$lab"
cd "$lab"
exec 9>lock
flock 9
if [ ! -e initrd ] || ! stamp | cmp -s - stamp; then
	fetch_kernel
	build_root
	stamp >stamp
fi
pwd
