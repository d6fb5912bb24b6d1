package node

import (
	"bytes"
	"testing"

	"github.com/replblk/replblk/node/transport"
	"github.com/replblk/replblk/replication/wire"
)

// TestIncomingDigest: the peer's P_PROTOCOL says which digest its data has from the next
// packet on, and P_PROTOCOL_UPDATE changes it.
func TestIncomingDigest(t *testing.T) {
	var stream bytes.Buffer
	session := wire.Session{Version: wire.VersionMax}
	packet := func(cmd wire.Command, body, bulk []byte) {
		stream.Write(wire.AppendHeader(nil, wire.Header100, 0, cmd, uint32(len(body)+len(bulk))))
		stream.Write(body)
		stream.Write(bulk)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 256)
	var sums digests
	send := func(alg wire.Algorithm, damage bool) {
		body := (&wire.Data{Sector: 8, BlockID: 1, Seq: 1}).AppendTo(nil)
		bulk := bytes.Clone(data)
		if alg != 0 {
			body = sums.sum(body, alg, bulk)
		}
		if damage {
			bulk[100] ^= 1
		}
		packet(wire.CmdData, body, bulk)
	}
	for _, cmd := range []wire.Command{wire.CmdProtocol, wire.CmdProtocolUpdate} {
		for _, name := range []string{"", "crc32c", "sha512"} {
			alg := wire.AlgorithmOf(name)
			packet(cmd, (&wire.Protocol{Protocol: 3, IntegrityAlg: name}).AppendTo(nil, session), nil)
			send(alg, false)
			send(alg, true)
			send(alg, false)
		}
	}
	r := incoming{Reader: transport.NewReader(&stream)}
	for range 6 {
		for i := range 4 {
			p, err := r.Next(func(n int) []byte { return make([]byte, n) })
			if err != nil {
				t.Fatal(err)
			}
			r.follow(&p)
			if i > 0 && (len(p.Bulk) != len(data) || len(p.Body) != wire.DataSize+r.integrity.Size()) {
				t.Fatalf("%v: %d+%d bytes", r.integrity, len(p.Body), len(p.Bulk))
			}
			if got, want := r.corrupt(&p, &sums), i == 2 && r.integrity != 0; got != want {
				t.Errorf("%v, packet %d: corrupt %v, want %v", r.integrity, i, got, want)
			}
		}
	}
}
