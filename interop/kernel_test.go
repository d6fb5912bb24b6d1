//go:build interop

package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replblk/replblk/metadata"
)

// kernel is the kernel's node of the resource r0.
type kernel struct {
	t       *testing.T
	disk    string            // file behind its disk
	allowed []string          // parts of kernel messages that this test provokes
	peer    *peer             // replblk's node, as it is in the end; nil if it is a program
	log     string            // what it has said, see heed
	conf    string            // /etc/drbd.conf, as configure has written it
	plain   map[string]string // what drbdadm makes of its commands with it
	span    string            // of the device, which fio writes to
	ended   bool              // its connection has, see judge
	overran bool              // resyncs began anew on a connection: the kernel remembers a sync UUID that was overtaken
}

// sh runs a command that must succeed and returns what it printed.
func (k *kernel) sh(cmd string) string {
	k.t.Helper()
	out, code, err := machine.run(k.shortened(cmd), commandTimeout)
	if err == nil && strings.HasPrefix(cmd, "drbdadm ") && !strings.ContainsAny(cmd, ";&|") && strings.Contains(out, impatience) {
		k.t.Logf("kernel: %s: %s", cmd, out) // it does it all the same, and what follows waits for that
		return out
	}
	if err != nil || code != 0 {
		k.t.Fatalf("kernel: %s: exit %d, %v\n%s", cmd, code, err, out)
	}
	return out
}

// impatience is what drbdadm says when a command takes longer than five seconds, as in a machine
// on a busy host, and leaves it alone.
const impatience = "did not terminate within"

// up makes the kernel's node.
func (k *kernel) up() { k.t.Helper(); k.sh("drbdadm up r0") }

// refuses runs a command that must fail with want in what it prints.
func (k *kernel) refuses(cmd, want string) {
	k.t.Helper()
	out, code, err := machine.run(cmd, commandTimeout)
	if err != nil || code == 0 || !strings.Contains(out, want) {
		k.t.Fatalf("kernel: %s: exit %d, %v, want a failure with %q\n%s", cmd, code, err, want, out)
	}
}

// configure writes /etc/drbd.conf. net and disk are further lines of these sections.
func (k *kernel) configure(o options) {
	k.t.Helper()
	dev, _ := o.device()
	second := func(string) string { return "" }
	if o.two {
		second = func(disk string) string {
			return "volume 1 { device /dev/drbd1; meta-disk internal; disk " + disk + "; }"
		}
	}
	// The defaults leave this side half a second, in which a busy host does nothing.
	o.kernelNet += " ping-timeout 30; socket-check-timeout 5;"
	kernelAddr, peerAddr := o.addresses()
	if o.ipv6 {
		kernelAddr, peerAddr = "ipv6 "+kernelAddr, "ipv6 "+peerAddr
	}
	conf := fmt.Sprintf(`
global { usage-count no; }
resource r0 {
	net { protocol %c; %s }
	disk { %s }
	handlers { %s }
	on kernel {
		address %s;
		volume 0 { device /dev/drbd0; meta-disk %s; disk %s; }
		%s
	}
	on replblk {
		address %s;
		volume 0 { device /dev/drbd0; meta-disk internal; disk %s; }
		%s
	}
}
`, o.proto(), o.kernelNet, o.kernelDisk, o.kernelHandlers,
		kernelAddr, o.metaDisk(), dev, second("/dev/vdb"), peerAddr, peerDisk(), second(secondDisk()))
	helper := "/sbin/drbdadm" // the default, which does not exist here: no handler runs
	if o.kernelHandlers != "" {
		helper = "/usr" + helper
	}
	k.conf, k.plain, k.span = conf, nil, "64m"
	if o.small {
		k.span = "24m"
	}
	k.sh("cat >/etc/drbd.conf <<'END'" + conf + "END\nprintf " + helper + " >/sys/module/drbd/parameters/usermode_helper")
}

