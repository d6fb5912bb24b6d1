package metadata

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

type tokenKind uint8

const (
	tokEOF tokenKind = iota + 1
	tokWord
	tokString
	tokNumber // decimal
	tokHex8   // 0x and 8 digits
	tokHex16  // 0x and 16 digits
	tokOpen
	tokClose
	tokSemicolon
)

// maxToken bounds a word or string of a dump; the longest that has a meaning is
// the unclean marker.
const maxToken = 80

type token struct {
	kind tokenKind
	text string
	num  uint64
}

func (t token) String() string {
	if t.kind == tokEOF {
		return "end of file"
	}
	return "'" + t.text + "'"
}

// scanner splits a dump into tokens. Its first error sticks: next then returns
// end of file.
type scanner struct {
	r      *bufio.Reader
	line   int
	peeked *token
	err    error
}

func newScanner(r io.Reader) scanner { return scanner{r: bufio.NewReader(r), line: 1} }

func (s *scanner) fail(format string, args ...any) {
	if s.err == nil {
		s.err = &ParseError{s.line, fmt.Sprintf(format, args...)}
	}
}

func (s *scanner) expect(kind tokenKind, what string) token {
	t := s.next()
	if s.err == nil && t.kind != kind {
		s.fail("%s expected, not %s", what, t)
	}
	return t
}

// isWord looks at the next token without taking it.
func (s *scanner) isWord(w string) bool {
	t := s.next()
	s.peeked = &t
	return t.kind == tokWord && t.text == w
}

func (s *scanner) next() token {
	if s.err != nil {
		return token{kind: tokEOF}
	}
	if t := s.peeked; t != nil {
		s.peeked = nil
		return *t
	}
	c, ok := s.skipSpace()
	if !ok {
		return token{kind: tokEOF}
	}
	switch c {
	case '{':
		return token{kind: tokOpen, text: "{"}
	case '}':
		return token{kind: tokClose, text: "}"}
	case ';':
		return token{kind: tokSemicolon, text: ";"}
	case '"':
		return s.str()
	}
	return s.word(c)
}

// skipSpace skips blanks and comments and returns the byte behind them.
func (s *scanner) skipSpace() (byte, bool) {
	comment := false
	for {
		c, ok := s.read()
		switch {
		case !ok:
			return 0, false
		case c == '\n':
			comment = false
		case comment, c == ' ', c == '\t', c == '\r':
		case c == '#':
			comment = true
		default:
			return c, true
		}
	}
}

func (s *scanner) read() (byte, bool) {
	c, err := s.r.ReadByte()
	if err != nil {
		if !errors.Is(err, io.EOF) && s.err == nil {
			s.err = fmt.Errorf("dump, line %d: %w", s.line, err)
		}
		return 0, false
	}
	if c == '\n' {
		s.line++
	}
	return c, true
}

func (s *scanner) unread(c byte) {
	// The byte came from ReadByte, so unreading cannot fail.
	_ = s.r.UnreadByte()
	if c == '\n' {
		s.line--
	}
}

func (s *scanner) str() token {
	var b []byte
	for len(b) < maxToken {
		c, ok := s.read()
		if !ok || c == '\n' {
			s.fail("string is not closed")
			return token{kind: tokEOF}
		}
		if c == '"' {
			return token{kind: tokString, text: string(b)}
		}
		b = append(b, c)
	}
	s.fail("string is longer than %d bytes", maxToken)
	return token{kind: tokEOF}
}

func (s *scanner) word(first byte) token {
	b := []byte{first}
	for {
		c, ok := s.read()
		if !ok {
			break
		}
		if isDelimiter(c) {
			s.unread(c)
			break
		}
		if len(b) == maxToken {
			s.fail("token '%s...' is longer than %d bytes", b, maxToken)
			return token{kind: tokEOF}
		}
		b = append(b, c)
	}
	return s.classify(string(b))
}

func isDelimiter(c byte) bool {
	switch c {
	case ' ', '\t', '\r', '\n', ';', '{', '}', '#', '"':
		return true
	}
	return false
}

func (s *scanner) classify(w string) token {
	if w[0] < '0' || w[0] > '9' {
		return token{kind: tokWord, text: w}
	}
	if len(w) > 2 && w[:2] == "0x" {
		n, err := strconv.ParseUint(w[2:], 16, 64)
		switch {
		case err == nil && len(w) == 10:
			return token{kind: tokHex8, text: w, num: n}
		case err == nil && len(w) == 18:
			return token{kind: tokHex16, text: w, num: n}
		}
		s.fail("invalid hex number (only 8 or 16 hex digits accepted): %s", w)
		return token{kind: tokEOF}
	}
	n, err := strconv.ParseUint(w, 10, 64)
	if err != nil {
		s.fail("invalid number: %s", w)
		return token{kind: tokEOF}
	}
	return token{kind: tokNumber, text: w, num: n}
}
