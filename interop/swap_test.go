//go:build interop

package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// A swap is a pair whose nodes change from the kernel to replblk and back, each on its disk:
//
//	first   10.99.0.1    kernel.img   the machine of all tests, or a node.Resource
//	second  10.99.0.254  peer.img     a machine of its own, or a node.Resource
//
// Both machines and this side are on one bridge.
type swap struct {
	t       *testing.T
	o       options
	k       *kernel // the first as a kernel
	other   *vm     // the second as a kernel
	crashes bool

	otherLog string // what the second kernel has said
}

// otherKernel runs a command in the second machine.
func (s *swap) otherKernel(cmd string) string {
	s.t.Helper()
	out, code, err := s.other.run(cmd, commandTimeout)
	if err != nil || code != 0 {
		s.t.Fatalf("second kernel: %s: exit %d, %v\n%s", cmd, code, err, out)
	}
	return out
}

// heedOther complains about what the second machine's kernel must not have said.
func (s *swap) heedOther() {
	s.t.Helper()
	log := s.otherKernel("dmesg -r -c")
	s.otherLog += log + "\n"
	s.k.judge(log)
}

// bridge joins both machines, and leaves this side without an address.
func (s *swap) bridge() {
	for _, cmd := range []string{
		"addr del " + peerIP + "/24 dev " + tapName, "tuntap add " + secondTap + " mode tap",
		"link add swap0 type bridge forward_delay 0", "link set swap0 up",
		"link set " + tapName + " master swap0", "link set " + secondTap + " master swap0 up",
	} {
		ipCmd(s.t, cmd)
	}
	s.t.Cleanup(func() {
		for _, cmd := range []string{"link del swap0", "link del " + secondTap, "addr add " + peerIP + "/24 dev " + tapName} {
			if out, err := exec.Command("ip", strings.Fields(cmd)...).CombinedOutput(); err != nil {
				s.t.Errorf("ip %s: %v: %s", cmd, err, out)
			}
		}
	})
}

// here gives this side an address that a machine had, or gives it up.
func (s *swap) here(verb, ip string) {
	s.t.Helper()
	ipCmd(s.t, "addr "+verb+" "+ip+"/24 dev swap0")
	// the first machine may remember who had the address
	_, _, _ = machine.run("ip neigh flush dev eth0", commandTimeout)
}

// boot powers the second machine up, with the configuration of the first.
func (s *swap) boot() {
	s.t.Helper()
	if err := s.other.start(); err != nil {
		s.t.Fatal(err)
	}
	s.otherKernel("cat >/etc/drbd.conf <<'END'" + strings.ReplaceAll(s.k.conf, peerDisk(), "/dev/vda") + "END")
	s.k.sh("ip neigh flush dev eth0")
}

// replblk starts a node on the disk of the first or of the second.
func (s *swap) replblk(first bool) *peer {
	s.t.Helper()
	o, disk := s.o, peerDisk()
	if first {
		o.swapped, disk = true, machine.disk
	}
	p := newPeer(s.t, o, disk, false)
	p.kind(replication.AdminConnect)
	return p
}

// What both implementations say when a resync starts, in KiB and in blocks of 4 KiB.
var (
	willSync      = regexp.MustCompile(`will sync (\d+) KB`)
	resyncStarted = regexp.MustCompile(`msg="resync started".* sector=(\d+)`)
)

