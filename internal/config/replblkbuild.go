package config

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

var metricsSpecs = []spec[MetricsOptions]{
	repeated("listen", isHostPort, func(o *MetricsOptions) *[]string { return &o.Listen }),
}

var controlSpecs = []spec[ControlOptions]{
	withDefault("/run/replblk/control", text("socket", isSocketPath, func(o *ControlOptions) *string { return &o.Socket })),
}

var logSpecs = []spec[LogOptions]{
	choice("level", func(o *LogOptions) *LogLevel { return &o.Level }, LogInfo, LogDebug, LogWarn, LogError),
	choice("format", func(o *LogOptions) *LogFormat { return &o.Format }, LogText, LogJSON),
}

var tlsSpecs = []spec[TLSOptions]{
	text("certificate", isAbsPath, func(o *TLSOptions) *string { return &o.Certificate }),
	text("key", isAbsPath, func(o *TLSOptions) *string { return &o.Key }),
	text("ca", isAbsPath, func(o *TLSOptions) *string { return &o.CA }),
}

var nbdSpecs = []spec[NBDExport]{
	required(repeated("listen", isListen, func(o *NBDExport) *[]string { return &o.Listen })),
	required(text("resource", isName, func(o *NBDExport) *string { return &o.Resource })),
	number("volume", 0, maxVolume, '1', "0", func(o *NBDExport) *uint32 { return &o.Volume }),
	text("export-name", anyText, func(o *NBDExport) *string { return &o.ExportName }),
	text("description", anyText, func(o *NBDExport) *string { return &o.Description }),
	boolean("read-only", "no", func(o *NBDExport) *bool { return &o.ReadOnly }),
	choice("tls", func(o *NBDExport) *TLSMode { return &o.TLS }, TLSNo, TLSAllow, TLSRequire),
	number("max-connections", 1, 1024, '1', "16", func(o *NBDExport) *uint32 { return &o.MaxConnections }),
}

var aoeSpecs = []spec[AoETarget]{
	required(number("shelf", 0, 65534, '1', "0", func(o *AoETarget) *uint32 { return &o.Shelf })),
	required(number("slot", 0, 254, '1', "0", func(o *AoETarget) *uint32 { return &o.Slot })),
	required(repeated("interface", isInterface, func(o *AoETarget) *[]string { return &o.Interfaces })),
	withDefault(AoEAddressVirtual, text("address", isAoEAddress, func(o *AoETarget) *string { return &o.Address })),
	text("resource", isName, func(o *AoETarget) *string { return &o.Resource }),
	number("volume", 0, maxVolume, '1', "0", func(o *AoETarget) *uint32 { return &o.Volume }),
	text("file", isFile, func(o *AoETarget) *string { return &o.File }),
	repeated("mac", isMAC, func(o *AoETarget) *[]string { return &o.MACs }),
	boolean("read-only", "no", func(o *AoETarget) *bool { return &o.ReadOnly }),
	text("config-string", anyText, func(o *AoETarget) *string { return &o.ConfigString }),
	repeated("permit", isAoEPermit, func(o *AoETarget) *[]string { return &o.Permit }),
	text("state-file", isAbsPath, func(o *AoETarget) *string { return &o.StateFile }),
}

var backingSpecs = []spec[BackingChoice]{
	choice("direct-io", func(o *BackingChoice) *DirectIO { return &o.DirectIO }, DirectAuto, DirectYes, DirectNo),
}

var (
	daemonSections = []*section{
		newSection("metrics", metricsSpecs), newSection("control", controlSpecs), newSection("log", logSpecs),
		newSection("tls", tlsSpecs), newSection("nbd", nbdSpecs), newSection("aoe", aoeSpecs), newSection("resource", backingSpecs),
	}
	volumeInfo = daemonSection("nbd").find("volume")
)

