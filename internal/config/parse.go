package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// Limits on what is read; see the package comment.
const (
	maxFileSize     = 1 << 20
	maxTotalSize    = 16 << 20
	maxFiles        = 1024
	maxIncludeDepth = 16
	maxBlockDepth   = 8
	maxStatementLen = 64
)

// Stmt is one statement: `key args ;` or `key args { body }`. The tree knows no
// option; it is the same for drbd.conf and replblk.conf.
type Stmt struct {
	Key  Word
	Args []Word
	// Block tells `key { }` from `key ;`.
	Block bool
	Body  []*Stmt
	// End is the ";" or "{" after the last argument: where a missing word is.
	End Word
}

// parser reads a file and what it includes into one list of statements.
type parser struct {
	fsys  FS
	files []string        // in the order read
	seen  map[string]bool // by real path
	total int             // bytes read
}

// parseFile reads path and everything it includes. At is the include statement's
// argument, for errors about the file itself.
func (p *parser) parseFile(path string, at Word, depth int) ([]*Stmt, *Error) {
	fail := func(problem string) *Error { return &Error{Pos: at.Pos, Word: at.Text, Problem: problem} }
	if depth > maxIncludeDepth {
		return nil, fail(fmt.Sprintf("includes nest more than %d deep", maxIncludeDepth))
	}
	realPath, err := p.fsys.RealPath(path)
	if err != nil {
		return nil, fail(fmt.Sprintf("open %s: %v", path, cause(err)))
	}
	if p.seen[realPath] {
		return nil, nil // drbdadm reads each file once, however it is reached
	}
	p.seen[realPath] = true
	if len(p.files) == maxFiles {
		return nil, fail(fmt.Sprintf("more than %d files", maxFiles))
	}
	data, err := p.fsys.ReadFile(path, maxFileSize)
	if err != nil {
		return nil, fail(fmt.Sprintf("read %s: %v", path, cause(err)))
	}
	return p.parseText(path, string(data), at, depth)
}

// cause drops the path from a file error: it is already in ours, and RealPath
// names another part of it.
func cause(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// parseText parses the content of one file.
func (p *parser) parseText(path, src string, at Word, depth int) ([]*Stmt, *Error) {
	p.files = append(p.files, path)
	p.total += len(src)
	if len(src) > maxFileSize || p.total > maxTotalSize {
		return nil, &Error{Pos: at.Pos, Word: at.Text,
			Problem: fmt.Sprintf("%s: more than %d bytes in a file or %d in all", path, maxFileSize, maxTotalSize)}
	}
	l := newLexer(path, src)
	var out []*Stmt
	for {
		w, err := l.next()
		if err != nil {
			return nil, err
		}
		if w.kind == wordEOF {
			return out, nil
		}
		more, err := p.parseTop(l, w, depth)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
}

// parseTop parses one section of a file: skip and include are resolved here and
// leave no trace in the tree.
func (p *parser) parseTop(l *lexer, key Word, depth int) ([]*Stmt, *Error) {
	if key.kind == wordBare && key.Text == "skip" {
		return nil, skipBlock(l)
	}
	st, err := parseStmt(l, key, 0)
	if err != nil || key.Text != "include" {
		return []*Stmt{st}, err
	}
	return p.include(st, depth)
}

// skipBlock drops `[WORD] { … }`; the body need only be words with balanced braces.
func skipBlock(l *lexer) *Error {
	w, err := l.next()
	if err == nil && w.isText() {
		if w.kind == wordBare && isKeyword(w.Text) {
			return &Error{Pos: w.Pos, Word: w.Text, Problem: "keyword after skip", Expected: `a name or "{"`,
				Hint: fmt.Sprintf(`quote it: "%s"`, w.Text)}
		}
		w, err = l.next()
	}
	if err == nil && !w.is("{") {
		return &Error{Pos: w.Pos, Word: w.Text, Expected: `"{"`}
	}
	for depth := 1; err == nil && depth > 0; {
		w, err = l.next()
		switch {
		case err != nil:
		case w.kind == wordEOF:
			return &Error{Pos: w.Pos, Expected: `"}" to end skip`}
		case w.is("{"):
			depth++
		case w.is("}"):
			depth--
		}
	}
	return err
}

func (p *parser) include(st *Stmt, depth int) ([]*Stmt, *Error) {
	if st.Block || len(st.Args) != 1 || !st.Args[0].isText() {
		at := st.End
		if len(st.Args) > 0 {
			at = st.Args[min(1, len(st.Args)-1)]
		}
		return nil, &Error{Pos: at.Pos, Word: at.Text, Expected: `include "FILE or pattern" ;`}
	}
	at := st.Args[0]
	path := at.Text
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(at.Pos.File), path)
	}
	names := []string{path}
	if strings.ContainsAny(path, "*?[") {
		var err error
		if names, err = p.fsys.Glob(path); err != nil {
			return nil, &Error{Pos: at.Pos, Word: at.Text, Problem: err.Error()}
		}
	}
	var out []*Stmt
	for _, name := range names {
		more, err := p.parseFile(name, at, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// parseStmt parses one statement whose first word has been read.
func parseStmt(l *lexer, key Word, depth int) (*Stmt, *Error) {
	if key.kind != wordBare {
		e := &Error{Pos: key.Pos, Word: key.Text, Expected: "a section or option name"}
		if key.kind == wordQuoted {
			e.Hint = "names of sections and options are not quoted"
		}
		return nil, e
	}
	st := &Stmt{Key: key}
	for {
		w, err := l.next()
		switch {
		case err != nil:
			return nil, err
		case w.is(";"):
			st.End = w
			return st, nil
		case w.is("{"):
			st.End, st.Block = w, true
			st.Body, err = parseBody(l, w, depth+1)
			return st, err
		case w.is("}") || w.kind == wordEOF:
			return nil, &Error{Pos: w.Pos, Word: w.Text, Problem: fmt.Sprintf("%s is not finished", key.Text), Expected: `";" or "{"`}
		case len(st.Args) == maxStatementLen:
			return nil, &Error{Pos: w.Pos, Word: w.Text, Problem: fmt.Sprintf("statement of more than %d words", maxStatementLen), Expected: `";"`}
		}
		st.Args = append(st.Args, w)
	}
}

func parseBody(l *lexer, open Word, depth int) ([]*Stmt, *Error) {
	if depth > maxBlockDepth {
		return nil, &Error{Pos: open.Pos, Word: open.Text, Problem: fmt.Sprintf("blocks nest more than %d deep", maxBlockDepth)}
	}
	var body []*Stmt
	for {
		w, err := l.next()
		if err != nil {
			return nil, err
		}
		if w.is("}") {
			return body, nil
		}
		if w.kind == wordEOF {
			return nil, &Error{Pos: w.Pos, Expected: `"}"`, Problem: fmt.Sprintf("the block opened at %d:%d is not closed", open.Pos.Line, open.Pos.Col)}
		}
		st, err := parseStmt(l, w, depth)
		if err != nil {
			return nil, err
		}
		body = append(body, st)
	}
}
