package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/aoetest"
)

func TestArguments(t *testing.T) {
	set, err := arguments([]string{"--state", "/s", "--metrics", "[::1]:9", "-r", "7", "3", "eth0", "disk"})
	if err != nil || set.metrics != "[::1]:9" || len(set.exports) != 1 || set.exports[0].state != "/s/e7.3.json" || !set.exports[0].readOnly {
		t.Errorf("%+v, %v", set, err)
	}
	for _, args := range [][]string{{"--metrics"}, {"--state", "", "7", "3", "eth0", "disk"}, {"7", "3", "eth0", "disk", "--state", "/s"}} {
		if set, err := arguments(args); !errors.Is(err, errUsage) {
			t.Errorf("%q: %+v, %v, want a usage error", args, set, err)
		}
	}
}

// What is answered with -s is more than what a process that is killed leaves.
func TestMapsUnlessDurable(t *testing.T) {
	for _, c := range []struct {
		args []string
		want bool
	}{
		{[]string{"7", "3", "eth0", "disk"}, true},
		{[]string{"-s", "7", "3", "eth0", "disk"}, false},
	} {
		set, err := arguments(c.args)
		if err != nil {
			t.Fatal(err)
		}
		if got := set.exports[0].fileOptions().Map; got != c.want {
			t.Errorf("%q: Map is %v", c.args, got)
		}
	}
}

// TestKeepsState: what initiators set outlives the process, but not the mask list of the
// command line.
func TestKeepsState(t *testing.T) {
	unraced(t)
	n, path, dir := newNets(t, 1500), image(t, sectors), filepath.Join(t.TempDir(), "state")
	other := aoe.MAC{2, 0, 0, 0, 0, 9}
	srv := n.start(t, build(t), "--state", dir, "7", "3", "srv", path)
	c := n.initiator(t, 7, 3)
	if _, err := find(c); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Config(aoe.ConfigSet, "kept"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Reserve(aoe.ReserveSet, other); err != nil {
		t.Fatal(err)
	}
	if err := srv.stop(t); err != nil {
		t.Fatal(err)
	}

	srv = n.start(t, build(t), "--state", dir, "-m", "020000000002", "7", "3", "srv", path)
	a, err := find(c)
	if err != nil || string(a.String) != "kept" {
		t.Errorf("config %q, %v, want what was set before", a.String, err)
	}
	if _, _, err := c.ATA(aoe.ATA{Command: aoe.ATARead, Count: 1}, nil); !errors.Is(err, aoetest.AoEError(aoe.ErrReserved)) {
		t.Errorf("read: %v, want that it is reserved for another", err)
	}
	if err := srv.stop(t); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(dir, "e7.3.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = run(t.Context(), []string{"--state", dir, "7", "3", "lo", path}, &out, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "e7.3.json") {
		t.Errorf("damaged state: %v, want an error that names the file", err)
	}
}

// TestMetrics: the export and its initiator are counted.
func TestMetrics(t *testing.T) {
	n, path := newNets(t, 1500), image(t, sectors)
	ip(t, "-n", n.target, "link", "set", "lo", "up")
	n.start(t, build(t), "--metrics", "127.0.0.1:9942", "7", "3", "srv", path)
	c := n.initiator(t, 7, 3)
	if _, err := find(c); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ATA(aoe.ATA{Flags: aoe.ATAFlagWrite, Command: aoe.ATAWrite, Count: 2}, make([]byte, 1024)); err != nil {
		t.Fatal(err)
	}
	text := n.get(t, "127.0.0.1:9942", "/metrics")
	l := `name="` + regexp.QuoteMeta(path) + `",shelf="7",slot="3",volume="0"`
	for _, want := range []string{
		`aoe_serving\{` + l + `\} 1`,
		`aoe_bytes_total\{dir="write",` + l + `\} 1024`,
		`aoe_request_seconds_count\{` + l + `\} [1-9]`,
		`aoe_interface_up\{interface="srv",` + l + `\} 1`,
		`aoe_initiator_requests_total\{cmd="write",initiator="02:00:00:00:00:02",` + l + `\} 1`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no %s in the metrics", want)
		}
	}
	if t.Failed() {
		lines := slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return !strings.HasPrefix(l, "aoe_") })
		t.Log(strings.Join(lines, "\n"))
	}
}

// get returns a page of a server in the target's namespace.
func (n nets) get(t *testing.T, addr, page string) string {
	t.Helper()
	var conn net.Conn
	err := aoetest.Inside(n.target, func() (err error) {
		conn, err = net.DialTimeout("tcp", addr, patience)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}}
	r, err := client.Get("http://" + addr + page)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", r.Status, err)
	}
	return string(b)
}
