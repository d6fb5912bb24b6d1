package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/aoe"
)

// These tests run what Debian ships around its vblade, unchanged, around ours.

// discovered says that e<shelf>.<slot> answers and has the contents of image.
func discovered(t *testing.T, n nets, shelf uint16, slot uint8, sectors uint64) {
	t.Helper()
	c := n.initiator(t, shelf, slot)
	if _, err := find(c); err != nil {
		t.Fatalf("e%d.%d does not answer: %v", shelf, slot, err)
	}
	_, b, err := c.ATA(aoe.ATA{Command: aoe.ATARead, Count: 2, LBA: sectors - 2}, nil)
	if err != nil || string(b[:1024]) != string(pattern(int(sectors)-2, 2)) {
		t.Errorf("e%d.%d: read: %v, or wrong data", shelf, slot, err)
	}
}

// pidOf waits until a file has a start-up line, and returns its pid and the line.
func pidOf(t *testing.T, path string) (pid int, line string) {
	t.Helper()
	eventually(t, "no start-up line in "+path, func() bool {
		text, _ := os.ReadFile(path)
		m := regexp.MustCompile(`pid (\d+): .*`).FindStringSubmatch(string(text))
		if m != nil {
			_, _ = fmt.Sscan(m[1], &pid)
			line = m[0]
		}
		return m != nil
	})
	return pid, line
}

// end sends SIGTERM to a process that is not our child, and waits for its end.
func end(t *testing.T, pid int) {
	t.Helper()
	_ = syscall.Kill(pid, syscall.SIGTERM)
	defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }() // should it not have ended
	eventually(t, fmt.Sprintf("pid %d does not end on SIGTERM", pid), func() bool { return syscall.Kill(pid, 0) != nil })
}