func repeated[T any](name string, check func(string) string, at func(*T) *[]string) spec[T] {
	return spec[T]{OptionInfo{Name: name, Kind: KindText, Repeat: true, check: check}, func(o *T, v value) {
		*at(o) = append(*at(o), v.text[0])
	}}
}

func withDefault[T any](def string, s spec[T]) spec[T] { s.Default = def; return s }

func required[T any](s spec[T]) spec[T] { s.Required = true; return s }

// daemonBuilder turns the statements of replblk.conf into a Daemon.
type daemonBuilder struct {
	builder
	d    *Daemon
	used map[string]Pos
}

func (b *daemonBuilder) section(st *Stmt) {
	kind := st.Key.Text
	s := daemonSection(kind)
	if s == nil {
		var known []string
		for _, k := range daemonSections {
			known = append(known, k.name)
		}
		b.fail(st.Key, "", oneOf(append(known, "skip", "include")), didYouMean(kind, known))
		return
	}
	blk := daemonBlock{kind: kind, key: st.Key}
	what := "section " + kind
	args := st.Args
	if kind == "nbd" || kind == "aoe" || kind == "resource" {
		if len(args) == 0 {
			b.fail(st.End, "", "a name", "")
			return
		}
		if !b.name(args[0], "a name") {
			return
		}
		blk.name, args = args[0], args[1:]
		what = fmt.Sprintf("%s %q", kind, blk.name.Text)
	}
	head := *st
	head.Args = args
	raw := rawConfig{builder: b.builder}
	ok := raw.block(&head) && raw.once(b.used, st.Key, what)
	b.builder = raw.builder
	if !ok {
		return
	}
	before := len(b.errs)
	blk.settings = b.settings(s, st.Body, nil, lastWins)
	for _, o := range s.options {
		if o.Required && len(b.errs) == before && !slices.ContainsFunc(blk.settings, func(set Setting) bool { return set.Name == o.Name }) {
			b.fail(st.Key, o.Name+" is missing in "+what, o.expected(), "")
		}
	}
	if len(b.errs) == before {
		b.d.set = append(b.d.set, blk)
		b.add(&blk)
	}
}

// add gives a checked section its place in the Daemon.
func (b *daemonBuilder) add(blk *daemonBlock) {
	d, name, pos := b.d, blk.name.Text, blk.name.Pos
	switch blk.kind {
	case "metrics":
		apply(metricsSpecs, blk.settings, &d.Metrics)
	case "control":
		apply(controlSpecs, blk.settings, &d.Control)
	case "log":
		apply(logSpecs, blk.settings, &d.Log)
	case "tls":
		apply(tlsSpecs, blk.settings, &d.TLS)
	case "nbd":
		e := &NBDExport{Name: name, Pos: pos}
		apply(nbdSpecs, blk.settings, e)
		e.defaults()
		d.NBD = append(d.NBD, e)
	case "aoe":
		t := &AoETarget{Name: name, Pos: pos}
		apply(aoeSpecs, blk.settings, t)
		t.defaults()
		d.AoE = append(d.AoE, t)
	case "resource":
		c := &BackingChoice{Resource: name, Pos: pos}
		apply(backingSpecs, blk.settings, c)
		d.Backing = append(d.Backing, c)
	}
}

// checkDaemon refuses what only shows between sections.
func (b *daemonBuilder) checkDaemon() {
	seen := make(map[string]Pos)
	for _, t := range b.d.AoE {
		b.checkBacking(t)
		if hw, err := net.ParseMAC(t.Address); err == nil && int(hw[5])+len(t.Interfaces) > 256 || len(t.Interfaces) > 256 {
			b.fail(Word{Pos: t.Pos, Text: t.Name}, fmt.Sprintf("%d interfaces do not fit behind address %s", len(t.Interfaces), t.Address), "", "")
		}
		for _, ifname := range t.Interfaces {
			at := Word{Pos: t.Pos, Text: t.Name}
			b.once(seen, at, fmt.Sprintf("AoE address %d.%d on interface %s", t.Shelf, t.Slot, ifname))
		}
	}
	for _, e := range b.d.NBD {
		at := Word{Pos: e.Pos, Text: e.Name}
		for _, l := range e.Listen {
			b.once(seen, at, fmt.Sprintf("export name %q on %s", e.ExportName, l))
		}
		if e.TLS != TLSNo && b.d.TLS.Certificate == "" {
			b.fail(at, "tls "+string(e.TLS)+" without a certificate", "a section tls { certificate …; key …; }", "")
		}
	}
	if t := b.d.TLS; (t.Certificate == "") != (t.Key == "") || t.CA != "" && t.Certificate == "" {
		i := slices.IndexFunc(b.d.set, func(blk daemonBlock) bool { return blk.kind == "tls" })
		b.fail(b.d.set[i].key, "incomplete", "certificate and key", "")
	}
}

