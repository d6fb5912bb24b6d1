package config

import (
	"slices"
	"strings"
)

// Kind is how an option's value is written.
type Kind string

// The kinds of options.
const (
	KindNumber Kind = "number"
	KindFlag   Kind = "flag"
	KindChoice Kind = "choice"
	KindText   Kind = "text"
	KindHosts  Kind = "hosts" // one or more host names
)

// OptionInfo is one row of the option tables: everything the parser knows about
// an option except where its value goes.
type OptionInfo struct {
	Section string
	Name    string
	Kind    Kind
	// Min, Max and Unit are for numbers. Unit is the default unit: '1' plain,
	// 'k' KiB, 's' sectors of 512 bytes; written suffixes are converted to it.
	Min, Max uint64
	Unit     byte
	// Clamp brings a number out of range into it, with a warning.
	Clamp bool
	// Default as one would write it, "" if there is none.
	Default string
	// Choices are the values of a KindChoice.
	Choices []string
	// Bare flags take no value (global{} only).
	Bare bool
	// Repeat allows the option several times (replblk.conf only).
	Repeat bool
	// Required options must be set (replblk.conf only).
	Required bool
	// Ignored says why the option has no effect; "" if it has.
	Ignored string

	// check returns what is expected instead of a text value, "" if it is good.
	check func(string) string
}

// spec is an OptionInfo with its place in T.
type spec[T any] struct {
	OptionInfo
	set func(*T, value)
}

// value is a checked value in the option's default unit.
type value struct {
	n    uint64
	flag bool
	text []string
}

func number[T any, N ~uint32 | ~uint64](name string, low, high uint64, unit byte, def string, at func(*T) *N) spec[T] {
	return spec[T]{
		OptionInfo{Name: name, Kind: KindNumber, Min: low, Max: high, Unit: unit, Default: def},
		func(o *T, v value) { *at(o) = N(v.n) },
	}
}

func boolean[T any](name, def string, at func(*T) *bool) spec[T] {
	return spec[T]{OptionInfo{Name: name, Kind: KindFlag, Default: def}, func(o *T, v value) { *at(o) = v.flag }}
}

// choice's first value is the default.
func choice[T any, E ~string](name string, at func(*T) *E, values ...E) spec[T] {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = string(v)
	}
	return spec[T]{
		OptionInfo{Name: name, Kind: KindChoice, Choices: words, Default: words[0]},
		func(o *T, v value) { *at(o) = E(v.text[0]) },
	}
}

func text[T any](name string, check func(string) string, at func(*T) *string) spec[T] {
	return spec[T]{
		OptionInfo{Name: name, Kind: KindText, check: check},
		func(o *T, v value) { *at(o) = v.text[0] },
	}
}

func (s spec[T]) ignored(why string) spec[T] { s.Ignored = why; return s }

// section is a table without the types: what checking a statement needs.
type section struct {
	name    string
	options []*OptionInfo
	// aliases are other spellings of an option in this section.
	aliases []alias
	// dropped are words of old releases, accepted with one value and ignored.
	dropped []string
	// firstWins says which of two settings of one option drbdadm uses.
	firstWins bool
}

func newSection[T any](name string, specs []spec[T]) *section {
	s := &section{name: name}
	for i := range specs {
		specs[i].Section = name
		s.options = append(s.options, &specs[i].OptionInfo)
	}
	return s
}

// alias is an old spelling of an option.
type alias struct{ old, name string }

func (s *section) alias(old, name string) *section {
	s.aliases = append(s.aliases, alias{old, name})
	return s
}

func (s *section) drops(words ...string) *section {
	s.dropped = words
	return s
}

func (s *section) first() *section {
	s.firstWins = true
	return s
}

// canonical is the option an alias stands for, or the name itself.
func (s *section) canonical(name string) string {
	for _, a := range s.aliases {
		if a.old == name {
			return a.name
		}
	}
	return name
}

func (s *section) find(name string) *OptionInfo {
	for _, o := range s.options {
		if o.Name == name {
			return o
		}
	}
	return nil
}