// TestVbladed starts us through vbladed, which passes its arguments on and our
// output to logger.
func TestVbladed(t *testing.T) {
	unraced(t)
	n, path, bin := newNets(t, 1500), image(t, sectors), build(t)
	dir := filepath.Dir(bin) // vbladed looks for vblade beside itself
	script, err := os.ReadFile("/usr/sbin/vbladed")
	if err != nil {
		t.Fatalf("apt-get install vblade: %v", err)
	}
	log := filepath.Join(dir, "log")
	for name, text := range map[string]string{"vbladed": string(script), "logger": "#!/bin/sh\necho \"args: $*\" >>" + log + "\nexec cat >>" + log + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("ip", "netns", "exec", n.target, filepath.Join(dir, "vbladed"), "-b", "8", "4", "2", "srv", path)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	if err := cmd.Run(); err != nil { // output would be waited for, which the target holds open
		t.Fatalf("vbladed: %v", err)
	}
	pid, line := pidOf(t, log)
	if want := fmt.Sprintf("pid %d: e4.2, %d sectors O_RDWR", pid, sectors); line != want {
		t.Errorf("start-up line %q, want %q", line, want)
	}
	discovered(t, n, 4, 2, sectors)
	if text, _ := os.ReadFile(log); !strings.Contains(string(text), "args: -t vbladed") {
		t.Errorf("logger was not run by vbladed:\n%s", text)
	}
	end(t, pid)
}

// TestSystemdUnit runs the command line of vblade@.service, with its variables from
// the configuration of an instance, as systemd would put it together.
func TestSystemdUnit(t *testing.T) {
	unraced(t)
	n, path, bin := newNets(t, 9000), image(t, sectors), build(t)
	unit, err := os.ReadFile("/lib/systemd/system/vblade@.service")
	if err != nil {
		t.Fatalf("apt-get install vblade: %v", err)
	}
	setting := func(name string) string {
		m := regexp.MustCompile(`(?m)^` + name + `=(.*)$`).FindStringSubmatch(string(unit))
		if m == nil {
			t.Fatalf("the unit has no %s=", name)
		}
		return strings.Trim(m[1], `"`)
	}
	start := setting("ExecStart")
	if !strings.Contains(start, debian) {
		t.Fatalf("ExecStart=%s does not run %s", start, debian)
	}
	conf := filepath.Join(t.TempDir(), "instance.conf")
	text := fmt.Sprintf("shelf=10\nslot=3\nnetif=srv\nfilename=%s\noptions='-m 02:00:00:00:00:02 -o 8'\n", path)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	name, value, _ := strings.Cut(setting("Environment"), "=")
	script := fmt.Sprintf("%s='%s'\n. %s\nexec %s", name, value, conf, strings.ReplaceAll(start, debian, bin))
	s := n.start(t, "sh", "-c", script)
	if !strings.HasSuffix(s.line, fmt.Sprintf(": e10.3, %d sectors O_RDWR", sectors-8)) {
		t.Errorf("start-up line %q", s.line)
	}
	if _, err := find(n.initiator(t, 10, 3)); err != nil {
		t.Error(err)
	}
	if err := s.stop(t); err != nil {
		t.Errorf("stop: %v %s", err, s.stderr)
	}
}

// TestOCFAgent walks the life of a Pacemaker resource with the agent AoEtarget.
func TestOCFAgent(t *testing.T) {
	unraced(t)
	n, path, bin := newNets(t, 1500), image(t, sectors), build(t)
	root, err := filepath.Abs("../../.tools/resource-agents/usr/lib/ocf")
	if err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(root, "resource.d/heartbeat/AoEtarget")
	if _, err := os.Stat(agent); err != nil {
		t.Fatalf("make deps: %v", err)
	}
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "AoEtarget.pid")
	call := func(action string, want int) {
		t.Helper()
		cmd := exec.Command("ip", "netns", "exec", n.target, agent, action)
		cmd.Env = append(os.Environ(), "OCF_ROOT="+root, "OCF_FUNCTIONS_DIR="+root+"/lib/heartbeat", "OCF_RESOURCE_INSTANCE=aoe", "HA_RSCTMP="+dir,
			"__OCF_ACTION="+action, "OCF_RESKEY_device="+path, "OCF_RESKEY_nic=srv", "OCF_RESKEY_shelf=6", "OCF_RESKEY_slot=1",
			"OCF_RESKEY_pid="+pidFile, "OCF_RESKEY_binary="+bin, "HA_LOGFILE="+filepath.Join(dir, "log"))
		// The target inherits the agent's output, which must not be waited for.
		out, err := os.Create(filepath.Join(dir, action+".out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd.Stdout, cmd.Stderr = out, out
		_ = cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != want {
			text, _ := os.ReadFile(out.Name())
			t.Errorf("%s: exit code %d, want %d:\n%s", action, code, want, text)
		}
	}
	const success, notRunning, generic = 0, 7, 1
	call("validate-all", success)
	call("monitor", notRunning)
	call("start", success)
	t.Cleanup(func() { call("stop", success) })
	discovered(t, n, 6, 1, sectors)
	call("monitor", success)
	call("start", success) // a second time changes nothing
	var pid int
	if text, err := os.ReadFile(pidFile); err != nil {
		t.Error(err)
	} else if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Errorf("pid file %q: %v", text, err)
	}
	if pid == 0 || syscall.Kill(pid, syscall.SIGKILL) != nil {
		t.Errorf("pid %d of the pid file cannot be killed", pid)
	}
	for syscall.Kill(pid, 0) == nil {
		time.Sleep(10 * time.Millisecond)
	}
	call("monitor", generic) // the agent's word for a stale pid file
	call("start", success)
	discovered(t, n, 6, 1, sectors)
	call("stop", success)
	call("monitor", notRunning)
}

// TestReaderOfOutputGone: a logger that dies takes nobody with it.
func TestReaderOfOutputGone(t *testing.T) {
	unraced(t)
	n, path, bin := newNets(t, 1500), image(t, sectors), build(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", n.target, bin, "3", "1", "srv", path)
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	_ = w.Close()
	if _, err := io.ReadAtLeast(r, make([]byte, 64), 8); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	ip(t, "-n", n.target, "link", "del", "srv") // makes it say something
	time.Sleep(time.Second)
	n.link(t, 1500)
	discovered(t, n, 3, 1, sectors)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("end: %v", err)
	}
}

// TestWithoutRoot serves with the one capability that raw frames need.
func TestWithoutRoot(t *testing.T) {
	unraced(t)
	n, path, bin := newNets(t, 9000), image(t, sectors), build(t)
	for _, p := range []string{path, bin} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{filepath.Dir(p), filepath.Dir(filepath.Dir(p))} {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := n.start(t, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+net_raw",
		"--ambient-caps=-all,+net_raw", "--bounding-set=-all,+net_raw", bin, "-s", "9", "1", "srv", path)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil || !strings.Contains(string(status), "CapEff:\t0000000000002000") || !strings.Contains(string(status), "Uid:\t65534") {
		t.Fatalf("not what was to be tested: %v\n%s", err, status)
	}
	discovered(t, n, 9, 1, sectors)
	if err := s.stop(t); err != nil {
		t.Errorf("stop: %v %s", err, s.stderr)
	}
}
