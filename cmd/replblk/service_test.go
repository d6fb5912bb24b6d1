package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/internal/loopback"
)

// The daemon tells systemd when it is ready and when it stops, and serves metrics in
// between. SIGHUP does not end it.
func TestService(t *testing.T) {
	t.Parallel()
	addr := loopback.Address()
	a, _ := newPair(t, pairOptions{raced: true, rest: "metrics { listen \"" + addr + "\"; }\n"})
	notes, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: a.path(".notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notes.Close()
	read := func() string {
		buf := make([]byte, 256)
		_ = notes.SetReadDeadline(time.Now().Add(patient))
		n, err := notes.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	a.env = []string{"NOTIFY_SOCKET=" + a.path(".notify"), "PATH=" + os.Getenv("PATH")}
	a.start()
	if got := read(); got != "READY=1" {
		t.Errorf("first note %q", got)
	}
	res, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	for _, want := range []string{"drbdreactor_up 1", `drbd_device_state{drbd_device_state="Inconsistent",minor="7",name="r0",volume="0"} 1`, "go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if promtool, err := exec.LookPath("promtool"); err == nil {
		check := exec.Command(promtool, "check", "metrics")
		check.Stdin = strings.NewReader(string(text))
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("promtool check metrics: %v\n%s", err, out)
		}
	}
	_ = a.cmd.Process.Signal(syscall.SIGHUP)
	a.must("status", "r0")
	if err := a.end(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if got := read(); got != "STOPPING=1" {
		t.Errorf("last note %q", got)
	}
	for _, left := range []string{a.path(".ctl"), a.path(".nbd")} {
		if _, err := os.Stat(left); err == nil {
			t.Errorf("%s was left behind", left)
		}
	}
}
