#!/bin/bash
# Builds the disk of a machine that has none: GRUB, a kernel, an initramfs that finds e1.1 with the aoe
# driver, and a root file system on the first partition. setup.sh must have run. Writes diskless.img into the
# same folder, and does nothing when it is there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
lab=${REPLBLK_LAB:-/var/tmp/replblk-lab}
export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C DEBIAN_FRONTEND=noninteractive
grub=/usr/lib/grub/i386-pc

stamp() { cat "$here/diskless.sh" "$here/init" "$lab/stamp"; }

# tree makes a folder with busybox and the kernel's modules.
tree() {
	local kv
	kv=$(basename "$lab"/root/lib/modules/*)
	mkdir -p "$1"/{bin,sbin,usr/bin,usr/sbin,lib/modules,proc,sys,dev,tmp,run,etc,root,mnt}
	cp "$lab/root/bin/busybox" "$1/bin/"
	cp -r "$lab/root/lib/modules/$kv" "$1/lib/modules/"
	rm -f "$1/lib/modules/$kv"/{drbd,dm-mod,dm-flakey}.ko
}

build() {
	rm -rf diskless boot
	tree boot
	cat >boot/init <<-'END'
		#!/bin/busybox sh
		/bin/busybox --install -s /bin
		mount -t proc none /proc
		mount -t devtmpfs none /dev
		for m in virtio_pci virtio_net crc32c_generic aoe ext4; do modprobe $m; done
		ip link set eth0 up
		for i in $(seq 300); do
			[ -b /dev/etherd/e1.1p1 ] && break
			echo >/dev/etherd/discover
			sleep 0.1
		done
		mount -t ext4 /dev/etherd/e1.1p1 /mnt
		umount /proc /dev
		exec switch_root /mnt /sbin/init
	END
	chmod 755 boot/init
	tree diskless
	mkdir diskless/boot
	install -m 755 "$here/init" diskless/sbin/init
	cp vmlinuz diskless/boot/
	(cd boot && find . | cpio -o -H newc --quiet | gzip -9) >diskless/boot/initrd
	cat >grub.cfg <<-'END'
		set root=(hd0,msdos1)
		linux /boot/vmlinuz console=ttyS0 panic=-1 net.ifnames=0 no_timer_check tsc=reliable nowatchdog rcupdate.rcu_cpu_stall_suppress=1 mitigations=off nokaslr init_on_alloc=0 hardened_usercopy=off audit=0 lsm= machine=diskless
		initrd /boot/initrd
		boot
	END
	rm -f diskless.new
	truncate -s 64M diskless.new
	# what GRUB 2.06 cannot read is left out
	mkfs.ext4 -q -F -O '^metadata_csum_seed,^orphan_file' -d diskless -E offset=1048576 diskless.new 63M
	# boot.img reads what follows from sector 1 on, which is where grub-mkimage expects it
	grub-mkimage -O i386-pc -o core.img -c grub.cfg -p /boot/grub biosdisk part_msdos ext2 linux
	dd if=$grub/boot.img of=diskless.new bs=440 count=1 conv=notrunc status=none
	dd if=core.img of=diskless.new bs=512 seek=1 conv=notrunc status=none
	# one partition: active, type 83, from sector 2048, 129024 sectors
	printf '\x80\x00\x01\x00\x83\xfe\xff\xff\x00\x08\x00\x00\x00\xf8\x01\x00' | dd of=diskless.new bs=1 seek=446 conv=notrunc status=none
	printf '\x55\xaa' | dd of=diskless.new bs=1 seek=510 conv=notrunc status=none
	mv diskless.new diskless.img
	rm -rf diskless boot core.img grub.cfg
}

cd "$lab"
exec 9>lock
flock 9
[ -e diskless.img ] && stamp | cmp -s - diskless.stamp && exit
if [ ! -e $grub/boot.img ] || ! command -v grub-mkimage >/dev/null; then
	apt-get install -y -qq --no-install-recommends grub-pc-bin grub-common >/dev/null
fi
build
stamp >diskless.stamp