func (s *section) names() []string {
	var out []string
	for _, o := range s.options {
		out = append(out, o.Name)
	}
	return out
}

// noEffect83 are 8.3 options that 8.4 reads and drops, in any section but syncer.
var noEffect83 = []string{"delay-probe-volume", "delay-probe-interval", "throttle-threshold", "hold-off-threshold"}

// syncerMoves is where each option of the 8.3 section syncer went (11.2).
var syncerMoves = []struct{ old, section, name string }{
	{"rate", "disk", "resync-rate"},
	{"after", "disk", "resync-after"},
	{"al-extents", "disk", "al-extents"},
	{"c-plan-ahead", "disk", "c-plan-ahead"},
	{"c-delay-target", "disk", "c-delay-target"},
	{"c-fill-target", "disk", "c-fill-target"},
	{"c-max-rate", "disk", "c-max-rate"},
	{"c-min-rate", "disk", "c-min-rate"},
	{"verify-alg", "net", "verify-alg"},
	{"csums-alg", "net", "csums-alg"},
	{"use-rle", "net", "use-rle"},
	{"cpu-mask", "options", "cpu-mask"},
	{"on-no-data-accessible", "options", "on-no-data-accessible"},
}

// negatable are the only flags that 8.3 let one write with "no-".
var negatable = []string{"disk-barrier", "disk-flushes", "disk-drain", "md-flushes", "tcp-cork"}

// The words that open a section or a statement which is not an option.
var (
	topWords      = []string{"global", "common", "resource", "skip", "include"}
	resourceWords = []string{"protocol", "on", "floating", "stacked-on-top-of", "ignore-on", "disk", "net", "syncer",
		"startup", "handlers", "options", "proxy", "device", "meta-disk", "flexible-meta-disk", "volume"}
	hostWords   = []string{"device", "disk", "meta-disk", "flexible-meta-disk", "address", "alternate-link-address", "volume", "options", "proxy"}
	volumeWords = []string{"device", "disk", "meta-disk", "flexible-meta-disk"}
	otherWords  = []string{"minor", "ipv4", "ipv6", "sdp", "sci", "ssocks", "yes", "no", "ask", "plugin", "inside",
		"outside", "rate", "after", "outdate-peer", "use-bmbv", "memlimit", "read-loops", "compression", "bwlimit"}
)

// keywords must be quoted where a name or value is meant. "on" is not among
// them: drbdadm knows it only where a section may begin.
var keywords = func() map[string]bool {
	k := make(map[string]bool)
	for _, list := range [][]string{topWords, resourceWords, hostWords, otherWords, noEffect83} {
		for _, w := range list {
			k[w] = true
		}
	}
	for _, s := range drbdSections {
		for _, o := range s.options {
			k[o.Name] = true
		}
	}
	for _, f := range negatable {
		k["no-"+f] = true
	}
	delete(k, "on")
	return k
}()

func isKeyword(w string) bool { return keywords[w] }

// Schema lists every option of drbd.conf and then of replblk.conf, by section,
// in the order of the tables: for documentation, completion and tests.
func Schema() []OptionInfo {
	var out []OptionInfo
	for _, s := range slices.Concat(drbdSections, daemonSections) {
		for _, o := range s.options {
			out = append(out, *o)
		}
	}
	return out
}

// isAlgorithm checks an algorithm name: it must fit the 64 byte field of the wire.
func isAlgorithm(s string) string {
	if len(s) >= 64 || strings.ContainsAny(s, " \t") {
		return "an algorithm name of less than 64 bytes"
	}
	return ""
}

func isSecret(s string) string {
	if len(s) >= 64 {
		return "a secret of less than 64 bytes"
	}
	return ""
}

// isCPUMask checks for hexadecimal words of up to 8 digits with commas between.
func isCPUMask(s string) string {
	const want = "hexadecimal digits, a comma after every 8"
	if s == "" {
		return ""
	}
	for i, part := range strings.Split(s, ",") {
		if part == "" || i > 0 && len(part) > 8 || len(part) > 128 || span(part, isHexByte) != len(part) {
			return want
		}
	}
	return ""
}

func isHexByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func anyText(string) string { return "" }
