package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLab reads the lab's 8.3-style pair unchanged.
func TestLab(t *testing.T) {
	c, err := Load(OS{}, "testdata/lab/drbd.conf")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Resources) != 3 || len(c.Files) != 5 {
		t.Fatalf("%d resources in %v, want 3 in 5 files", len(c.Resources), c.Files)
	}
	r := c.Resource("r1")
	local, peer, err := r.Local("an-node02.example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	v := local.Volume(0)
	got := fmt.Sprintln(local.Address, peer.Address, v.Device, v.Minor, v.Disk, v.MetaDisk.Kind(), v.DiskOptions.ResyncRateKiB,
		v.DiskOptions.Fencing, r.Net.Protocol, r.Net.AllowTwoPrimaries, r.Net.AfterSB0Pri, r.Startup.BecomePrimaryOn, r.Startup.WfcTimeoutSeconds)
	want := "ipv4 10.10.0.2:7790 ipv4 10.10.0.1:7790 /dev/drbd1 1 /dev/sda6 internal 20480 " +
		"resource-and-stonith C true discard-zero-changes [both] 300\n"
	if got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	if h := r.Handler("fence-peer"); h != "/sbin/obliterate-peer.sh" {
		t.Errorf("fence-peer is %q", h)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].String(), `global_common.conf:33:2: "syncer": section of DRBD 8.3`) {
		t.Errorf("warnings: %v", c.Warnings)
	}
}

func pair(body string) string {
	return "resource r0 {\n\tdevice minor 0; disk /dev/a; meta-disk internal;\n\ton alpha { address 10.0.0.1:1; }\n\ton bravo { address 10.0.0.2:1; }\n" + body + "\n}\n"
}

// TestWarnings: what is accepted without effect, or in an old spelling, is said.
func TestWarnings(t *testing.T) {
	for _, test := range []struct{ body, want string }{
		{"ignore-on x;", `/t.conf:5:1: "ignore-on": deprecated, has no effect`},
		{"disk { disk-barrier; }", `/t.conf:5:8: "disk-barrier": has no effect: DRBD 8.4 ignores it too`},
		{"disk { no-disk-drain; }", `/t.conf:5:8: "no-disk-drain": deprecated spelling of disk-drain no`},
		{"disk { rate 3; }", `/t.conf:5:8: "rate": deprecated spelling of resync-rate`},
		{"disk { use-bmbv; }", `/t.conf:5:8: "use-bmbv": has no effect since DRBD 8.4`},
		{"disk { al-extents 7; }", `/t.conf:5:19: "7": al-extents is brought into its range 67..65534`},
		{"net { hold-off-threshold 7; }", `/t.conf:5:7: "hold-off-threshold": has no effect since DRBD 8.4`},
		{"net { timeout 1; timeout 2; }", `/t.conf:5:18: "timeout": set again, this one holds; first set at /t.conf:5:7`},
		{"disk { al-extents 99; al-extents 98; }", `/t.conf:5:23: "al-extents": set again, this one has no effect; first set at /t.conf:5:8`},
		{"disk { resync-after r9; }", `/t.conf:5:21: "r9": resync-after has no effect in on alpha: unknown resource`},
		{"proxy { memlimit 3M; }", `/t.conf:5:1: "proxy": DRBD Proxy is not supported, the section has no effect`},
	} {
		c := mustParse(t, pair(test.body))
		if len(c.Warnings) == 0 || c.Warnings[0].String() != test.want {
			t.Errorf("%s\ngot  %v\nwant %s", test.body, c.Warnings, test.want)
		}
	}
	if c := mustParse(t, pair("disk { al-extents 7; }")); c.Resources[0].Hosts[0].Volumes[0].DiskOptions.ALExtents != 67 {
		t.Error("al-extents 7 was not brought into its range")
	}
}

