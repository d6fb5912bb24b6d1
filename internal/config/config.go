package config

import "strconv"

// Load reads a drbd.conf and everything it includes. The error is an
// [ErrorList]; the warnings are in the Config.
func Load(fsys FS, path string) (*Config, error) {
	p := parser{fsys: fsys, seen: make(map[string]bool)}
	stmts, err := p.parseFile(path, fileWord(path), 0)
	return finish(&p, stmts, err)
}

// Parse reads a drbd.conf that is already in memory. Name stands for the file in
// positions, and relative includes are looked up beside it.
func Parse(fsys FS, name string, data []byte) (*Config, error) {
	p := parser{fsys: fsys, seen: make(map[string]bool)}
	stmts, err := p.parseText(name, string(data), fileWord(name), 0)
	return finish(&p, stmts, err)
}

// fileWord is the position of errors about the first file itself.
func fileWord(path string) Word {
	return Word{Pos: Pos{File: path, Line: 1, Col: 1}, Text: path}
}

func finish(p *parser, stmts []*Stmt, syntax *Error) (*Config, error) {
	if syntax != nil {
		return nil, ErrorList{syntax}
	}
	var raw rawConfig
	raw.buildFile(stmts)
	// Inheritance of half-read sections would only repeat their errors in
	// other words ("disk is missing"), so it waits for a clean reading.
	if err := raw.err(); err != nil {
		return nil, err
	}
	c := raw.resolve()
	if err := raw.err(); err != nil {
		return nil, err
	}
	raw.check(c)
	if err := raw.err(); err != nil {
		return nil, err
	}
	c.Files, c.Warnings = p.files, raw.warnings
	return c, nil
}

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
