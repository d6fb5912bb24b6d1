package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The two machines. Names and addresses are those of the configuration.
var (
	nodeNames = [2]string{"a", "b"}
	addresses = [2]string{"10.99.0.1", "10.99.0.2"}
)

// commandTimeout is where a command in a machine is given up.
const commandTimeout = 3 * time.Minute

// machine is a virtual machine under software emulation.
type machine struct {
	name   string
	cmd    *exec.Cmd
	done   chan struct{} // closed when it has ended
	socket string        // of its second serial line
	shell  net.Conn
	lines  *bufio.Scanner
	number int // of the last command
}

// boot powers a machine up.
func boot(ctx context.Context, p plan, lab, initrd, scratch, name string, i int) (*machine, error) {
	disk := filepath.Join(scratch, name+".img")
	f, err := os.Create(disk)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(p.size), f.Close()); err != nil {
		return nil, err
	}
	m := &machine{name: name, done: make(chan struct{}), socket: filepath.Join(scratch, name+".sock")}
	m.cmd = exec.CommandContext(ctx, "qemu-system-x86_64", //nolint:gosec // no input from outside
		"-accel", "tcg,thread=multi", "-m", "768", "-smp", "1", "-display", "none", "-no-reboot", "-monitor", "none",
		"-kernel", filepath.Join(lab, "vmlinuz"), "-initrd", initrd,
		"-append", "console=ttyS0 panic=-1 no_timer_check net.ifnames=0 tsc=reliable machine="+name+" address="+addresses[i]+"/24",
		"-serial", "file:"+filepath.Join(p.out, "vm-"+name+".console.log"),
		"-serial", "unix:"+m.socket+",server=on,wait=off",
		"-netdev", "tap,id=n0,ifname=tap"+name+",script=no,downscript=no", "-device", fmt.Sprintf("virtio-net-pci,netdev=n0,mac=52:54:00:99:00:%02x", i+1),
		"-drive", "file="+disk+",if=virtio,format=raw,cache=writeback,discard=unmap")
	m.cmd.Stderr = os.Stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = m.cmd.Wait(); close(m.done) }()
	return m, m.dial()
}

// dial connects to the shell's line, at once: what it says to nobody is lost.
func (m *machine) dial() error {
	for deadline := time.Now().Add(commandTimeout); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("unix", m.socket)
		if err == nil {
			m.shell, m.lines = c, bufio.NewScanner(c)
			m.lines.Buffer(nil, 1<<20)
			return nil
		}
		if time.Now().After(deadline) {
			m.halt()
			return err
		}
	}
}

func (m *machine) halt() {
	_ = m.cmd.Process.Kill()
	<-m.done
}

// ready waits until the shell reads.
func (m *machine) ready() error {
	if err := m.shell.SetReadDeadline(time.Now().Add(commandTimeout)); err != nil {
		return err
	}
	for m.lines.Scan() {
		if strings.HasSuffix(m.lines.Text(), "@ready@") {
			return nil
		}
	}
	return fmt.Errorf("machine %s does not answer: %w", m.name, errors.Join(m.lines.Err(), errEnded))
}

var errEnded = errors.New("it has ended")

// run carries out a script as root and returns what it printed. A script that fails is an
// error.
func (m *machine) run(script string) (string, error) {
	m.number++
	mark := fmt.Sprintf("@%d@ ", m.number)
	if err := m.shell.SetDeadline(time.Now().Add(commandTimeout)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(m.shell, "%d %s\n", m.number, base64.StdEncoding.EncodeToString([]byte(script+"\n"))); err != nil {
		return "", err
	}
	var out strings.Builder
	for m.lines.Scan() {
		if code, ok := strings.CutPrefix(m.lines.Text(), mark); ok {
			if code = strings.TrimSpace(code); code != "0" {
				return "", fmt.Errorf("%s: exit code %s of\n%s\n%s", m.name, code, script, out.String())
			}
			return out.String(), nil
		}
		out.WriteString(m.lines.Text() + "\n")
	}
	return "", fmt.Errorf("%s: no answer to\n%s\n%s: %w", m.name, script, out.String(), errors.Join(m.lines.Err(), errEnded))
}

// extraTools are what the lab's machine does not have. replblk comes with them.
const extraTools = "nbd-client"

// buildInitrd appends to the lab's archive, which a kernel unpacks one after the other.
func buildInitrd(ctx context.Context, p plan, lab, scratch string) (string, error) {
	path := filepath.Join(scratch, "initrd")
	//nolint:gosec // no input from outside
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", `
		export PATH=$PATH:/usr/sbin:/sbin
		mkdir -p root/usr/bin root/lib
		cp "$REPLBLK" root/usr/bin/replblk
		cp "$LAB"/kernel/lib/modules/*/kernel/drivers/block/nbd.ko root/lib/
		for tool in $TOOLS; do
			path=$(command -v "$tool")
			for f in "$path" $(ldd "$path" | grep -oE '/[^ )]+'); do
				mkdir -p "root$(dirname "$f")"
				cp -L "$f" "root$f"
			done
		done
		(cd root && find . | cpio -o -H newc --quiet | gzip -1) | cat "$LAB/initrd" - >initrd
		rm -r root`)
	program, err := filepath.Abs(p.replblk)
	if err != nil {
		return "", err
	}
	cmd.Dir = scratch
	cmd.Env = append(os.Environ(), "LAB="+lab, "REPLBLK="+program, "TOOLS="+extraTools)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("initrd: %w: %s", err, out)
	}
	return path, nil
}