// create gives the kernel an empty disk with fresh metadata.
func (k *kernel) create(o options) {
	k.t.Helper()
	sizes := map[string]int64{diskID: diskSize, bigID: bigDiskSize}
	if o.two {
		sizes[bigID] = secondSize
	}
	if o.small {
		sizes[diskID] = smallSize
	}
	for id, file := range map[string]string{diskID: machine.disk, bigID: machine.big} {
		for _, size := range []int64{0, sizes[id]} {
			if err := os.Truncate(file, size); err != nil {
				k.t.Fatal(err)
			}
		}
		if err := machine.resize(id, sizes[id]); err != nil {
			k.t.Fatal(err)
		}
	}
	_, disk := o.device()
	switch {
	case o.ownTool:
	case !o.meta.Valid():
		k.createMD(disk, "internal")
	case o.meta == metadata.FlexExternal:
		k.createMD(machine.big, "flex-external")
	default:
		k.createMD(machine.big, "1")
	}
	if o.two {
		k.createMD(machine.big, "internal")
	}
	k.forgetCache()
	if o.breakable {
		k.sh("modprobe dm-mod; DM_DISABLE_UDEV=1 dmsetup create breakable --table '" + wholeTable() + "'")
		k.t.Cleanup(func() { _, _, _ = machine.run("dmsetup remove breakable", commandTimeout) })
	}
	if o.ownTool {
		k.sh("drbdadm -- --force create-md r0 </dev/null")
	}
}

// createMD makes fresh metadata with DRBD's own tool, on this side.
func (k *kernel) createMD(file, place string) {
	k.t.Helper()
	if out, err := exec.Command("drbdmeta", "--force", "-", "v08", file, place, "create-md").CombinedOutput(); err != nil {
		k.t.Fatalf("drbdmeta create-md %s: %v\n%s", file, err, out)
	}
}

// resize gives the kernel's disk (not a big one) another size.
func (k *kernel) resize(size int64) {
	k.t.Helper()
	if err := machine.resize(diskID, size); err != nil {
		k.t.Fatal(err)
	}
}

// forgetCache makes the machine see what this side has written to its disk.
func (k *kernel) forgetCache() {
	k.sh("sync; echo 3 >/proc/sys/vm/drop_caches; blockdev --flushbufs /dev/vda; blockdev --flushbufs /dev/vdb")
}

// procState is what /proc/drbd says.
type procState struct{ cs, ro, ds, flags, oos string }

var procLine = regexp.MustCompile(`(?s) ([01]): cs:(\S+) ro:(\S+) ds:(\S+) . (\S+).*? oos:(\d+)`)

// states is what it says of volumes 0 and 1.
func (k *kernel) states() (s [2]procState) {
	k.t.Helper()
	s[0].cs, s[1].cs = "Unconfigured", "Unconfigured"
	for _, m := range procLine.FindAllStringSubmatch(k.sh("states"), -1) {
		s[m[1][0]-'0'] = procState{m[2], m[3], m[4], m[5], m[6]}
	}
	return s
}

func (k *kernel) state() procState { k.t.Helper(); return k.states()[0] }

// awaitFile is the end of a script for the machine that waits until there is a file, for that many tenths of
// a second and what it takes to look, and else fails with what otherwise prints.
func awaitFile(name string, tenths int, otherwise string) string {
	return fmt.Sprintf("for i in $(seq %d); do [ -e %s ] && exit 0; sleep 0.1; done; %s; exit 1", tenths, name, otherwise)
}

// wait waits until /proc/drbd satisfies cond.
func (k *kernel) wait(what string, cond func(procState) bool) { k.t.Helper(); k.waitFor(0, what, cond) }

// waitFor is wait for a volume.
func (k *kernel) waitFor(vol uint16, what string, cond func(procState) bool) {
	k.t.Helper()
	var s procState
	pause := 25 * time.Millisecond // longer and longer: the machine is to do what it is waited for
	for deadline := time.Now().Add(waitTimeout); time.Now().Before(deadline); time.Sleep(pause) {
		if s = k.states()[vol]; cond(s) {
			return
		}
		pause = min(pause*3/2, 250*time.Millisecond)
	}
	k.t.Fatalf("kernel: volume %d: %s: state is %+v", vol, what, s)
}

// inStep is inSync, and the kernel sees the roles as p does.
func (s procState) inStep(p *peer, vol uint16) bool {
	ours := p.State(vol)
	return s.inSync() && s.ro == fmt.Sprintf("%v/%v", ours.Peer, ours.Role)
}

