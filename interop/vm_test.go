//go:build interop

package interop

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A machine under software emulation on a loaded host is slow; these are not
// expectations but the point where a test gives up.
const (
	bootTimeout    = 6 * time.Minute
	commandTimeout = 2 * time.Minute
)

// Sizes of the disks, with internal metadata. The big ones are sparse, for what depends
// on the size of the bitmap.
const (
	diskSize    = 128 << 20
	smallSize   = 32 << 20 // for what copies all of it, or reads all of it, several times
	bigDiskSize = 4 << 30
	secondSize  = 64 << 20 // of volume 1, if there is one
)

// machine is the one that all tests share. A boot takes as long as a scenario, and a
// scenario leaves nothing behind except what `drbdadm down` forgets.
var machine *vm

// vm is a booted machine.
type vm struct {
	dir      string   // console.log, qemu.log, sockets
	hardware []string // what qemu is to emulate
	first    string   // the first command, which must succeed
	said     string   // what it printed
	disk     string   // file behind /dev/vda
	big      string   // file behind /dev/vdb
	cmd      *exec.Cmd
	done     chan struct{} // closed when the machine has ended

	mu    sync.Mutex
	shell net.Conn // guarded by mu
	lines chan string
	serno int // of the last command
}

// boot makes the disks of the shared machine, starts it and waits for its shell.
func boot(lab, dir string) (*vm, error) {
	v := &vm{dir: dir, disk: filepath.Join(dir, "kernel.img"), big: filepath.Join(dir, "kernel-big.img"),
		first: "modprobe drbd && echo Linux $(uname -r), drbd $(head -n2 /proc/drbd)"}
	v.hardware = slices.Concat([]string{"-m", "640"}, fromRAM(lab, "machine=kernel address="+kernelIP+"/24"),
		nic(0, tapName), nic(1, aoeTap),
		drive(diskID, v.disk), drive(bigID, v.big))
	if err := errors.Join(newImage(v.disk, diskSize), newImage(v.big, bigDiskSize)); err != nil {
		return nil, err
	}
	return v, v.start()
}

// kernelWords are parameters of the machine's kernel. One that checks its timers does so against the
// clock of a host that may be busy: it panics, reports stalls, or changes to a clock whose every
// reading leaves the emulated processor. The second line is without what protects a kernel from its
// users, of whom there are none.
const kernelWords = "console=ttyS0 panic=-1 net.ifnames=0 no_timer_check tsc=reliable nowatchdog rcupdate.rcu_cpu_stall_suppress=1 printk.devkmsg=on " +
	"mitigations=off nokaslr norandmaps init_on_alloc=0 hardened_usercopy=off audit=0 lsm= "

// fromRAM boots the kernel and the initramfs that lab/setup.sh has prepared.
func fromRAM(lab, words string) []string {
	return []string{"-kernel", filepath.Join(lab, "vmlinux"), "-initrd", filepath.Join(lab, "initrd"),
		"-append", kernelWords + words}
}

// drive is a disk of the machine; id names it for the monitor. A flush need not reach the host's own
// disk: what a machine has written outlives it when its process is killed.
func drive(id, file string) []string {
	return []string{"-drive", "id=" + id + ",file=" + file + ",if=virtio,format=raw,cache=unsafe,discard=unmap"}
}

// nic is the machine's interface eth<n> on a tap device, with an address that no other
// machine's interface has.
func nic(n int, tap string) []string {
	return []string{"-netdev", fmt.Sprintf("tap,id=n%d,ifname=%s,script=no,downscript=no", n, tap),
		"-device", fmt.Sprintf("virtio-net-pci,netdev=n%d,mac=52:54:00:00:00:0%c", n, tap[len(tap)-1])}
}

