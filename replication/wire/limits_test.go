package wire

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestLimits(t *testing.T) {
	full := Session{Version: 101, Features: FeaturesAll}
	for _, c := range []struct {
		name    string
		session Session
		header  Header
		want    string // "" if accepted
	}{
		{"a write", full, Header{Command: CmdData, Length: 24 + 4096}, ""},
		{"the largest write", full, Header{Command: CmdData, Length: 24 + 1<<20}, ""},
		{"a write that is too large", full, Header{Command: CmdData, Length: 24 + 1<<20 + 512}, "want 24 to 1048600 bytes"},
		{"a length from hell", full, Header{Command: CmdData, Length: 1<<32 - 1}, "2147483647 bytes"},
		{"a write of half a sector", full, Header{Command: CmdData, Length: 24 + 256}, "whole sectors"},
		{"a write without its header", full, Header{Command: CmdData, Length: 23}, "want 24"},
		{"a write with a digest", Session{Version: 101, DigestSize: 20}, Header{Command: CmdData, Length: 24 + 20 + 4096}, ""},
		{"a write without the digest", Session{Version: 101, DigestSize: 20}, Header{Command: CmdData, Length: 24 + 4096}, "whole sectors"},
		{"1 MiB in version 99", Session{Version: 99}, Header{Command: CmdData, Length: 24 + 1<<20}, "want 24 to 131096 bytes"},
		{"128 KiB in version 94", Session{Version: 94}, Header{Command: CmdRSDataReply, Length: 24 + 128<<10}, "want 24 to 32792 bytes"},
		{"a trim", full, Header{Command: CmdTrim, Length: 28}, ""},
		{"a trim with a digest", full, Header{Command: CmdTrim, Length: 48}, "want 28 to 28"},
		{"a trim without the feature", Session{Version: 101}, Header{Command: CmdTrim, Length: 28}, "no such packet in version 101"},
		{"write same", full, Header{Command: CmdWSame, Length: 28 + 512}, "no such packet"},
		{"become sync target", full, Header{Command: CmdBecomeSyncTarget}, "no such packet"},
		{"the command may be ignored in other versions", full, Header{Command: 0x100}, "Command(0x100)"},
		{"an ack", full, Header{Command: CmdWriteAck, Length: 24}, ""},
		{"a long ack", full, Header{Command: CmdWriteAck, Length: 25}, "want 24 to 24"},
		{"a ping with a payload", full, Header{Command: CmdPing, Length: 1}, "want 0 to 0"},
		{"a bitmap", full, Header{Command: CmdBitmap, Length: 4080}, ""},
		{"a bitmap of version 99", full, Header{Command: CmdBitmap, Length: 4088}, "want 0 to 4080"},
		{"the same in version 99", Session{Version: 99}, Header{Command: CmdBitmap, Length: 4088}, ""},
		{"a bitmap with half a word", full, Header{Command: CmdBitmap, Length: 4}, "whole words"},
		{"the end of a bitmap", full, Header{Command: CmdBitmap}, ""},
		{"no code", full, Header{Command: CmdCompressedBitmap, Length: 1}, "want 2 to 4080"},
		{"short sizes", full, Header{Command: CmdSizes, Length: 32}, "want 56"},
		{"long sizes", Session{Version: 101}, Header{Command: CmdSizes, Length: 56}, "want 32"},
		{"old sync parameters", full, Header{Command: CmdSyncParam, Length: 4}, "no such packet"},
		{"a challenge", full, Header{Command: CmdAuthChallenge, Length: 128}, ""},
		{"a short challenge", full, Header{Command: CmdAuthChallenge, Length: 63}, "want 64 to 128"},
		{"a digest to compare", full, Header{Command: CmdOVReply, Length: 24 + 20}, ""},
		{"no digest to compare", full, Header{Command: CmdOVReply, Length: 24}, "want 25 to 88"},
		{"features before anything is agreed", Session{Version: VersionInitial}, Header{Command: CmdConnectionFeatures, Length: 72}, ""},
		{"a name without NUL", full, Header{Command: CmdProtocol, Length: 24}, "want 25 to 88"},
		{"version 86 without a name", Session{Version: 86}, Header{Command: CmdProtocol, Length: 24}, ""},
	} {
		err := c.session.Check(c.header)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestLimitsGolden prints the table of packets: a change is a visible diff.
func TestLimitsGolden(t *testing.T) {
	var out bytes.Buffer
	sessions := []Session{{Version: 86}, {Version: 88}, {Version: 90}, {Version: 96}, {Version: 101}, {Version: 101, Features: FeaturesAll, DigestSize: 20}}
	fmt.Fprintln(&out, "# code name socket(1 data, 2 meta) per-volume: payload sizes in version 86 88 90 96 101 101+features+sha1")
	printRow := func(cmd Command) {
		fmt.Fprintf(&out, "0x%02x %-18v %d %-5v:", uint16(cmd), cmd, cmd.Sockets(), cmd.PerVolume())
		for _, s := range sessions {
			shortest, longest, ok := Limits(cmd, s)
			switch {
			case !ok:
				fmt.Fprint(&out, " -")
			case shortest == longest:
				fmt.Fprintf(&out, " %d", shortest)
			default:
				fmt.Fprintf(&out, " %d..%d", shortest, longest)
			}
		}
		fmt.Fprintln(&out)
	}
	for cmd := range Command(len(commands) + 1) {
		printRow(cmd)
	}
	for _, cmd := range []Command{CmdInitialMeta, CmdInitialData, CmdConnectionFeatures} {
		printRow(cmd)
	}
	const path = "testdata/limits.txt"
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("differs from %s; run with -update and read the diff\n%s", path, out.Bytes())
	}
}

func TestSplit(t *testing.T) {
	s := Session{Version: 101, DigestSize: 4}
	if body, bulk := s.Split(Header{Command: CmdData, Length: 24 + 4 + 512}); body != 28 || bulk != 512 {
		t.Errorf("write: %d, %d", body, bulk)
	}
	if body, bulk := s.Split(Header{Command: CmdOVReply, Length: 28}); body != 28 || bulk != 0 {
		t.Errorf("digest: %d, %d", body, bulk)
	}
}

func TestMaxTrim(t *testing.T) {
	if got := (Session{Version: 101, Features: FeatureTrim}).MaxTrim(); got != 4<<20 {
		t.Errorf("%d", got)
	}
	if got := (Session{Version: 101, Features: FeaturesAll}).MaxTrim(); got != 128<<20 {
		t.Errorf("%d", got)
	}
}
