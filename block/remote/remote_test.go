package remote

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/faulty"
	"github.com/replblk/replblk/block/mem"
	"github.com/replblk/replblk/nbd"
	"github.com/replblk/replblk/nbd/wire"
)

const patience = time.Minute

// serve exports d with our own server and returns the URI.
func serve(t *testing.T, d block.Device, readOnly bool) string {
	t.Helper()
	s := nbd.NewServer(nbd.Options{})
	if err := s.Add(nbd.Export{Name: "r0", Device: d, ReadOnly: readOnly}); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(t.Context(), l)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		_ = s.Shutdown(ctx)
	})
	return "nbd+unix:///r0?socket=" + sock
}

func open(t *testing.T, uri string) *Device {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	d, err := Open(ctx, uri, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// TestAgainstACopy sends random requests, many at a time, and compares with what
// is behind the server.
func TestAgainstACopy(t *testing.T) {
	const sectors, workers = 4096, 16
	m := mem.NewVolatile(sectors)
	d := open(t, serve(t, m, false))
	if g := d.Geometry(); g.Sectors != sectors || g.ReadOnly || g.LogicalBlock != 512 || !g.Discard {
		t.Errorf("geometry %+v", g)
	}
	want := make([]byte, sectors*512)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			const part = sectors / workers
			for range 200 {
				at := uint64(w*part) + rnd.Uint64N(part-8)
				n := 1 + rnd.Uint64N(8)
				mine := want[at*512 : (at+n)*512]
				var err error
				switch rnd.IntN(5) {
				case 0, 1:
					for i := range mine {
						mine[i] = byte(rnd.Uint32())
					}
					err = block.Do(d, &block.Request{Op: block.Write, Flags: block.FUA * block.Flags(rnd.IntN(2)), Sector: at, Sectors: uint32(n), Data: mine})
				case 2:
					clear(mine)
					err = block.Do(d, &block.Request{Op: block.WriteZeroes, Flags: block.NoHole, Sector: at, Sectors: uint32(n)})
				case 3:
					err = block.FlushAll(d)
				default:
					got := make([]byte, len(mine))
					if err = block.ReadAt(d, got, at); err == nil && !bytes.Equal(got, mine) {
						t.Errorf("worker %d: sector %d differs", w, at)
					}
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if !bytes.Equal(m.Contents(), want) {
		t.Error("the contents differ at the end")
	}
	if err := block.Do(d, &block.Request{Op: block.Discard, Sector: 0, Sectors: 8}); err != nil {
		t.Error(err)
	}
	if err := block.ReadAt(d, make([]byte, 512), sectors); block.Errno(err) != syscall.EINVAL {
		t.Errorf("read beyond the end: %v", err)
	}
}

func TestErrorsOfTheServer(t *testing.T) {
	for _, c := range []struct{ err, want syscall.Errno }{{syscall.EIO, syscall.EIO}, {syscall.ENOSPC, syscall.ENOSPC}, {syscall.EROFS, syscall.EROFS}} {
		f := faulty.New(mem.NewVolatile(64), faulty.Rule{Ops: []block.Op{block.Write}, Count: 1, Err: c.err})
		d := open(t, serve(t, f, false))
		if err := block.WriteAt(d, make([]byte, 512), 0); block.Errno(err) != c.want {
			t.Errorf("%v at the server: %v", c.err, err)
		}
		if err := block.WriteAt(d, make([]byte, 512), 0); err != nil {
			t.Errorf("the next write: %v", err)
		}
	}
}

// TestLost: what was not answered fails with the error that says "not now", and so
// does everything later; nobody waits for ever.
func TestLost(t *testing.T) {
	f := faulty.New(mem.NewVolatile(64), faulty.Rule{Hold: true})
	d := open(t, serve(t, f, false))
	failed := make(chan error, 2*maxInflight)
	for range 2 * maxInflight { // half of them wait for room
		go func() { failed <- block.WriteAt(d, make([]byte, 512), 0) }()
	}
	for end := time.Now().Add(patience); f.Held() < maxInflight; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d requests reached the server, want %d", f.Held(), maxInflight)
		}
	}
	_ = d.conn.(*net.UnixConn).CloseRead()
	for range 2 * maxInflight {
		select {
		case err := <-failed:
			if block.Errno(err) != syscall.ESHUTDOWN {
				t.Fatalf("after the loss: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("a request never ends")
		}
	}
	<-d.Lost()
	if d.Err() == nil {
		t.Error("no reason for the loss")
	}
	if err := block.FlushAll(d); block.Errno(err) != syscall.ESHUTDOWN {
		t.Errorf("later: %v", err)
	}
	f.Release()
}

func TestOpenRefuses(t *testing.T) {
	uri := serve(t, mem.NewVolatile(64), true)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := Open(ctx, uri, false); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a read-only export for writing: %v", err)
	}
	d, err := Open(ctx, uri, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := block.WriteAt(d, make([]byte, 512), 0); block.Errno(err) != syscall.EROFS {
		t.Errorf("write: %v", err)
	}
	_ = d.Close()
	for _, bad := range []string{
		"nbd:///x", "nbds://h/x", "nbd+unix:///x", "http://h/x", "nbd+unix:///x?socket=/nonexistent/s", "nbd://%zz/",
		"nbd://h/" + string(bytes.Repeat([]byte{'a'}, 5000)), uri[:len("nbd+unix:///")] + "other" + uri[len("nbd+unix:///r0"):],
	} {
		if _, err := Open(ctx, bad, false); err == nil {
			t.Errorf("%.40s: opened", bad)
		}
	}
}

// hostile answers a client with whatever a test wants, and returns its URI.
func hostile(t *testing.T, talk func(c net.Conn)) string {
	t.Helper()
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		talk(c)
		_, _ = io.Copy(io.Discard, c)
	}()
	return "nbd+unix:///x?socket=" + sock
}

const hello = "NBDMAGICIHAVEOPT\x00\x03"

func optReply(typ uint32, data string) string {
	p := binary.BigEndian.AppendUint64(nil, wire.MagicOptionReply)
	p = binary.BigEndian.AppendUint32(p, wire.OptGo)
	p = binary.BigEndian.AppendUint32(p, typ)
	p = binary.BigEndian.AppendUint32(p, uint32(len(data)))
	return string(p) + data
}

func exportInfo(size uint64, flags uint16) string {
	p := binary.BigEndian.AppendUint16(nil, wire.InfoExport)
	return string(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint64(p, size), flags))
}

func TestHostileHandshake(t *testing.T) {
	for name, text := range map[string]string{
		"silence":         "",
		"garbage":         "GET / HTTP/1.0\r\n\r\n\r\n",
		"old style":       "NBDMAGICIHAVEOPT\x00\x00",
		"no size":         hello + optReply(wire.RepAck, ""),
		"TLS":             hello + optReply(wire.RepErrTLSReqd, ""),
		"refusal":         hello + optReply(wire.RepError+6, "no"),
		"huge reply":      hello + optReply(wire.RepInfo, "")[:16] + "\xff\xff\xff\xff",
		"blocks of 4096":  hello + optReply(wire.RepInfo, exportInfo(4096, 1)) + optReply(wire.RepInfo, "\x00\x03\x00\x00\x10\x00\x00\x00\x10\x00\x01\x00\x00\x00") + optReply(wire.RepAck, ""),
		"nothing in it":   hello + optReply(wire.RepInfo, exportInfo(0, 1)) + optReply(wire.RepAck, ""),
		"half an answer":  hello + optReply(wire.RepInfo, exportInfo(4096, 1))[:25],
		"too short infos": hello + optReply(wire.RepInfo, "\x00") + optReply(wire.RepInfo, "") + optReply(wire.RepAck, ""),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if _, err := Open(ctx, hostile(t, func(c net.Conn) { _, _ = io.WriteString(c, text) }), false); err == nil {
			t.Errorf("%s: opened", name)
		}
		cancel()
	}
}

// TestHostileReplies: an answer to nothing ends the connection, before anything is
// completed by it.
func TestHostileReplies(t *testing.T) {
	reply := func(magic, code uint32, cookie uint64) string {
		p := binary.BigEndian.AppendUint32(nil, magic)
		return string(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(p, code), cookie))
	}
	good := uint64(1)<<32 | maxInflight - 1 // the first request
	for name, text := range map[string]string{
		"wrong magic":   reply(1, 0, good),
		"wrong cookie":  reply(wire.MagicSimpleReply, 0, good+1),
		"an old cookie": reply(wire.MagicSimpleReply, 0, good+1<<32),
		"short data":    reply(wire.MagicSimpleReply, 0, good) + "data",
		"twice":         reply(wire.MagicSimpleReply, 5, good) + reply(wire.MagicSimpleReply, 5, good),
	} {
		d := open(t, hostile(t, func(c net.Conn) {
			_, _ = io.WriteString(c, hello+optReply(wire.RepInfo, exportInfo(4096, 1))+optReply(wire.RepAck, ""))
			_, _ = io.CopyN(io.Discard, c, 4+16+4+1+2+2+wire.RequestSize)
			_, _ = io.WriteString(c, text)
			_ = c.(*net.UnixConn).CloseWrite()
		}))
		if err := block.ReadAt(d, make([]byte, 512), 0); err == nil {
			t.Errorf("%s: the read succeeded", name)
		}
		select {
		case <-d.Lost():
		case <-time.After(patience):
			t.Errorf("%s: the connection is still in use", name)
		}
	}
}

// TestFUAWithoutFUA: a server that only knows FLUSH gets one behind the write.
func TestFUAWithoutFUA(t *testing.T) {
	commands := make(chan uint16, 8)
	d := open(t, hostile(t, func(c net.Conn) {
		_, _ = io.WriteString(c, hello+optReply(wire.RepInfo, exportInfo(4096, 1|wire.FlagFlush))+optReply(wire.RepAck, ""))
		_, _ = io.CopyN(io.Discard, c, 4+16+4+1+2+2)
		for {
			var p [wire.RequestSize]byte
			if _, err := io.ReadFull(c, p[:]); err != nil {
				return
			}
			cmd := binary.BigEndian.Uint16(p[6:])
			if cmd == wire.CmdWrite {
				_, _ = io.CopyN(io.Discard, c, 512)
			}
			commands <- cmd
			_, _ = c.Write(append(binary.BigEndian.AppendUint32(nil, wire.MagicSimpleReply), append([]byte{0, 0, 0, 0}, p[8:16]...)...))
		}
	}))
	if err := block.Do(d, &block.Request{Op: block.Write, Flags: block.FUA, Sectors: 1, Data: make([]byte, 512)}); err != nil {
		t.Fatal(err)
	}
	if a, b := <-commands, <-commands; a != wire.CmdWrite || b != wire.CmdFlush {
		t.Errorf("commands %d, %d", a, b)
	}
	if err := block.Do(d, &block.Request{Op: block.Discard, Sectors: 1}); err != nil || len(commands) != 0 {
		t.Errorf("a discard that the server does not have: %v, %d commands", err, len(commands))
	}
}