// onlyBitmap complains about resyncs of more than what was written, of which the first
// machine's kernel or replblk has told.
func (s *swap) onlyBitmap() {
	s.t.Helper()
	most := diskSize / 4 >> 10
	if s.crashes { // 4 MiB for each extent in the activity log
		most = diskSize / 8 * 7 >> 10
	}
	for _, m := range willSync.FindAllStringSubmatch(s.k.sh("dmesg"), -1) {
		if n, err := strconv.Atoi(m[1]); err != nil || n > most {
			s.t.Errorf("the kernel was to sync %s KiB", m[1])
		}
	}
	log, err := os.ReadFile(fileName(s.t, "peer.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, m := range resyncStarted.FindAllSubmatch(log, -1) {
		if n, err := strconv.Atoi(string(m[1])); err != nil || 4*n > most {
			s.t.Errorf("replblk was to sync %s blocks", m[1])
		}
	}
}

// TestSwap converts a pair of kernel nodes to replblk one node at a time and back, on the same
// disks and metadata, with writes at every stage; after clean stops and after crashes of what is
// replaced. Nothing is copied but what differs.
func TestSwap(t *testing.T) {
	for _, crashes := range []bool{false, true} {
		t.Run(map[bool]string{false: "clean stops", true: "crashes"}[crashes], func(t *testing.T) {
			s := &swap{t: t, o: outage(), crashes: crashes}
			s.o.kernelDisk = brisk().kernelDisk
			s.o.core = func(c *replication.Config) { outage().core(c); brisk().core(c) }
			s.kernels()
			p := s.secondToReplblk()
			first := s.firstToReplblk(p)
			s.firstToKernel(first, p)
			s.secondToKernel(p)
		})
	}
}

// kernels makes a pair of kernels, in sync, the first one Primary.
func (s *swap) kernels() {
	t := s.t
	s.bridge()
	s.k = &kernel{t: t, disk: machine.disk, allowed: slices.Clone(noticed)}
	s.k.begin()
	s.k.configure(s.o)
	s.k.create(s.o)
	s.k.up()
	t.Cleanup(s.k.end)
	if err := newImage(peerDisk(), diskSize); err != nil {
		t.Fatal(err)
	}
	s.k.createMD(peerDisk(), "internal")
	s.other = &vm{dir: filepath.Join(machine.dir, "second"), first: "modprobe drbd",
		hardware: slices.Concat([]string{"-m", "384"}, fromRAM(os.Getenv(insideEnv), "machine=replblk address="+peerIP+"/24"),
			nic(0, secondTap), drive(diskID, peerDisk()))}
	if err := os.MkdirAll(s.other.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.boot()
	t.Cleanup(s.other.halt)
	s.otherKernel("drbdadm up r0")
	s.k.wait("two kernels", procState.connected)
	s.k.sh("drbdadm -- --clear-bitmap new-current-uuid r0/0 && drbdadm primary r0")
	s.k.fio("8m")
	s.k.dd(1, 65536, 4096)
}

// secondToReplblk replaces the second, a Secondary.
func (s *swap) secondToReplblk() *peer {
	if s.crashes {
		s.k.sh("(dd if=/dev/urandom of=/dev/drbd0 bs=64k count=300 oflag=direct >/dev/null 2>&1; touch /tmp/written) & sleep 1")
	} else {
		s.otherKernel("drbdadm down r0")
	}
	s.heedOther()
	s.other.halt()
	s.k.wait("the second has gone", procState.waiting)
	if s.crashes {
		s.k.sh("until [ -e /tmp/written ]; do sleep 0.2; done; rm /tmp/written")
	}
	s.k.dd(2, 1024, 2048)
	s.here("add", peerIP)
	p := s.replblk(false)
	settled(s.k, p)
	s.onlyBitmap()
	return p
}

// firstToReplblk replaces the first, which hands its role over or is a Primary that crashes.
func (s *swap) firstToReplblk(p *peer) *peer {
	k := s.k
	var crashed []byte
	if s.crashes {
		k.dd(3, 4096, 2048)
		k.sh("sync")
		crashed = readFile(s.t, k.disk) // as a loss of power would leave it
	}
	k.sh("drbdadm secondary r0 && drbdadm down r0 && ip addr flush dev eth0")
	p.wait("the first has gone", waiting)
	if s.crashes {
		writeFile(s.t, k.disk, crashed)
	} else {
		p.kind(replication.AdminPrimary)
	}
	p.scribbleIfPrimary(3, 10)
	s.here("add", kernelIP)
	first := s.replblk(true)
	s.replblks(first, p)
	s.onlyBitmap()
	return first
}

// replblks waits until two replblk nodes are in sync, and compares their disks.
func (s *swap) replblks(first, second *peer) {
	s.t.Helper()
	for _, p := range []*peer{first, second} {
		p.wait("in sync", func(st state.State) bool { return inSync(st) && p.Status().Volumes[0].OutOfSync == 0 })
	}
	a, b := first.Status().Volumes[0].UUIDs, second.Status().Volumes[0].UUIDs
	for i := range a {
		if a[i]&^1 != b[i]&^1 {
			s.t.Errorf("generations %016X and %016X", a, b)
		}
	}
	sameDisks(s.t, first.disk, second.disk, int64(first.sectors())*512)
}

func (p *peer) scribbleIfPrimary(seed uint64, n int) {
	if p.State(0).Role == state.Primary {
		p.scribble(seed, n)
	}
}

// firstToKernel gives the first back to its kernel; after a crash it was Primary.
func (s *swap) firstToKernel(first, p *peer) {
	k := s.k
	if s.crashes {
		first.kind(replication.AdminPrimary)
		first.scribble(4, 10)
		crashed := readFile(s.t, first.disk)
		first.close()
		writeFile(s.t, first.disk, crashed)
	} else {
		first.close()
		p.scribbleIfPrimary(4, 10)
	}
	s.here("del", kernelIP)
	k.forgetCache()
	k.sh("ip addr add " + kernelIP + "/24 dev eth0; drbdadm up r0")
	settled(k, p)
	s.onlyBitmap()
}

// secondToKernel gives the second back to a kernel, and compares the disks of both kernels.
func (s *swap) secondToKernel(p *peer) {
	k := s.k
	if s.crashes {
		p.kind(replication.AdminPrimary)
		p.scribble(5, 10)
		settled(k, p)
		crashed := readFile(s.t, p.disk)
		p.close()
		writeFile(s.t, p.disk, crashed)
	} else {
		p.kind(replication.AdminSecondary)
		p.close()
		k.sh("drbdadm primary r0")
		k.dd(5, 8192, 1024)
	}
	k.wait("the second has gone", func(st procState) bool { return !st.connected() })
	s.here("del", peerIP)
	s.boot()
	s.otherKernel("drbdadm up r0")
	k.wait("two kernels again", procState.inSync)
	s.onlyBitmap()
	ours, theirs := k.gi(), strings.Split(s.otherKernel("drbdadm get-gi r0"), ":")
	sameGenerations(s.t, ours, [4]string(theirs[:4]))
	first, second := k.state(), procLine.FindStringSubmatch(s.otherKernel("cat /proc/drbd"))
	ownRole, peerRole, _ := strings.Cut(first.ro, "/")
	if second == nil || !(procState{second[2], second[3], second[4], second[5], second[6]}).inSync() || second[3] != peerRole+"/"+ownRole {
		s.t.Errorf("the first kernel is %+v, the second %q", first, second)
	}
	k.sh("sync")
	time.Sleep(time.Second)
	sameDisks(s.t, k.disk, peerDisk(), diskSize-1<<20)
	s.otherKernel("drbdadm down r0")
	s.heedOther()
	keep(s.t, "second.dmesg.log", s.otherLog)
}
