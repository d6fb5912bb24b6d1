package config

import (
	"fmt"
	"strings"
)

// Limits of 11.1.
const (
	maxBareWord   = 128
	maxQuotedWord = 255
)

// wordKind says how a word was written, which decides where it may stand.
type wordKind uint8

const (
	wordEOF    wordKind = iota // Text is empty
	wordBare                   // [a-zA-Z0-9/._-]+, or an IPv6 literal in brackets
	wordQuoted                 // "…", Text is unescaped
	wordPunct                  // one of { } ; [ ] :
)

// Word is one token with its place.
type Word struct {
	Pos  Pos
	Text string
	kind wordKind
}

// is reports whether w is the punctuation mark p.
func (w Word) is(p string) bool { return w.kind == wordPunct && w.Text == p }

// isText reports whether w can be a value: bare or quoted.
func (w Word) isText() bool { return w.kind == wordBare || w.kind == wordQuoted }

// lexer cuts one file into words. A copy of it is a bookmark.
type lexer struct {
	src  string
	file string
	off  int
	line int
	bol  int // offset of the first byte of the line
	// bracket is set after "[": an IPv6 literal may follow, and it is the only
	// word that contains colons.
	bracket bool
}

func newLexer(file, src string) *lexer { return &lexer{src: src, file: file, line: 1} }

func (l *lexer) pos() Pos { return Pos{File: l.file, Line: l.line, Col: l.off - l.bol + 1} }

// next returns the next word; at the end a wordEOF, again and again.
func (l *lexer) next() (Word, *Error) {
	l.skipBlank()
	w := Word{Pos: l.pos()}
	if l.off == len(l.src) {
		return w, nil
	}
	bracket := l.bracket
	l.bracket = false
	if bracket {
		if n := span(l.src[l.off:], isIPv6Byte); strings.Contains(l.src[l.off:l.off+n], ":") {
			return l.bare(w, n)
		}
	}
	c := l.src[l.off]
	switch {
	case strings.IndexByte("{};[]:", c) >= 0:
		l.off++
		l.bracket = c == '['
		w.kind, w.Text = wordPunct, string(c)
		return w, nil
	case c == '"':
		return l.quoted(w)
	case isBareByte(c):
		return l.bare(w, span(l.src[l.off:], isBareByte))
	}
	return w, &Error{Pos: w.Pos, Word: printable(c), Problem: "unexpected character",
		Hint: `a word with other characters than letters, digits and /._- needs double quotes`}
}

func (l *lexer) skipBlank() {
	for l.off < len(l.src) {
		switch c := l.src[l.off]; c {
		case '\n':
			l.off++
			l.line++
			l.bol = l.off
		case ' ', '\t', '\r':
			l.off++
		case '#':
			n := strings.IndexByte(l.src[l.off:], '\n')
			if n < 0 {
				n = len(l.src) - l.off
			}
			l.off += n
		default:
			return
		}
	}
}

func (l *lexer) bare(w Word, n int) (Word, *Error) {
	w.kind, w.Text = wordBare, l.src[l.off:l.off+n]
	if n > maxBareWord {
		return w, &Error{Pos: w.Pos, Word: w.Text[:20] + "…",
			Problem: fmt.Sprintf("unquoted word of %d bytes, at most %d", n, maxBareWord)}
	}
	l.off += n
	return w, nil
}

// quoted reads a string: a backslash makes the next character ordinary, whatever
// it is, so there is no way to write a newline.
func (l *lexer) quoted(w Word) (Word, *Error) {
	w.kind = wordQuoted
	var text []byte
	for i := l.off + 1; i < len(l.src); i++ {
		c := l.src[i]
		if c == '"' {
			l.off, w.Text = i+1, string(text)
			return w, nil
		}
		if c == '\\' && i+1 < len(l.src) {
			i++
			c = l.src[i]
		}
		if c == '\n' || c == 0 {
			break
		}
		if len(text) == maxQuotedWord {
			return w, &Error{Pos: w.Pos, Word: string(text[:20]) + "…",
				Problem: fmt.Sprintf("quoted string of more than %d bytes", maxQuotedWord)}
		}
		text = append(text, c)
	}
	return w, &Error{Pos: w.Pos, Word: `"` + string(text[:min(len(text), 20)]), Problem: "unterminated string",
		Expected: `a closing double quote on the same line`}
}

func span(s string, ok func(byte) bool) int {
	n := 0
	for n < len(s) && ok(s[n]) {
		n++
	}
	return n
}

func isBareByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '/' || c == '.' || c == '_' || c == '-'
}

func isIPv6Byte(c byte) bool { return isBareByte(c) && c != '/' || c == ':' || c == '%' }

// printable shows a byte that is not part of the grammar.
func printable(c byte) string {
	if c >= 0x20 && c < 0x7f {
		return string(rune(c))
	}
	return fmt.Sprintf("byte 0x%02x", c)
}
