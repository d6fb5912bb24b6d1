package wire

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var captures = flag.String("captures", "", "folder of captures (*.pcap): add the packets of a shape that testdata/kernel does not have")

// kernelPacket is a packet that a kernel sent.
type kernelPacket struct {
	scenario string
	socket   Sockets
	session  Session
	alg      Algorithm // of the digest of the data, its size is in session; 0 in a packet without data
	raw      []byte
}

// split returns the header and the payload.
func (p kernelPacket) split() (Header, []byte) {
	h, size, err := ParseHeader(p.raw, p.session.Version)
	if err != nil {
		panic(err) // whoever made the packet has parsed it
	}
	return h, p.raw[size:]
}

// maxKept bounds a packet in testdata: larger ones have the layout of smaller ones.
const maxKept = 4200

// kernelFile is where the packets of a version are. What precedes the agreement is in
// the file of the initial version.
func kernelFile(version int) string {
	return filepath.Join("testdata", "kernel", fmt.Sprintf("v%d.txt", version))
}

// line is the packet as a line of such a file:
//
//	SOCKET FEATURES ALGORITHM COMMAND SHAPE SCENARIO BYTES
func (p kernelPacket) line() string {
	h, _ := p.split()
	socket, alg := "data", "-"
	if p.socket == MetaSocket {
		socket = "meta"
	}
	if p.alg != 0 {
		alg = p.alg.String()
	}
	return fmt.Sprintf("%s %x %s %v %s %s %x", socket, uint32(p.session.Features), alg, h.Command, p.shape(), p.scenario, p.raw)
}

// parseKernelLine is the reverse of line; shape is what the line says.
func parseKernelLine(line string, version int) (p kernelPacket, shape string, err error) {
	f := strings.Fields(line)
	if len(f) != 7 {
		return p, "", fmt.Errorf("%d fields", len(f))
	}
	features, err := strconv.ParseUint(f[1], 16, 32)
	if err != nil {
		return p, "", err
	}
	p = kernelPacket{scenario: f[5], socket: DataSocket, session: Session{Version: version, Features: Features(features)}, alg: AlgorithmOf(f[2])}
	if f[0] == "meta" {
		p.socket = MetaSocket
	}
	p.session.DigestSize = p.alg.Size()
	p.raw, err = hex.DecodeString(f[6])
	return p, f[4], err
}

// shape says in a word what is special about the packet: the fields that have few values,
// and of the others whether they are zero.
func (p kernelPacket) shape() string {
	h, payload := p.split()
	body, _ := p.session.Split(h)
	r := NewReader(h.Command, payload[:body])
	packet := newPacket(h.Command)
	switch packet := packet.(type) {
	case plain:
		packet.DecodeFrom(&r)
	case versioned:
		packet.DecodeFrom(&r, p.session)
	}
	switch q := packet.(type) {
	case *Data:
		return fmt.Sprintf("%s,flags=%x", p.format(), uint32(q.Flags))
	case *Trim:
		return fmt.Sprintf("flags=%x", uint32(q.Flags))
	case *BlockRequest:
		return fmt.Sprintf("resync=%t,digest=%d", q.BlockID == ResyncID, r.Remaining())
	case *BlockAck:
		return ackShape(q)
	case *Protocol:
		return fmt.Sprintf("%c,sb=%d/%d/%d,flags=%x,two=%t,alg=%s", 'A'-1+q.Protocol, q.AfterSB0, q.AfterSB1, q.AfterSB2, q.Flags, q.TwoPrimaries, q.IntegrityAlg)
	case *SyncParam:
		return fmt.Sprintf("verify=%s,csums=%s,plan=%t", q.VerifyAlg, q.CsumsAlg, q.PlanAheadTenths != 0)
	case *UUIDs:
		return fmt.Sprintf("flags=%x,bitmap=%t,bits=%t", uint64(q.Flags), q.Bitmap != 0, q.Bits != 0)
	case *Sizes:
		return fmt.Sprintf("flags=%x,backing=%t,user=%t,current=%t,limits=%t", q.Flags, q.Backing != 0, q.User != 0, q.Current != 0, q.Queue != QueueLimits{})
	case *StateWord:
		return fmt.Sprintf("%x", q.State)
	case *StateChangeRequest:
		return fmt.Sprintf("%x=%x", q.Mask, q.Value)
	case *StateChangeReply:
		return strconv.Itoa(int(q.Result))
	case *CompressedBitmap:
		return fmt.Sprintf("set=%t,pad=%d", q.FirstSet, q.PadBits)
	case *ConnectionFeatures:
		return fmt.Sprintf("%d-%d,%x", q.Min, q.Max, uint32(q.Features))
	default:
		return fmt.Sprintf("empty=%t", h.Length == 0)
	}
}

// format names the header.
func (p kernelPacket) format() string {
	switch {
	case p.raw[0] == magic100>>24 && p.raw[1] == magic100>>16&0xff:
		return "header100"
	case p.raw[1] == magic95&0xff:
		return "header95"
	default:
		return "header80"
	}
}

func ackShape(q *BlockAck) string {
	switch q.BlockID {
	case ResyncID:
		return "resync"
	case VerifyInSync:
		return "equal"
	case VerifyOutOfSync:
		return "differs"
	default:
		return "request"
	}
}

