package config

import (
	"fmt"
	"strings"
)

// Dump writes the configuration as `drbdadm dump` does: one file without
// includes, in 8.4 spelling, options where they were set and not where they are
// inherited. Reading it gives an equal Config, positions aside; the only
// comments are where each resource was defined.
func (c *Config) Dump() string {
	var d dumper
	if len(c.GlobalSet) > 0 {
		d.open("global")
		d.settings(c.GlobalSet, globalSection)
		d.close()
		d.line("")
	}
	if c.HasCommon {
		d.open("common")
		d.scope(&c.Common)
		d.close()
		d.line("")
	}
	for _, r := range c.Resources {
		d.line("# defined at %s:%d", comment(r.Pos.File), r.Pos.Line)
		d.open("resource " + quote(r.Name))
		for _, h := range r.Hosts {
			d.host(h, flat(r))
		}
		d.scope(&r.Own)
		d.close()
		d.line("")
	}
	return d.String()
}

// comment keeps a file name with a newline from ending a comment.
func comment(s string) string { return strings.Map(func(c rune) rune { return max(c, ' ') }, s) }

type dumper struct {
	strings.Builder
	depth int
}

func (d *dumper) line(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if s != "" {
		d.WriteString(strings.Repeat("    ", d.depth))
	}
	d.WriteString(s + "\n")
}

func (d *dumper) open(head string) {
	d.line("%s {", head)
	d.depth++
}

func (d *dumper) close() {
	d.depth--
	d.line("}")
}

// stmt writes a statement; its value is already quoted.
func (d *dumper) stmt(name, value string) { d.line("%-16s %s;", name, value) }

func (d *dumper) scope(s *Scope) {
	d.block("options", s.Options, optionsSection)
	d.block("net", s.Net, netSection)
	d.block("disk", s.Disk, diskSection)
	d.block("startup", s.Startup, startupSection)
	d.block("handlers", s.Handlers, handlersSection)
}

func (d *dumper) block(name string, list []Setting, s *section) {
	if len(list) > 0 {
		d.open(name)
		d.settings(list, s)
		d.close()
	}
}

func (d *dumper) settings(list []Setting, s *section) {
	for _, set := range list {
		o := s.find(set.Name)
		switch {
		case o.Bare:
			d.line("%s;", set.Name)
		case o.Kind == KindFlag, o.Kind == KindChoice:
			d.stmt(set.Name, choiceWord(set.Values[0]))
		case o.Kind == KindHosts:
			d.stmt(set.Name, names(set.Values))
		default:
			d.stmt(set.Name, quoteValue(set.Values[0]))
		}
	}
}

// flat reports whether a resource can be written with the implicit volume 0. A
// host section cannot hold both forms of disk, path and options, so volumes with
// options need volume{}.
func flat(r *Resource) bool {
	for _, h := range r.Hosts {
		if len(h.Volumes) != 1 || h.Volumes[0].Number != 0 || len(h.Volumes[0].DiskSet) > 0 {
			return false
		}
	}
	return true
}

func (d *dumper) host(h *Host, flat bool) {
	switch {
	case h.StackedOn != "":
		d.open("stacked-on-top-of " + quoteValue(h.StackedOn))
	case h.Floating:
		d.open("floating " + h.Address.String())
	default:
		d.open("on " + names(h.Names))
	}
	for _, v := range h.Volumes {
		if !flat {
			d.open(fmt.Sprintf("volume %d", v.Number))
		}
		d.volume(h, v)
		if !flat {
			d.close()
		}
	}
	if !h.Floating {
		d.stmt("address", h.Address.String())
	}
	d.close()
}

func (d *dumper) volume(h *Host, v *Volume) {
	d.block("disk", v.DiskSet, diskSection)
	d.stmt("device", fmt.Sprintf("%s minor %d", quoteValue(v.Device), v.Minor))
	if h.StackedOn != "" {
		return // disk and metadata follow from the resource below
	}
	d.stmt("disk", quoteValue(v.Disk))
	m := v.MetaDisk
	switch {
	case m.Internal():
		d.stmt("meta-disk", "internal")
	case m.Flexible():
		d.stmt("meta-disk", quoteValue(m.Path))
	default:
		d.stmt("meta-disk", fmt.Sprintf("%s [%d]", quoteValue(m.Path), m.Index))
	}
}

func names(list []string) string {
	quoted := make([]string, len(list))
	for i, n := range list {
		quoted[i] = quote(n)
	}
	return strings.Join(quoted, " ")
}

// choiceWord writes a flag or choice. Those are bare even where they are
// keywords; only discard-node-HOST may need quotes.
func choiceWord(s string) string {
	if isKeyword(s) {
		return s
	}
	return quoteValue(s)
}

// quote writes a name: in quotes if it would be read as something else without.
func quote(s string) string {
	if isInteger(s) {
		return `"` + s + `"`
	}
	return quoteValue(s)
}

// quoteValue writes a value, which may be a number.
func quoteValue(s string) string {
	if s != "" && len(s) <= maxBareWord && span(s, isBareByte) == len(s) && !isKeyword(s) && !isIPv4(s) {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
