package config

import (
	"fmt"
	"slices"
	"strings"
)

// builder turns statements into settings. It goes on after an error in a
// statement: the next one may hold another.
type builder struct {
	reporter
}

// winner says which of two settings of one option holds. It differs by place
// because drbdadm hands some lists to the kernel whole, where the last one wins,
// and merges others where not yet set (verified with drbdadm-84 -d up).
type winner bool

const (
	lastWins  winner = false
	firstWins winner = true
)

// settings checks the body of a section against its table and adds it to list.
func (b *builder) settings(s *section, body []*Stmt, list []Setting, win winner) []Setting {
	for _, st := range body {
		if b.full() {
			break
		}
		if set, ok := b.setting(s, st); ok {
			list = b.put(s, list, set, st.Key, win)
		}
	}
	return list
}

// put adds one setting, of which a list holds at most one per option.
func (b *builder) put(s *section, list []Setting, set Setting, key Word, win winner) []Setting {
	if o := s.find(set.Name); o != nil && o.Repeat {
		if len(list) == maxRepeats {
			b.fail(key, fmt.Sprintf("more than %d statements in one section", maxRepeats), "", "")
			return list
		}
		return append(list, set)
	}
	i := slices.IndexFunc(list, func(o Setting) bool { return o.Name == set.Name })
	if i < 0 {
		return append(list, set)
	}
	if win == firstWins || s.firstWins {
		b.warn(key, "set again, this one has no effect; first set at %s", list[i].Pos)
		return list
	}
	b.warn(key, "set again, this one holds; first set at %s", list[i].Pos)
	return append(slices.Delete(list, i, i+1), set)
}

// setting checks one option statement.
func (b *builder) setting(s *section, st *Stmt) (Setting, bool) {
	key := st.Key
	if st.Block {
		b.fail(st.End, fmt.Sprintf("%s is not a section here", key.Text), `";"`, b.elsewhere(s, key.Text))
		return Setting{}, false
	}
	if slices.Contains(s.dropped, key.Text) {
		b.oneValue(st, "a value")
		b.warn(key, "has no effect since DRBD 8.4")
		return Setting{}, false
	}
	if s == diskSection && key.Text == "use-bmbv" {
		b.flagValue(st)
		b.warn(key, "has no effect since DRBD 8.4")
		return Setting{}, false
	}
	name := s.canonical(key.Text)
	if name != key.Text {
		b.warn(key, "deprecated spelling of %s", name)
	}
	if positive, ok := strings.CutPrefix(name, "no-"); ok && slices.Contains(negatable, positive) && s.find(positive) != nil {
		if len(st.Args) > 0 {
			b.fail(st.Args[0], "", `";"`, "")
			return Setting{}, false
		}
		b.warn(key, "deprecated spelling of %s no", positive)
		return Setting{Name: positive, Values: []string{"no"}, Pos: key.Pos}, true
	}
	o := s.find(name)
	if o == nil {
		b.fail(key, "unknown option in section "+s.name, "", b.elsewhere(s, key.Text))
		return Setting{}, false
	}
	if o.Ignored != "" {
		b.warn(key, "has no effect: %s", o.Ignored)
	}
	values, ok := b.values(o, st)
	set := Setting{Name: name, Values: values, Pos: key.Pos, at: key}
	if len(st.Args) > 0 {
		set.at = st.Args[0]
	}
	return set, ok
}

// elsewhere suggests the section an option belongs to, or the nearest option.
func (b *builder) elsewhere(s *section, word string) string {
	for _, other := range slices.Concat(drbdSections, daemonSections) {
		if other != s && other.find(word) != nil && slices.Contains(drbdSections, s) == slices.Contains(drbdSections, other) {
			return fmt.Sprintf("it belongs in section %s", other.name)
		}
	}
	known := s.names()
	for _, a := range s.aliases {
		known = append(known, a.old)
	}
	return didYouMean(word, known)
}

