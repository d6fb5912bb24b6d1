//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// aoeNode is one of two daemons that serve e1.1 from a namespace of its own:
//
//	machine eth1 ── tap1 ── bridge0 ── lan0 in a
//	                             └──── lan0 in b      a repl ── repl b
type aoeNode struct {
	t        *testing.T
	name, ns string
	dir, bin string
	proc     *exec.Cmd
}

// aoeOptions are what a pair can have.
type aoeOptions struct {
	mtu      int
	contents string // a file whose bytes the disk begins with
	export   string // more words for the aoe section
}

// aoePair makes the bridge, the namespaces and a pair in sync; the first is Primary.
func aoePair(t *testing.T, o aoeOptions) [2]*aoeNode {
	t.Helper()
	dir, id := t.TempDir(), fmt.Sprintf("io%d", os.Getpid()%100000)
	bin := goBuild(t, dir, "../cmd/replblk")
	var nodes [2]*aoeNode
	ipCmd(t, "link add bridge0 type bridge forward_delay 0")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "bridge0").Run() })
	ipCmd(t, fmt.Sprintf("link set %s mtu %d master bridge0 up", aoeTap, o.mtu))
	ipCmd(t, "link set bridge0 up")
	res := "resource r0 {\n device /dev/drbd7;\n meta-disk internal;\n net { connect-int 1; ping-int 1; ping-timeout 5; after-sb-1pri discard-secondary; }\n"
	for i, name := range []string{"a", "b"} {
		n := &aoeNode{t: t, name: name, ns: id + name, dir: dir, bin: bin}
		nodes[i] = n
		ipCmd(t, "netns add "+n.ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", n.ns).Run() })
		ipCmd(t, fmt.Sprintf("-n %s link add lan0 mtu %d type veth peer name %s netns %d mtu %d", n.ns, o.mtu, n.ns, os.Getpid(), o.mtu))
		ipCmd(t, "link set "+n.ns+" master bridge0 up")
		ipCmd(t, "-n "+n.ns+" link set lan0 up")
		res += fmt.Sprintf(" on %s { address 10.9.0.%d:7789; disk %q; }\n", name, i+1, n.file("img"))
		n.write("conf", fmt.Sprintf("control { socket %q; }\naoe e11 { shelf 1; slot 1; interface lan0; resource r0; state-file %q; %s }\n", n.file("ctl"), n.file("state"), o.export))
		if err := newImage(n.file("img"), diskSize); err != nil {
			t.Fatal(err)
		}
		if o.contents != "" {
			command(t, "dd", "if="+o.contents, "of="+n.file("img"), "bs=1M", "conv=notrunc,sparse", "status=none")
		}
	}
	ipCmd(t, "-n "+nodes[0].ns+" link add repl type veth peer name repl netns "+nodes[1].ns)
	for i, n := range nodes {
		ipCmd(t, fmt.Sprintf("-n %s addr add 10.9.0.%d/24 dev repl", n.ns, i+1))
		ipCmd(t, "-n "+n.ns+" link set repl up")
		n.write("res", res+"}\n")
		n.must("create-md", "--force", "r0")
		n.start()
	}
	nodes[0].must("wait-connect", "--timeout", "15s", "r0")
	nodes[0].must("new-current-uuid", "--clear-bitmap", "r0")
	nodes[0].must("wait-sync", "r0")
	nodes[0].must("primary", "r0")
	return nodes
}

