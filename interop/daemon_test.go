//go:build interop

package interop

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/internal/nbdclient"
)

// daemon is the program replblk as the kernel's peer, with the kernel's own drbd.conf.
type daemon struct {
	t    *testing.T
	bin  string
	dir  string
	disk string
	proc *exec.Cmd
}

const daemonConf = `
control { socket "DIR/control.sock"; }
nbd r0 {
	listen "unix:DIR/nbd.sock";
	resource r0;
}
nbd kernel {
	listen "tcp:ADDRESS:10809";
	resource r0;
}
`

// newDaemon builds replblk, gives it the configuration of the kernel and an empty disk.
func newDaemon(t *testing.T, conf string) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: t.TempDir(), disk: peerDisk()}
	d.bin = filepath.Join(d.dir, "replblk")
	if out, err := exec.Command("go", "build", "-o", d.bin, "../cmd/replblk").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	d.file("drbd.conf", conf)
	d.file("replblk.conf", strings.NewReplacer("DIR", d.dir, "ADDRESS", peerIP).Replace(daemonConf))
	if err := newImage(d.disk, diskSize); err != nil {
		t.Fatal(err)
	}
	d.must("create-md", "--force", "r0")
	return d
}

func (d *daemon) file(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) command(args ...string) *exec.Cmd {
	return exec.Command(d.bin, append([]string{"--node", "replblk", "-c", d.dir + "/drbd.conf", "--config", d.dir + "/replblk.conf"}, args...)...)
}

func (d *daemon) must(args ...string) string {
	d.t.Helper()
	out, err := d.command(args...).CombinedOutput()
	if err != nil {
		d.t.Fatalf("replblk %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// start runs the daemon until it answers.
func (d *daemon) start() {
	d.t.Helper()
	log, err := os.OpenFile(fileName(d.t, "peer.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.proc = d.command("run")
	d.proc.Stdout, d.proc.Stderr = log, log
	d.proc.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.proc.Start(); err != nil {
		d.t.Fatal(err)
	}
	for deadline := time.Now().Add(waitTimeout); d.command("role", "r0").Run() != nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatal("replblk does not answer")
		}
	}
}

func (d *daemon) signal(s syscall.Signal) {
	if d.proc == nil {
		return
	}
	_ = d.proc.Process.Signal(s)
	_ = d.proc.Wait()
	d.proc = nil
}

// settled waits until both say that they are in sync and compares states, generations and
// disks.
func (d *daemon) settled(k *kernel) {
	d.t.Helper()
	k.wait("in sync", procState.inSync)
	for deadline := time.Now().Add(waitTimeout); d.must("dstate", "r0") != "UpToDate/UpToDate"; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("replblk: %s", d.must("proc"))
		}
	}
	if cs := d.must("cstate", "r0"); cs != "Connected" {
		d.t.Errorf("replblk: %s", cs)
	}
	ours, peers, _ := strings.Cut(d.must("role", "r0"), "/")
	k.wait("roles as replblk says", func(s procState) bool { return s.ro == peers+"/"+ours })
	sameGenerations(d.t, k.gi(), [4]string(strings.Split(d.must("get-gi", "r0"), ":")[:4]))
	sameDisks(d.t, k.disk, d.disk, diskSize-1<<20)
}

// daemonPair starts a pair in sync with the program as the kernel's peer. When the test is
// over, both must be settled.
func daemonPair(t *testing.T, o options) (*kernel, *daemon) {
	t.Helper()
	k := &kernel{t: t, disk: machine.disk, allowed: slices.Clone(noticed)}
	k.begin()
	k.configure(o)
	k.create(o)
	d := newDaemon(t, k.sh("cat /etc/drbd.conf"))
	record(t)
	k.up()
	t.Cleanup(k.end)
	d.start()
	t.Cleanup(func() {
		defer d.signal(syscall.SIGTERM)
		if !t.Failed() {
			d.settled(k)
		}
	})
	k.wait("connect", procState.connected)
	d.must("wait-connect", "r0")
	d.must("new-current-uuid", "--clear-bitmap", "r0")
	d.settled(k)
	return k, d
}

// TestDaemon has replblk as a program, with the kernel's configuration file, replace a
// node: NBD clients write, it is killed as Primary, comes back, and the kernel takes over.
func TestDaemon(t *testing.T) {
	k, d := daemonPair(t, options{})
	d.must("primary", "r0")
	d.write(1, 200)
	d.settled(k)
	d.signal(syscall.SIGKILL)
	k.wait("replblk has gone", procState.waiting)
	d.start()
	d.settled(k)

	k.sh("drbdadm primary r0")
	k.fio("8m")
	k.sh("drbdadm secondary r0")
	d.settled(k)
	d.must("primary", "r0")
	d.write(2, 200)
	d.signal(syscall.SIGTERM)
	k.wait("replblk has gone", func(s procState) bool { return s.waiting() && s.ro == "Secondary/Unknown" })
	k.sh("drbdadm primary r0")
	k.dd(3, 0, 2048)
	d.start()
}

// write writes n blocks through NBD.
func (d *daemon) write(seed byte, n int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	c, err := nbdclient.Dial(ctx, "unix:"+d.dir+"/nbd.sock", "r0")
	if err != nil {
		d.t.Fatal(err)
	}
	defer c.Close()
	for i := range n {
		b := bytes.Repeat([]byte{seed + byte(i)}, nbdclient.BlockSize)
		if err := c.Write(b, uint64(i)*131*nbdclient.BlockSize, i%7 == 0); err != nil {
			d.t.Fatal(fmt.Errorf("nbd write %d: %w", i, err))
		}
	}
}
