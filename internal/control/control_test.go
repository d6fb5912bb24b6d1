package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// handlerFunc is a Handler.
type handlerFunc func(ctx context.Context, req *Request, send func(any) error) error

func (f handlerFunc) Handle(ctx context.Context, req *Request, send func(any) error) error {
	return f(ctx, req, send)
}

func serveTest(t *testing.T, h handlerFunc) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sub", "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, h, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &Client{Path: path}
}

func TestCommand(t *testing.T) {
	vol := uint16(3)
	c := serveTest(t, func(_ context.Context, req *Request, send func(any) error) error {
		if req.Command == "fail" {
			return Errorf(ExitNoData, "%s: State change failed: (-2) Need access to UpToDate data", req.Resource)
		}
		if req.Command == "odd" {
			return errors.New("something else")
		}
		if *req.Volume != vol || !req.Force {
			return fmt.Errorf("request arrived as %+v", req)
		}
		for i := range 3 {
			if err := send(i); err != nil {
				return err
			}
		}
		return nil
	})
	var got []string
	err := c.Do(t.Context(), Request{Command: "x", Volume: &vol, Force: true}, func(raw json.RawMessage) error {
		got = append(got, string(raw))
		return nil
	})
	if err != nil || strings.Join(got, ",") != "0,1,2" {
		t.Errorf("values %v, error %v", got, err)
	}
	for command, want := range map[string]Error{
		"fail": {ExitNoData, "r0: State change failed: (-2) Need access to UpToDate data"},
		"odd":  {ExitUsage, "something else"},
	} {
		var e *Error
		if err := c.Do(t.Context(), Request{Command: command, Resource: "r0"}, nil); !errors.As(err, &e) || *e != want {
			t.Errorf("%s: %v, want %v", command, err, want)
		}
	}
}

func TestBadRequests(t *testing.T) {
	c := serveTest(t, func(context.Context, *Request, func(any) error) error {
		t.Error("a bad request reached the handler")
		return nil
	})
	for name, line := range map[string]string{
		"not json":      "hello\n",
		"other version": `{"version":2,"command":"down"}` + "\n",
		"no version":    `{"command":"down"}` + "\n",
		"too long":      `{"version":1,"command":"` + strings.Repeat("x", 2*maxRequest) + "\n",
		"wrong type":    `{"version":1,"command":"down","volume":-1}` + "\n",
	} {
		conn, err := net.Dial("unix", c.Path)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = conn.Write([]byte(line)) }()
		text, err := bufio.NewReader(conn).ReadBytes('\n')
		var a answer
		if err != nil && name != "too long" { // there the reset may overtake the answer
			t.Errorf("%s: no answer: %v", name, err)
		}
		if err == nil && (json.Unmarshal(text, &a) != nil || !a.Done || a.Exit != ExitUsage || a.Error == "") {
			t.Errorf("%s: answer %s", name, text)
		}
		_ = conn.Close()
	}
}

// A streaming command ends when its client goes.
func TestClientGoes(t *testing.T) {
	ended := make(chan struct{})
	c := serveTest(t, func(ctx context.Context, _ *Request, send func(any) error) error {
		defer close(ended)
		if err := send("hello"); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
	errEnough := errors.New("enough")
	err := c.Do(t.Context(), Request{Command: "events"}, func(json.RawMessage) error { return errEnough })
	if !errors.Is(err, errEnough) {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the command goes on without its client")
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a second daemon on the socket: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as a crash leaves it
	_ = l.Close()
	if l, err = Listen(path); err != nil {
		t.Errorf("a socket that nobody serves: %v", err)
	} else {
		_ = l.Close()
	}
	if err := (&Client{Path: path + ".none"}).Do(t.Context(), Request{}, nil); err == nil {
		t.Error("no socket, no error")
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add([]byte(`{"version":1,"command":"primary","resource":"r0"}` + "\n"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		req, err := readRequest(bytes.NewReader(data))
		if err == nil && req.Version != Version {
			t.Errorf("version %d was accepted", req.Version)
		}
	})
}

func TestSplitState(t *testing.T) {
	for cs, want := range map[string][2]string{
		"StandAlone": {"StandAlone", "Off"}, "WFConnection": {"Connecting", "Off"}, "WFReportParams": {"Connected", "Off"},
		"Connected": {"Connected", "Established"}, "SyncSource": {"Connected", "SyncSource"}, "Ahead": {"Connected", "Ahead"},
	} {
		if c, r := SplitState(cs); c != want[0] || r != want[1] {
			t.Errorf("%s: %s %s, want %v", cs, c, r, want)
		}
	}
}

// The examples of spec/ecosystem.md 2.3: a Secondary with a connected peer, both copies
// good, has 10202.
func TestPromotion(t *testing.T) {
	r := Resource{Up: true, Role: "Secondary", PeerRole: "Secondary", Volumes: []Volume{{Disk: "UpToDate", PeerDisk: "UpToDate"}}}
	if got := r.PromotionScore(); got != 10202 || !r.MayPromote() {
		t.Errorf("both good: %d, %v", got, r.MayPromote())
	}
	r.Volumes[0].Disk, r.PeerRole = "Diskless", "Primary"
	if got := r.PromotionScore(); got != 101 || r.MayPromote() {
		t.Errorf("diskless beside a Primary: %d, %v", got, r.MayPromote())
	}
}