// values checks the arguments of an option and returns them in the form dump prints.
func (b *builder) values(o *OptionInfo, st *Stmt) ([]string, bool) {
	switch {
	case o.Bare:
		if len(st.Args) > 0 {
			b.fail(st.Args[0], "", `";"`, o.Name+" takes no value")
			return nil, false
		}
		return []string{"yes"}, true
	case o.Kind == KindFlag:
		return b.flagValue(st)
	case o.Kind == KindHosts:
		return b.hostNames(st)
	}
	if o.Kind == KindChoice && len(st.Args) > 0 && st.Args[0].kind == wordBare && isKeyword(st.Args[0].Text) {
		return b.keywordChoice(o, st)
	}
	w, ok := b.oneValue(st, o.expected())
	if !ok {
		return nil, false
	}
	s, problem, expected := o.canonicalValue(w.Text)
	if problem != "" || expected != "" {
		b.fail(w, problem, expected, didYouMean(w.Text, o.Choices))
		return nil, false
	}
	if n, err := o.parseNumber(w.Text); err == "" && o.Clamp && (n < o.Min || n > o.Max) {
		b.warn(w, "%s is brought into its range %d..%d", o.Name, o.Min, o.Max)
	}
	return []string{s}, true
}

// keywordChoice is a choice whose value is also a keyword, as in `usage-count no`.
func (b *builder) keywordChoice(o *OptionInfo, st *Stmt) ([]string, bool) {
	cur := cursor{b: b, words: st.Args, end: st.End}
	w := cur.next()
	if !slices.Contains(o.Choices, w.Text) {
		return nil, cur.fail(w, o.expected())
	}
	return []string{w.Text}, cur.done()
}

// oneValue checks that st is `key VALUE ;`.
func (b *builder) oneValue(st *Stmt, expected string) (Word, bool) {
	if len(st.Args) == 0 {
		b.fail(st.End, "value of "+st.Key.Text+" is missing", expected, "")
		return Word{}, false
	}
	w := st.Args[0]
	if !b.value(w, expected) {
		return w, false
	}
	if len(st.Args) > 1 {
		hint := ""
		if st.Args[1].kind == wordPunct {
			hint = "a value with a colon or bracket needs double quotes"
		}
		b.fail(st.Args[1], "", `";"`, hint)
		return w, false
	}
	return w, true
}

// value refuses words that drbdadm's lexer would not take as a value.
func (b *builder) value(w Word, expected string) bool {
	switch {
	case !w.isText():
		b.fail(w, "", expected, "")
	case w.kind == wordBare && (isKeyword(w.Text) || isIPv4(w.Text)):
		b.fail(w, "keyword or address as a value", expected, fmt.Sprintf(`quote it: "%s"`, w.Text))
	default:
		return true
	}
	return false
}

func (b *builder) flagValue(st *Stmt) ([]string, bool) {
	if len(st.Args) == 0 {
		return []string{"yes"}, true
	}
	w := st.Args[0]
	if w.kind != wordBare || w.Text != "yes" && w.Text != "no" {
		b.fail(w, "", "yes | no | ;", "")
		return nil, false
	}
	if len(st.Args) > 1 {
		b.fail(st.Args[1], "", `";"`, "")
		return nil, false
	}
	return []string{w.Text}, true
}

// hostNames are the arguments of on and become-primary-on.
func (b *builder) hostNames(st *Stmt) ([]string, bool) {
	if len(st.Args) == 0 {
		b.fail(st.End, "", "a host name", "")
		return nil, false
	}
	var out []string
	for _, w := range st.Args {
		if !b.name(w, "a host name") {
			return nil, false
		}
		out = append(out, w.Text)
	}
	return out, true
}

// name checks a resource or host name: like a value, and not a number either.
func (b *builder) name(w Word, what string) bool {
	if !b.value(w, what) {
		return false
	}
	if w.kind == wordBare && isInteger(w.Text) {
		b.fail(w, "number", what, fmt.Sprintf(`quote it: "%s"`, w.Text))
		return false
	}
	if w.Text == "" {
		b.fail(Word{Pos: w.Pos, Text: `""`}, "empty name", what, "")
		return false
	}
	return true
}
