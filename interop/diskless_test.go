//go:build interop

package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	secondTap    = "tap2"
	disklessSize = 64 << 20 // of the image that lab/diskless.sh makes
	// rootPart is where its root file system begins, in bytes.
	rootPart = 1 << 20
)

// secondMachine boots a machine beside the shared one, with an interface on the bridge of
// aoePair and a shell. first is its first command.
func secondMachine(t *testing.T, name, first string, hardware ...string) *vm {
	t.Helper()
	ipCmd(t, "tuntap add "+secondTap+" mode tap")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", secondTap).Run() })
	ipCmd(t, fmt.Sprintf("link set %s mtu 9000 master bridge0 up", secondTap))
	v := &vm{dir: filepath.Join(machine.dir, name), first: first, hardware: append(hardware, nic(0, secondTap)...)}
	if err := os.MkdirAll(v.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := v.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.halt)
	return v
}

// newDiskless boots a machine that has nothing but an interface on the bridge: the option
// ROM of QEMU's network card asks DHCP and is told aoe:e1.1, where it finds GRUB, a kernel
// and an initramfs that mounts e1.1 as its root.
func newDiskless(t *testing.T) *aoeClient {
	t.Helper()
	serveDHCP(t)
	began := time.Now()
	v := secondMachine(t, "diskless", "grep ' / ' /proc/mounts", "-m", "256", "-boot", "n")
	t.Logf("up after %.0f s", time.Since(began).Seconds())
	return &aoeClient{t, v, "eth0", "/ledger.dat"}
}

// serveDHCP gives who asks on the bridge an address and the name of its disk.
func serveDHCP(t *testing.T) {
	t.Helper()
	ipCmd(t, "addr add 10.98.0.254/24 dev bridge0")
	dir := t.TempDir()
	conf := "interface bridge0\nstart 10.98.0.1\nend 10.98.0.9\nopt subnet 255.255.255.0\nopt rootpath aoe:e1.1\nlease_file " + dir + "/leases\n"
	for name, text := range map[string]string{"conf": conf, "leases": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command("busybox", "udhcpd", "-f", "-S", filepath.Join(dir, "conf"))
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Process.Kill(), c.Wait() })
}

// disklessImage is the disk of newDiskless with programs in its /bin.
func disklessImage(t *testing.T, programs ...string) string {
	t.Helper()
	img := filepath.Join(t.TempDir(), "root.img")
	command(t, "cp", "--sparse=always", filepath.Join(os.Getenv(insideEnv), "diskless.img"), img)
	for _, p := range programs {
		name := filepath.Base(p)
		at := fmt.Sprintf("%s?offset=%d", img, rootPart)
		command(t, "debugfs", "-w", "-R", "write "+p+" bin/"+name, at)
		command(t, "debugfs", "-w", "-R", "sif bin/"+name+" mode 0100755", at)
	}
	return img
}

// TestAoEDiskless: a machine without a disk boots from the mirror, by the network card's
// own AoE, and has its root file system there. It keeps running, and finds what it has
// written, while one end is killed and, when that is back, the other one.
func TestAoEDiskless(t *testing.T) {
	nodes := aoePair(t, aoeOptions{mtu: 1500, contents: disklessImage(t, goBuild(t, t.TempDir(), "./lab/ledger"))})
	c := newDiskless(t)
	if got := c.sh("grep ' / ' /proc/mounts; ls /sys/block"); !strings.Contains(got, "/dev/etherd/e1.1p1 / ext4 rw") || strings.Contains(got, "vda") {
		t.Fatalf("its root and disks: %s", got)
	}
	c.sh("dd if=/dev/zero of=/ledger.dat bs=4096 count=2000 2>/dev/null; md5sum /boot/* /bin/busybox /bin/ledger >/sums; sync")
	for i, n := range nodes {
		c.beginLoad(2, 0, 0)
		r := c.round(false, func() {
			n.kill()
			nodes[1-i].takeover()
		})
		c.endLoad()
		t.Logf("%s killed: stall %.0f ms, %d blocks written, %d read", n.name, r.StallMS, r.Written, r.Read)
		c.sh("echo 3 >/proc/sys/vm/drop_caches; md5sum -s -c /sums && echo " + n.name + " >>/killed && sync")
		n.start()
		n.must("wait-sync", "--timeout", "60s", "r0")
	}
	if got := c.sh("echo 3 >/proc/sys/vm/drop_caches; cat /killed; dmesg | grep -ciE 'error|aoe: .*down' || true"); got != "a\nb\n0" {
		t.Errorf("what it has written at each failover, and its errors: %q\n%s", got, c.sh("dmesg | tail -30"))
	}
	c.sh("sync; mount -o remount,ro /")
	c.vm.halt()
	for _, n := range nodes {
		n.must("down", "r0")
		command(t, "e2fsck", "-fn", fmt.Sprintf("%s?offset=%d", n.file("img"), rootPart))
	}
	sameDisks(t, nodes[0].file("img"), nodes[1].file("img"), disklessSize)
}