// TestErrorsAreCollected: one reading shows all of them, in the order of the text.
func TestErrorsAreCollected(t *testing.T) {
	_, err := Parse(memFS{}, "/t.conf", []byte(pair("net { timout 3; ping-int 0; }\ndisk { fencing x; }")))
	var list ErrorList
	if !errors.As(err, &list) || len(list) != 3 || list[0].Word != "timout" || list[1].Word != "0" || list[2].Word != "x" {
		t.Errorf("got %v", err)
	}
	var one *Error
	if !errors.As(err, &one) || one.Hint != `did you mean "timeout"?` {
		t.Errorf("first error: %#v", one)
	}
	_, err = Parse(memFS{}, "/t.conf", []byte(strings.Repeat("x { }\n", 1000)))
	if !errors.As(err, &list) || len(list) != maxErrors {
		t.Errorf("%d errors, want %d", len(list), maxErrors)
	}
}

// TestEveryOption sets each option of the schema to each end of its range, and
// one beyond: the table is what is enforced.
func TestEveryOption(t *testing.T) {
	for _, o := range Schema() {
		if o.Kind != KindNumber || o.Clamp || !slices.ContainsFunc(drbdSections, func(s *section) bool { return s.name == o.Section && s.find(o.Name) != nil }) {
			continue
		}
		try := func(n uint64) error {
			text := fmt.Sprintf("%s { %s %d; }", o.Section, o.Name, n)
			if o.Section != "global" {
				text = pair(text)
			}
			_, err := Parse(memFS{}, "/t.conf", []byte(text))
			return err
		}
		if err := errors.Join(try(o.Min), try(o.Max)); err != nil {
			t.Errorf("%s: %v", o.Name, err)
		}
		if try(o.Max+1) == nil || o.Min > 0 && try(o.Min-1) == nil {
			t.Errorf("%s: a value out of %d..%d is accepted", o.Name, o.Min, o.Max)
		}
	}
}

// TestSchemaIsWhole: no row is half filled, and each default is a valid value.
func TestSchemaIsWhole(t *testing.T) {
	all := Schema()
	if len(all) < 90 {
		t.Fatalf("only %d options", len(all))
	}
	for _, o := range all {
		if o.Section == "" || o.Name == "" || o.Kind == KindNumber && (o.Unit == 0 || o.Max == 0) {
			t.Errorf("incomplete: %+v", o)
		}
		if o.Default == "" {
			continue
		}
		if _, problem, expected := o.canonicalValue(o.Default); problem+expected != "" {
			t.Errorf("%s: default %s: %s %s", o.Name, o.Default, problem, expected)
		}
	}
}

// TestUnits quotes 11.1: conversion to the default unit, rounding up, range after.
func TestUnits(t *testing.T) {
	for _, test := range []struct {
		unit byte
		text string
		want uint64
	}{
		{'k', "1s", 1}, {'k', "3s", 2}, {'k', "20M", 20480}, {'k', "10", 10}, {'k', "5G", 5242880},
		{'s', "1k", 2}, {'s', "10G", 20971520}, {'s', "7s", 7}, {'1', "1K", 1024}, {'1', "2m", 2 << 20},
	} {
		o := OptionInfo{Kind: KindNumber, Unit: test.unit}
		if n, problem := o.parseNumber(test.text); n != test.want || problem != "" {
			t.Errorf("%s in %c: %d %s, want %d", test.text, test.unit, n, problem, test.want)
		}
	}
	o := OptionInfo{Kind: KindNumber, Unit: '1'}
	for _, bad := range []string{"", "K", "1S", "1x", "-1", "1KK", "18446744073709551616", "18446744073709551615G"} {
		if n, problem := o.parseNumber(bad); problem == "" {
			t.Errorf("%q is read as %d", bad, n)
		}
	}
}

