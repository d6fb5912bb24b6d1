package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// expected describes the values an option takes, for error messages.
func (o *OptionInfo) expected() string {
	switch o.Kind {
	case KindNumber:
		unit := ""
		switch o.Unit {
		case 'k':
			unit = " KiB"
		case 's':
			unit = " sectors"
		}
		return fmt.Sprintf("a number in %d..%d%s", o.Min, o.Max, unit)
	case KindFlag:
		return "yes | no | ;"
	case KindChoice:
		return oneOf(o.Choices)
	case KindHosts:
		return "host names"
	case KindText:
		return "a string"
	}
	return ""
}

// canonicalValue checks a value and returns it as dump writes it, or what is
// wrong with it and what was expected; one of the last two is not empty then.
func (o *OptionInfo) canonicalValue(s string) (canonical, problem, expected string) {
	switch o.Kind {
	case KindNumber:
		n, problem := o.parseNumber(s)
		if problem == "" && !o.Clamp && (n < o.Min || n > o.Max) {
			problem = fmt.Sprintf("%s = %d is out of range", o.Name, n)
		}
		if problem != "" {
			return "", problem, o.expected()
		}
	case KindChoice:
		if o.Name == "protocol" {
			s = strings.ToUpper(s)
		}
		node, isNode := strings.CutPrefix(s, discardNodePrefix)
		if isNode && node != "" && slices.Contains(o.Choices, discardNodePrefix+"HOST") || slices.Contains(o.Choices, s) {
			return s, "", ""
		}
		return "", "unknown value for " + o.Name, o.expected()
	case KindText:
		return s, "", o.check(s)
	case KindFlag, KindHosts:
	}
	return s, "", ""
}

// parseNumber converts a number with an optional unit to the option's default
// unit, rounding up where that is coarser (11.1).
func (o *OptionInfo) parseNumber(s string) (n uint64, problem string) {
	notNumber := "not a number"
	digits := span(s, isDigit)
	if o.Kind != KindNumber || digits == 0 || len(s)-digits > 1 {
		return 0, notNumber
	}
	n, err := strconv.ParseUint(s[:digits], 10, 64)
	if err != nil {
		return 0, "number too large"
	}
	if digits == len(s) {
		return n, ""
	}
	from, ok := unitBytes(s[digits])
	if !ok {
		return 0, notNumber + " with a unit K, M, G or s"
	}
	to, _ := unitBytes(o.Unit)
	if n > math.MaxUint64/from-to {
		return 0, "number too large"
	}
	return (n*from + to - 1) / to, ""
}

// unitBytes is the size of a unit; upper case S is not one.
func unitBytes(u byte) (uint64, bool) {
	switch u {
	case '1':
		return 1, true
	case 's':
		return 512, true
	case 'k', 'K':
		return 1 << 10, true
	case 'm', 'M':
		return 1 << 20, true
	case 'g', 'G':
		return 1 << 30, true
	}
	return 0, false
}

// decode gives a checked canonical value its meaning.
func (o *OptionInfo) decode(values []string) value {
	v := value{text: values}
	switch o.Kind {
	case KindNumber:
		v.n, _ = o.parseNumber(values[0])
		if o.Clamp {
			v.n = min(max(v.n, o.Min), o.Max)
		}
	case KindFlag:
		v.flag = values[0] == "yes"
	case KindChoice, KindText, KindHosts:
	}
	return v
}

// apply fills *T: every default, then the settings in order.
func apply[T any](specs []spec[T], settings []Setting, t *T) {
	for i := range specs {
		if s := &specs[i]; s.Default != "" {
			s.set(t, s.decode([]string{s.Default}))
		}
	}
	for _, set := range settings {
		i := slices.IndexFunc(specs, func(s spec[T]) bool { return s.Name == set.Name })
		specs[i].set(t, specs[i].decode(set.Values))
	}
}