// readKernelPackets returns the lines of testdata/kernel.
func readKernelPackets(t *testing.T) map[string]kernelPacket {
	t.Helper()
	all := map[string]kernelPacket{}
	for version := VersionInitial; version <= VersionMax; version++ {
		f, err := os.Open(kernelFile(version))
		if err != nil {
			continue // TestKernelPackets counts
		}
		s := bufio.NewScanner(f)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			p, shape, err := parseKernelLine(s.Text(), version)
			if err != nil {
				t.Fatalf("%s: %v", f.Name(), err)
			}
			if got := p.shape(); got != shape {
				t.Errorf("%s: %s: the line says %s, its bytes %s", f.Name(), p.key(), shape, got)
			}
			all[p.key()] = p
		}
		_ = f.Close()
	}
	return all
}

// key is the same for two packets of which one is enough.
func (p kernelPacket) key() string {
	h, _ := p.split()
	version := p.session.Version
	if h.Command == CmdState || h.Command == CmdStateChgReq {
		version = HeaderSize(version) // whatever the version, but for the header
	}
	return fmt.Sprintf("%d %v %v %s", version, h.Command, p.alg, p.shape())
}

// addCaptures adds what the captures have and testdata has not, and writes testdata.
func addCaptures(t *testing.T, all map[string]kernelPacket) {
	t.Helper()
	var names []string
	err := filepath.WalkDir(*captures, func(path string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(path, ".pcap") {
			names = append(names, path)
		}
		return err
	})
	if err != nil || len(names) == 0 {
		t.Fatalf("no captures in %s (%v)", *captures, err)
	}
	for _, name := range names {
		t.Log(name)
		readCapture(t, name, func(p kernelPacket) {
			if len(p.raw) > maxKept {
				return
			}
			if old, ok := all[p.key()]; !ok {
				p.raw = bytes.Clone(p.raw)
				all[p.key()] = p
			} else if len(p.raw) < len(old.raw) && old.scenario == p.scenario {
				old.raw = bytes.Clone(p.raw)
				all[p.key()] = old
			}
		})
	}
	lines := map[int][]string{}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		p := all[key]
		lines[p.session.Version] = append(lines[p.session.Version], p.line())
	}
	for version, list := range lines {
		slices.SortFunc(list, func(a, b string) int { return cmp.Compare(a, b) })
		if err := os.WriteFile(kernelFile(version), []byte(strings.Join(list, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// unseen are the packets for which there are no bytes of a kernel, and why.
var unseen = map[Command]string{
	CmdDelayProbe: "DRBD 8.4 ignores it and never sends it",
	CmdRSCancel:   "sent by a source that is pulled ahead while requests of a resync are on their way",
	CmdSuperseded: "needs a kernel that accepted the meta socket, and a write within another one of the other Primary",
}

// TestKernelPackets decodes one packet of every kind, version and shape that a kernel was
// seen to send, and encodes it again to the same bytes.
func TestKernelPackets(t *testing.T) {
	all := readKernelPackets(t)
	if *captures != "" {
		addCaptures(t, all)
	}
	seen := map[Command]map[int]int{}
	for key, p := range all {
		h, payload := p.split()
		if err := p.session.Check(h); err != nil || h.Command.Sockets()&p.socket == 0 {
			t.Errorf("%s: %v on socket %d: %v", key, h, p.socket, err)
			continue
		}
		body, bulk := p.session.Split(h)
		again, err := recode(h.AppendTo(nil, p.session.Version), h.Command, payload[:body], p.session)
		again = append(again, payload[body:body+bulk]...)
		if want := withoutPad(packet{h, p.raw, payload, p.session}); err != nil || !bytes.Equal(again, want) {
			t.Errorf("%s: %v\n got  %x\n want %x", key, err, again, want)
		}
		if bulk > 0 && p.alg != 0 {
			p.checkDigest(t, payload[DataSize:body], payload[body:])
		}
		count(seen, h.Command, p.session.Version)
	}
	for _, name := range streams(t) {
		if strings.HasSuffix(name, ".rx.bin") {
			for _, p := range parseStream(t, name) {
				count(seen, p.Command, p.session.Version)
			}
		}
	}
	report(t, seen)
}

func count(seen map[Command]map[int]int, cmd Command, version int) {
	if seen[cmd] == nil {
		seen[cmd] = map[int]int{}
	}
	seen[cmd][version]++
}

// report prints how many packets of each kind there are in which version, and compares
// with what is known to be missing.
func report(t *testing.T, seen map[Command]map[int]int) {
	t.Helper()
	for cmd := range int(CmdConnectionFeatures) + 1 {
		cmd := Command(cmd)
		if cmd.Sockets() == 0 {
			continue
		}
		t.Logf("%-18v %v", cmd, seen[cmd])
		if why, missing := unseen[cmd]; missing != (seen[cmd] == nil) {
			t.Errorf("%v: %d versions with bytes of a kernel, but unseen says %q", cmd, len(seen[cmd]), why)
		}
	}
}

// checkDigest compares the kernel's digest with ours of the same data.
func (p kernelPacket) checkDigest(t *testing.T, digest, data []byte) {
	t.Helper()
	d, err := NewDigest(p.alg.String())
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Sum(nil, data); !bytes.Equal(got, digest) {
		t.Errorf("%s: digest %x, want %x", p.key(), got, digest)
	}
}