func TestLocal(t *testing.T) {
	c := mustParse(t, `
resource two { device minor 0; disk /dev/a; meta-disk internal; on a a2 { address 10.0.0.1:1; } on b { address 10.0.0.2:1; } }
resource one { device minor 1; disk /dev/b; meta-disk internal; on a { address 10.0.0.1:2; } }
resource three { device minor 2; disk /dev/c; meta-disk internal; on a { address 10.0.0.1:3; } on b { address 10.0.0.2:3; } on c { address 10.0.0.3:3; } }
resource float { device minor 3; disk /dev/d; meta-disk internal; floating 10.0.0.1:4; floating ipv6 [fd00::2]:4; }
resource upper { stacked-on-top-of two { device minor 9; address 10.9.9.9:1; } on c { device minor 9; disk /dev/x; meta-disk internal; address 10.0.0.3:1; } }
`)
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("fd00::2")}
	for _, test := range []struct{ resource, host, want string }{
		{"two", "a2", "on a a2 / on b / <nil>"},
		{"two", "b", "on b / on a a2 / <nil>"},
		{"two", "z", "<nil> / <nil> / resource two: host z: no host section for this node"},
		{"one", "a", "on a / <nil> / <nil>"},
		{"three", "b", "on b / <nil> / resource three: 3 host sections, choose the peer"},
		{"float", "z", "floating ipv6 [fd00::2]:4 / floating ipv4 10.0.0.1:4 / <nil>"},
		{"upper", "a", "<nil> / <nil> / resource upper: host a: no host section for this node"},
		{"upper", "c", "on c / stacked-on-top-of two / <nil>"},
	} {
		local, peer, err := c.Resource(test.resource).Local(test.host, addrs)
		str := func(h *Host) string {
			if h == nil {
				return "<nil>"
			}
			return h.String()
		}
		if got := fmt.Sprintf("%s / %s / %v", str(local), str(peer), err); got != test.want {
			t.Errorf("%s on %s: %s, want %s", test.resource, test.host, got, test.want)
		}
	}
	if _, _, err := c.Resource("two").Local("z", nil); !errors.Is(err, ErrNotLocal) {
		t.Errorf("%v is not ErrNotLocal", err)
	}
	three := c.Resource("three")
	if p, err := three.Peer(three.Hosts[0], "c"); err != nil || p != three.Hosts[2] {
		t.Errorf("peer c: %v %v", p, err)
	}
	if v := c.Resource("upper").Hosts[0].Volumes[0]; v.Disk != "/dev/drbd0" || !v.MetaDisk.Internal() {
		t.Errorf("stacked volume: %+v", v)
	}
}

func TestDiscardNode(t *testing.T) {
	for _, test := range []struct{ policy, want AfterSB0Pri }{
		{"discard-node-a", SB0DiscardLocal}, {"discard-node-b", SB0DiscardRemote}, {SB0DiscardZeroChanges, SB0DiscardZeroChanges},
	} {
		if got := test.policy.On("x", "a"); got != test.want {
			t.Errorf("%s: %s, want %s", test.policy, got, test.want)
		}
	}
}

// TestLimits: every bound of the package comment is one.
func TestLimits(t *testing.T) {
	chain := memFS{}
	wide := memFS{"/t.conf": `include "f*";`}
	for i := range maxIncludeDepth + 2 {
		chain[fmt.Sprintf("/%d", i)] = fmt.Sprintf("include %q;", fmt.Sprint(i+1))
	}
	for i := range maxFiles + 1 {
		wide[fmt.Sprintf("/f%d", i)] = ""
	}
	total := memFS{"/t.conf": `include "f*";`}
	for i := range 17 {
		total[fmt.Sprintf("/f%d", i)] = strings.Repeat(" ", maxFileSize)
	}
	for _, test := range []struct {
		name, path string
		fsys       memFS
		want       string
	}{
		{"file size", "/t.conf", memFS{"/t.conf": strings.Repeat(" ", maxFileSize+1)}, "more than 1048576 bytes"},
		{"total size", "/t.conf", total, "16777216 in all"},
		{"include depth", "/0", chain, "includes nest more than 16 deep"},
		{"files", "/t.conf", wide, "more than 1024 files"},
		{"blocks", "/t.conf", memFS{"/t.conf": strings.Repeat("a {", 20)}, "blocks nest more than 8 deep"},
		{"words", "/t.conf", memFS{"/t.conf": strings.Repeat("a ", 100)}, "statement of more than 64 words"},
		{"resources", "/t.conf", memFS{"/t.conf": many("resource r%d { }\n", maxResources+1)}, "more than 4096 resources"},
		{"hosts", "/t.conf", memFS{"/t.conf": "resource r { " + many("on h%d { }\n", maxHosts+1) + "}"}, "too many host sections"},
		{"volumes", "/t.conf", memFS{"/t.conf": "resource r { " + many("volume %d { }\n", maxVolumes+1) + "}"}, "too many volumes"},
	} {
		if _, err := Load(test.fsys, test.path); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %.200v, want %q", test.name, err, test.want)
		}
	}
}