// integer parses a plain number of at most 8 digits, as the lexer of drbdadm
// knows them; a unit suffix is not accepted where a count is meant.
func integer(w Word, limit uint64) (uint64, bool) {
	if w.kind != wordBare || len(w.Text) > 8 || span(w.Text, isDigit) != len(w.Text) {
		return 0, false
	}
	n, err := strconv.ParseUint(w.Text, 10, 64)
	return n, err == nil && n <= limit
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// isInteger reports whether drbdadm's lexer would call s a number.
func isInteger(s string) bool {
	digits := span(s, isDigit)
	return digits > 0 && digits <= 8 && (len(s) == digits || len(s) == digits+1 && strings.IndexByte("MKGs", s[digits]) >= 0)
}

// isIPv4 reports whether s looks like an IPv4 address, in range or not.
func isIPv4(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 4 {
		return false
	}
	for _, p := range parts {
		if len(p) == 0 || len(p) > 3 || span(p, isDigit) != len(p) {
			return false
		}
	}
	return true
}

// address parses address-spec, which must be all of args:
// `[family] A.B.C.D : PORT` or `ipv6 [ IP ] : PORT`.
func (b *builder) address(args []Word, end Word) (Address, bool) {
	const want = "ssocks | sdp | ipv4 | ipv6 | <ipv4 address>"
	a := Address{Family: IPv4}
	c := cursor{b: b, words: args, end: end}
	w := c.next()
	if w.kind == wordBare {
		switch w.Text {
		case "ipv4", "ipv6", "sdp", "ssocks":
			a.Family = Family(w.Text)
			w = c.next()
		case "sci":
			a.Family = SSOCKS
			w = c.next()
		}
	}
	bracketed := a.Family == IPv6
	if bracketed {
		if !w.is("[") {
			return a, c.fail(w, `"["`)
		}
		w = c.next()
	}
	ip, err := netip.ParseAddr(w.Text)
	if err != nil || w.kind != wordBare || ip.Is4() == bracketed {
		if bracketed {
			return a, c.fail(w, "an IPv6 address")
		}
		if isIPv4(w.Text) {
			return a, c.fail(w, "an IPv4 address of numbers in 0..255")
		}
		return a, c.fail(w, want)
	}
	a.IP = ip
	if bracketed && !c.punct("]") || !c.punct(":") {
		return a, false
	}
	w = c.next()
	port, ok := integer(w, 65535)
	if !ok || port == 0 {
		return a, c.fail(w, "a port in 1..65535")
	}
	a.Port = uint16(port)
	return a, c.done()
}

// cursor walks the arguments of one statement; past them it yields the word that
// ended it, so that errors about missing words have a place.
type cursor struct {
	b     *builder
	words []Word
	end   Word
	i     int
}

func (c *cursor) peek() Word {
	if c.i < len(c.words) {
		return c.words[c.i]
	}
	return c.end
}

func (c *cursor) next() Word {
	w := c.peek()
	c.i = min(c.i+1, len(c.words))
	return w
}

// fail reports w and is false, to be returned.
func (c *cursor) fail(w Word, expected string) bool {
	c.b.fail(w, "", expected, "")
	return false
}

func (c *cursor) punct(p string) bool {
	if w := c.next(); !w.is(p) {
		return c.fail(w, strconv.Quote(p))
	}
	return true
}

// done checks that nothing is left before the end of the statement.
func (c *cursor) done() bool {
	if c.i < len(c.words) {
		return c.fail(c.words[c.i], strconv.Quote(c.end.Text))
	}
	return true
}

// ParseSectors reads a size as the option "size" has it: sectors, or a number with one of
// the units s, K, M, G.
func ParseSectors(s string) (uint64, error) {
	o := OptionInfo{Kind: KindNumber, Unit: 's'}
	n, problem := o.parseNumber(s)
	if problem != "" {
		return 0, errors.New(problem)
	}
	return n, nil
}