func (s procState) connected() bool { return s.cs == "Connected" }
func (s procState) inSync() bool    { return s.connected() && s.ds == "UpToDate/UpToDate" && s.oos == "0" }
func (s procState) alone() bool     { return s.cs == "StandAlone" }
func (s procState) waiting() bool   { return s.cs == "WFConnection" }

// gi returns the generation identifiers as drbdadm prints them, without flags.
func (k *kernel) gi() [4]string { k.t.Helper(); return k.giOf(0) }

func (k *kernel) giOf(vol uint16) [4]string {
	k.t.Helper()
	f := strings.Split(strings.TrimSpace(k.sh(fmt.Sprintf("generations %[1]d || drbdadm get-gi r0/%[1]d", vol))), ":")
	if len(f) < 4 {
		k.t.Fatalf("get-gi: %q", f)
	}
	return [4]string(f[:4])
}

// begin forgets older messages, and removes what a load of a failed test has left.
func (k *kernel) begin() {
	k.sh("for d in /dev/drbd0 /dev/drbd1; do [ -b $d ] || rm -f $d; done; rm -f /tmp/enough; dmesg -c >/dev/null")
}

// suspicious are words that make a message a failure whatever its level is.
var suspicious = regexp.MustCompile(`(?i)assert|bad |bug:|unexpected|error|warning|stall|refused|corrupt|mismatch|invalid|unrelated|split-brain`)

var drbdMessage = regexp.MustCompile(`^<(\d+)>\[ *[\d.]+\] (drbd|block drbd|.*BUG|.*WARNING|.*Oops)`)

// end takes the resource down, keeps the kernel log and judges it.
func (k *kernel) end() {
	t := k.t
	out, code, err := machine.run(k.shortened("states; drbdadm down r0; s=$?; dmesg -r -c; exit $s"), commandTimeout)
	if err != nil {
		t.Errorf("kernel: %v\n%s", err, out)
		return
	}
	keep(t, "dmesg.log", k.log+out)
	k.judge(out)
	if code != 0 { // the next scenario needs a kernel that can be used
		t.Error("the kernel's node cannot be taken down, its machine is started again")
		machine.halt()
		if err := machine.start(); err != nil {
			t.Error(err)
		}
	}
}

// heed returns what the kernel has said since it was asked last, having complained about what
// it must not say.
func (k *kernel) heed() string {
	k.t.Helper()
	out := k.sh("dmesg -r -c")
	k.log += out + "\n"
	k.judge(out)
	return out
}

// judge complains about every message of a kernel's log that says that it did not like what it
// saw. That it could not read a packet is no complaint of its own after the end of the connection.
func (k *kernel) judge(log string) {
	k.t.Helper()
	for line := range strings.Lines(log) {
		k.ended = !strings.Contains(line, "Handshake successful") && (k.ended || containsAny(line, noticed))
		m := drbdMessage.FindStringSubmatch(line)
		if m == nil || m[1] >= "5" && !suspicious.MatchString(line) || k.expects(line) {
			continue
		}
		k.t.Errorf("kernel log: %s", strings.TrimSpace(line))
	}
}

// usual are messages of an undisturbed pair.
var usual = []string{
	"Discarding network configuration.", // the last thing that disconnect does
	"crossed",                           // both have connected at once
	"bits in bitmap!",                   // two fresh nodes: "No resync, but 32760 bits in bitmap!"
	"helper command:",                   // Debian's machine has no handlers
}

func (k *kernel) expects(line string) bool {
	return containsAny(line, usual) || containsAny(line, k.allowed) || k.ended && strings.Contains(line, "error receiving")
}

func containsAny(line string, parts []string) bool {
	return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(line, p) })
}

// fileName is where a test keeps something, next to the consoles.
func fileName(t *testing.T, kind string) string {
	return filepath.Join(machine.dir, strings.NewReplacer("/", "-", " ", "-", "'", "").Replace(t.Name())+"."+kind)
}

// keep writes such a file.
func keep(t *testing.T, kind, text string) {
	if err := os.WriteFile(fileName(t, kind), []byte(text), 0o644); err != nil {
		t.Error(err)
	}
}

// breakable is a device over /dev/vda that the kernel's machine can have fail.
const breakable = "/dev/mapper/breakable"