func many(format string, n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, format, i)
	}
	return s.String()
}

// TestIncludeOnce: a loop of includes ends because each file is read once.
func TestIncludeOnce(t *testing.T) {
	c, err := Load(memFS{"/a/x.conf": `include "y.conf"; resource x { }`, "/a/y.conf": `include "/a/../a/x.conf"; include "*.conf"; resource y { }`}, "/a/x.conf")
	if err != nil {
		t.Fatal(err)
	}
	if got := resourceNames(c); !slices.Equal(got, []string{"y", "x"}) {
		t.Errorf("resources %v", got)
	}
}

// TestOSSymlink: two names of one file are one file.
func TestOSSymlink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "r.res"), filepath.Join(dir, "s.res")
	if err := errors.Join(os.WriteFile(target, []byte("resource r { }"), 0o600), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	c, err := Parse(OS{}, filepath.Join(dir, "drbd.conf"), []byte(`include "*.res";`))
	if err != nil || len(c.Resources) != 1 {
		t.Errorf("%v, %v", c, err)
	}
	if err := os.WriteFile(target, make([]byte, 11), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (OS{}).ReadFile(target, 10); err == nil {
		t.Error("a file of 11 bytes was read with a limit of 10")
	}
}

func TestDefaultPath(t *testing.T) {
	if p, err := DefaultPath(memFS{"/etc/drbd.conf": "", "/etc/drbd-83.conf": ""}); p != "/etc/drbd-83.conf" || err != nil {
		t.Errorf("%s %v", p, err)
	}
	if p, err := DefaultPath(memFS{}); err == nil {
		t.Errorf("found %s", p)
	}
}

func TestEditDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "abc", 3}, {"timout", "timeout", 1}, {"tiemout", "timeout", 1}, {"teimout", "timeout", 2}, {"itmeout", "timeout", 1}, {"abc", "abc", 0}} {
		if got := editDistance(test.a, test.b); got != test.want {
			t.Errorf("%s to %s: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

// TestHostileFiles: a megabyte of nonsense, or of sense, is dealt with in time
// proportional to it: something quadratic would show as a test that takes minutes.
func TestHostileFiles(t *testing.T) {
	for name, text := range map[string]string{
		"unknown options":  "resource r { net { " + strings.Repeat("timeoutx;", 110000) + "} }",
		"unknown sections": strings.Repeat("resourcx{}", 100000),
		"repeated options": "resource r { net { " + strings.Repeat("ping-int 3;", 90000) + "} }",
		"resources":        many("resource r%d { disk { resync-after r1; } }\n", 4000),
		"hosts":            "resource r { disk x; meta-disk internal;" + many("on h%[1]d { address 10.0.0.%[1]d:1; }\n", 32) + many("volume %[1]d { device minor %[1]d; }", 4096) + "}",
	} {
		if len(text) > maxFileSize {
			t.Errorf("%s: %d bytes", name, len(text))
		}
		if _, err := Parse(memFS{}, "/t.conf", []byte(text)); err != nil {
			checkErrors(t, err)
		}
	}
}