// checkBacking refuses a target of which it is not clear what it serves. What belongs to a
// mirror has no meaning for a file.
func (b *daemonBuilder) checkBacking(t *AoETarget) {
	at := Word{Pos: t.Pos, Text: t.Name}
	switch {
	case t.Resource == "" && t.File == "":
		b.fail(at, "nothing to serve", "resource, or file for vblade --config", "")
	case t.Resource != "" && t.File != "":
		b.fail(at, "both resource and file", "one of them", "")
	case t.File != "" && len(t.Permit) > 0:
		b.fail(at, "permit is for resources: what initiators set on a file is forgotten", "", "")
	case t.File != "" && t.Address != AoEAddressVirtual:
		b.fail(at, "address is for resources: a file is served from the interface's own", "", "")
	}
}

func isFile(s string) string {
	if !strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "nbd") {
		return "an absolute path, or the URI of an NBD export"
	}
	return ""
}

func isName(s string) string {
	if s == "" {
		return "a name"
	}
	return ""
}

func isAbsPath(s string) string {
	if !filepath.IsAbs(s) {
		return "an absolute path"
	}
	return ""
}

// isSocketPath checks that the path fits sockaddr_un, terminator included.
func isSocketPath(s string) string {
	if !filepath.IsAbs(s) || len(s) > 107 {
		return "an absolute path of at most 107 bytes"
	}
	return ""
}

// isHostPort wants a numeric port; the host may be empty, an address or a name.
func isHostPort(s string) string {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n == 0 || strings.ContainsAny(host, " \t") {
		return `"HOST:PORT" with a port in 1..65535`
	}
	return ""
}

func isListen(s string) string {
	const want = `"unix:/PATH" or "tcp:HOST:PORT"`
	if path, ok := strings.CutPrefix(s, "unix:"); ok && isSocketPath(path) == "" {
		return ""
	}
	if addr, ok := strings.CutPrefix(s, "tcp:"); ok && isHostPort(addr) == "" {
		return ""
	}
	return want
}

// isInterface follows the kernel: 1 to 15 bytes, no slash, no blank.
func isInterface(s string) string {
	if s == "" || len(s) > 15 || strings.ContainsAny(s, "/ \t:") {
		return "an interface name"
	}
	return ""
}

func isMAC(s string) string {
	if hw, err := net.ParseMAC(s); err != nil || len(hw) != 6 {
		return "a MAC address"
	}
	return ""
}

// isAoEAddress admits the words, and addresses that a single station can have.
func isAoEAddress(s string) string {
	if s == AoEAddressVirtual || s == AoEAddressOwn {
		return ""
	}
	if hw, err := net.ParseMAC(s); err != nil || len(hw) != 6 || hw[0]&1 != 0 || strings.Count(s, ":") != 5 {
		return `virtual, own, or the MAC address of one station, "02:…"`
	}
	return ""
}

func isAoEPermit(s string) string {
	if !slices.Contains([]string{AoEPermitConfig, AoEPermitMask, AoEPermitReserve}, s) {
		return oneOf([]string{AoEPermitConfig, AoEPermitMask, AoEPermitReserve})
	}
	return ""
}