func goBuild(t *testing.T, dir, pkg string) string {
	t.Helper()
	bin := filepath.Join(dir, filepath.Base(pkg))
	c := exec.Command("go", "build", "-o", bin, pkg)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

func ipCmd(t *testing.T, args string) {
	t.Helper()
	command(t, "ip", strings.Fields(args)...)
}

// command runs a program on this side that must succeed, and returns what it printed.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

func (n *aoeNode) file(kind string) string { return filepath.Join(n.dir, n.name+"."+kind) }

func (n *aoeNode) write(kind, text string) {
	n.t.Helper()
	if err := os.WriteFile(n.file(kind), []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *aoeNode) args(args ...string) []string {
	return append([]string{"--node", n.name, "-c", n.file("res"), "--config", n.file("conf")}, args...)
}

func (n *aoeNode) run(args ...string) (string, error) {
	out, err := exec.Command(n.bin, n.args(args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (n *aoeNode) must(args ...string) {
	n.t.Helper()
	if out, err := n.run(args...); err != nil {
		n.t.Fatalf("%s: replblk %v: %v\n%s", n.name, args, err, out)
	}
}

func (n *aoeNode) start() {
	n.t.Helper()
	log, err := os.OpenFile(fileName(n.t, n.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	n.proc = exec.Command("ip", append([]string{"netns", "exec", n.ns, n.bin}, n.args("run")...)...)
	n.proc.Stdout, n.proc.Stderr = log, log
	n.proc.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.proc.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(n.kill)
	for end := time.Now().Add(waitTimeout); ; time.Sleep(50 * time.Millisecond) {
		if _, err := n.run("role", "r0"); err == nil {
			return
		} else if time.Now().After(end) {
			n.t.Fatalf("%s does not answer", n.name)
		}
	}
}

func (n *aoeNode) kill() {
	if n.proc != nil {
		_ = n.proc.Process.Kill()
		_ = n.proc.Wait()
		n.proc = nil
	}
}

// cables pulls the node's cables, to the clients and to the other node, or puts them back.
func (n *aoeNode) cables(state string) {
	n.t.Helper()
	ipCmd(n.t, "link set "+n.ns+" "+state)
	ipCmd(n.t, "-n "+n.ns+" link set repl "+state)
}

// takeover makes n Primary as soon as it lets itself.
func (n *aoeNode) takeover() {
	n.t.Helper()
	for end := time.Now().Add(waitTimeout); ; time.Sleep(5 * time.Millisecond) {
		if out, err := n.run("primary", "r0"); err == nil {
			return
		} else if time.Now().After(end) {
			n.t.Fatalf("%s: primary: %s", n.name, out)
		}
	}
}

// aoeClient is a machine with its aoe driver.
type aoeClient struct {
	t      *testing.T
	vm     *vm
	name   string // of its interface on the bridge
	device string // what the ledger works on
}

// sh runs a command that must succeed and returns what it printed.
func (c *aoeClient) sh(cmd string) string {
	c.t.Helper()
	out, code, err := c.vm.run(cmd, commandTimeout)
	if err != nil || code != 0 {
		c.t.Fatalf("client: %s: exit %d, %v\n%s", cmd, code, err, out)
	}
	return out
}

// newAoEClient loads the driver of a machine and waits for e1.1 to appear.
func newAoEClient(t *testing.T, v *vm, name string, mtu int) *aoeClient {
	t.Helper()
	c := &aoeClient{t, v, name, "/dev/etherd/e1.1"}
	c.sh(fmt.Sprintf("dmesg -c >/dev/null; ip link set %s mtu %d up; modprobe aoe aoe_iflist=%s", name, mtu, name))
	t.Cleanup(func() {
		out, _, _ := v.run("for i in 1 2 3 4 5; do rmmod aoe && break; sleep 1; done; ip link set "+name+" down; dmesg -r -c", commandTimeout)
		keep(t, filepath.Base(v.dir)+"-dmesg.log", out)
	})
	c.sh("for i in $(seq 600); do [ -b /dev/etherd/e1.1 ] && exit 0; echo >/dev/etherd/discover; sleep 0.2; done; dmesg | tail; exit 1")
	return c
}

// install copies a program to /tmp of the machine, through the disk of the DRBD tests.
func (c *aoeClient) install(bin string) {
	c.t.Helper()
	b, err := os.ReadFile(bin)
	if err != nil {
		c.t.Fatal(err)
	}
	writeFile(c.t, c.vm.disk, b)
	to := "/tmp/" + filepath.Base(bin)
	c.sh(fmt.Sprintf("blockdev --flushbufs /dev/vda; dd if=/dev/vda of=%s bs=1M count=%d 2>/dev/null && truncate -s %d %s && chmod +x %s", to, len(b)>>20+1, len(b), to, to))
}

// tally is a line of the ledger.
type tally struct {
	Written, Read      uint64
	StallMS, SlowestMS float64
	Error              string
}

// beginLoad runs the ledger in the machine until endLoad. A driver is warm after that many
// requests.
func (c *aoeClient) beginLoad(workers, warm, cold int) {
	c.t.Helper()
	c.sh(fmt.Sprintf("rm -f /tmp/ledger.ready; PATH=/tmp:$PATH ledger -dev %s -workers %d -warm %d -cold %d >/tmp/ledger.out 2>&1 & echo $! >/tmp/ledger.pid", c.device, workers, warm, cold))
	c.ready()
}

// ready waits until the driver is as it should be in this round of the load.
func (c *aoeClient) ready() {
	c.t.Helper()
	c.sh("read -r pid </tmp/ledger.pid; for i in $(seq 1200); do [ -e /tmp/ledger.ready ] && exit 0; kill -0 $pid || break; pause 0.05; done; cat /tmp/ledger.out; exit 1")
}

// round has something happen to a warm or to a cold driver, and returns how the load went.
func (c *aoeClient) round(cold bool, event func()) tally {
	c.t.Helper()
	c.nextRound(cold)
	c.ready()
	event()
	time.Sleep(400 * time.Millisecond)
	return c.nextRound(false)
}

func (c *aoeClient) nextRound(cold bool) tally {
	c.t.Helper()
	sig := "USR1"
	if cold {
		sig = "USR2"
	}
	return c.tally(c.sh("n=$(wc -l </tmp/ledger.out); kill -" + sig + " $(cat /tmp/ledger.pid); for i in $(seq 3000); do [ $(wc -l </tmp/ledger.out) -gt $n ] && break; sleep 0.02; done; tail -n 1 /tmp/ledger.out"))
}

// endLoad ends the ledger, which reads back everything, and returns its result.
func (c *aoeClient) endLoad() tally {
	c.t.Helper()
	return c.tally(c.sh("read -r pid </tmp/ledger.pid; kill $pid; for i in $(seq 600); do kill -0 $pid 2>/dev/null || break; pause 0.1; done; tail -n 1 /tmp/ledger.out"))
}

func (c *aoeClient) tally(line string) (r tally) {
	c.t.Helper()
	if err := json.Unmarshal([]byte(line), &r); err != nil || r.Error != "" {
		c.t.Fatalf("ledger: %v\n%s", err, line)
	}
	return r
}

// TestAoEDisk: the Linux driver finds the mirrored volume, makes a file system on it
// and verifies what it has written, with small and large frames.
func TestAoEDisk(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		t.Run(fmt.Sprint("mtu ", mtu), func(t *testing.T) {
			nodes := aoePair(t, aoeOptions{mtu: mtu})
			c := newAoEClient(t, machine, "eth1", mtu)
			if got, want := c.sh("cat /sys/block/etherd*e1.1/mac"), "02ae00010100"; !strings.Contains(got, want) {
				t.Errorf("the driver's target is %q, want %s", got, want)
			}
			c.sh("fio --name=v --filename=/dev/etherd/e1.1 --direct=1 --ioengine=psync --numjobs=4 --offset_increment=8m --size=4m --bs=4k --rw=randwrite --verify=crc32c --do_verify=1 --thread --minimal")
			c.sh("modprobe ext4; mkfs.ext4 -q -F /dev/etherd/e1.1; mkdir -p /tmp/m; mount -t ext4 /dev/etherd/e1.1 /tmp/m; dd if=/dev/urandom of=/tmp/m/f bs=1M count=8 2>/dev/null; sync; md5sum </tmp/m/f >/tmp/sum; umount /tmp/m")
			nodes[0].must("secondary", "r0")
			nodes[1].must("primary", "r0")
			c.sh("echo 3 >/proc/sys/vm/drop_caches; mount -t ext4 /dev/etherd/e1.1 /tmp/m; md5sum </tmp/m/f | cmp - /tmp/sum; s=$?; umount /tmp/m; fsck.ext4 -fn /dev/etherd/e1.1 >/tmp/fsck 2>&1 || { cat /tmp/fsck; exit 1; }; exit $s")
		})
	}
}