// start powers the machine up, which the disks survive.
func (v *vm) start() error {
	v.shell, v.done, v.lines = nil, make(chan struct{}), make(chan string, 1024)
	sock := filepath.Join(v.dir, "shell.sock")
	_ = os.Remove(sock)
	v.cmd = exec.Command("qemu-system-x86_64", append([]string{
		"-accel", "tcg,thread=multi", "-smp", "1", "-display", "none", "-no-reboot", "-monitor", "none",
		"-serial", "chardev:console", "-chardev", "file,id=console,append=on,path=" + v.console(),
		"-serial", "unix:" + sock + ",server=on,wait=off",
		"-qmp", "unix:" + v.monitor() + ",server=on,wait=off",
	}, v.hardware...)...)
	out, err := os.OpenFile(filepath.Join(v.dir, "qemu.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	v.cmd.Stdout, v.cmd.Stderr = out, out
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := v.cmd.Start(); err != nil {
		return err
	}
	go func(cmd *exec.Cmd, done chan struct{}) { _ = cmd.Wait(); close(done) }(v.cmd, v.done) // how it ended is in cmd
	if err := v.connect(sock); err != nil {
		v.halt()
		return err
	}
	return nil
}

// Names of /dev/vda and /dev/vdb for the monitor.
const (
	diskID = "disk0"
	bigID  = "disk1"
)

func (v *vm) monitor() string { return filepath.Join(v.dir, "qmp.sock") }
func (v *vm) console() string { return filepath.Join(v.dir, "console.log") }

// resize gives a disk another size while the machine runs, and the file behind it.
func (v *vm) resize(id string, size int64) error {
	c, err := net.Dial("unix", v.monitor())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(commandTimeout)); err != nil {
		return err
	}
	answers := json.NewDecoder(c)
	for _, cmd := range []string{"", `{"execute":"qmp_capabilities"}`,
		fmt.Sprintf(`{"execute":"block_resize","arguments":{"device":%q,"size":%d}}`, id, size)} {
		if _, err := c.Write([]byte(cmd)); err != nil {
			return err
		}
		var a struct{ QMP, Return, Error, Event json.RawMessage }
		for a.QMP == nil && a.Return == nil { // events come in between
			if err := answers.Decode(&a); err != nil {
				return err
			}
			if a.Error != nil {
				return fmt.Errorf("%s: %s", cmd, a.Error)
			}
		}
	}
	return nil
}

// connect waits until the machine's shell answers and has carried out the first command.
func (v *vm) connect(sock string) error {
	deadline := time.Now().Add(bootTimeout)
	for v.shell == nil {
		c, err := net.Dial("unix", sock)
		switch {
		case err == nil:
			v.shell = c
		case time.Now().After(deadline):
			return fmt.Errorf("machine: %w", err)
		default:
			time.Sleep(50 * time.Millisecond)
		}
	}
	go read(v.shell, v.lines)
	if err := v.ready(time.Until(deadline)); err != nil {
		return err
	}
	out, code, err := v.run(v.first, commandTimeout)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s: %s", v.first, out)
	}
	v.said = out
	return err
}

// ready waits for the line that says that the shell reads.
func (v *vm) ready(limit time.Duration) error {
	timeout := time.After(limit)
	for {
		select {
		case line := <-v.lines:
			if strings.HasSuffix(line, "@ready@") {
				return nil
			}
		case <-v.done:
			return v.ended()
		case <-timeout:
			return errors.New("machine does not answer")
		}
	}
}

// read delivers what the shell prints, until the machine ends.
func read(shell net.Conn, lines chan<- string) {
	s := bufio.NewScanner(shell)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		lines <- s.Text()
	}
	close(lines)
}

// send asks the shell for a command (lab/init says how), and returns how the answer will be marked. The
// empty line stands in for an end of line that is lost.
func (v *vm) send(cmd string) (mark string, err error) {
	v.serno++
	_, err = fmt.Fprintf(v.shell, "%d %d %d %d\n%s\n\n", v.serno, strings.Count(cmd, "\n")+1, len(cmd)+1, v.serno, cmd)
	return fmt.Sprintf("@%d@", v.serno), err
}

// run carries out a command as root in the machine and returns what it printed and
// its exit code.
func (v *vm) run(cmd string, limit time.Duration) (string, int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	mark, err := v.send(cmd)
	if err != nil {
		return "", 0, err
	}
	var out []string
	timeout := time.After(limit)
	for {
		select {
		case line, ok := <-v.lines:
			if !ok {
				return "", 0, errors.New("machine's shell has ended")
			}
			if code, found := strings.CutPrefix(line, mark+" "); found {
				n, err := strconv.Atoi(strings.TrimSpace(code))
				return strings.TrimRight(strings.Join(out, "\n"), "\n"), n, err
			}
			if line == "@again@" {
				if mark, err = v.send(cmd); err != nil {
					return "", 0, err
				}
				continue
			}
			out = append(out, line)
		case <-v.done:
			return "", 0, v.ended()
		case <-timeout:
			return strings.Join(out, "\n"), 0, fmt.Errorf("%q: no answer for %v", cmd, limit)
		}
	}
}

// ended says how the machine's process has ended, which it must have.
func (v *vm) ended() error {
	<-v.done
	return fmt.Errorf("machine has ended: %v", v.cmd.ProcessState)
}

// halt takes the power away.
func (v *vm) halt() {
	_ = v.cmd.Process.Kill()
	<-v.done
}

// newImage makes an empty disk.
func newImage(path string, size int64) error {
	_ = os.Remove(path)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}
