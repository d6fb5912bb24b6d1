package config

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// FS is all the parser needs of a file system.
type FS interface {
	// ReadFile returns the content of path, or an error if it has more than
	// limit bytes.
	ReadFile(path string, limit int64) ([]byte, error)
	// Glob returns the files matching a shell pattern, sorted; none is no error.
	Glob(pattern string) ([]string, error)
	// RealPath identifies a file: two paths to one file have the same real path.
	RealPath(path string) (string, error)
}

// OS is the machine's file system.
type OS struct{}

// ReadFile implements [FS].
func (OS) ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// One byte more than allowed tells "just fits" from "too long", also for
	// files without a size such as pipes.
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return data, err
}

// Glob implements [FS].
func (OS) Glob(pattern string) ([]string, error) { return filepath.Glob(pattern) }

// RealPath implements [FS].
func (OS) RealPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// DefaultPaths are the files drbdadm-84 tries, in its order (11.2).
var DefaultPaths = []string{
	"/etc/drbd-84.conf", "/etc/drbd-83.conf", "/etc/drbd-82.conf", "/etc/drbd-08.conf", "/etc/drbd.conf",
}

// DefaultPath returns the first existing file of DefaultPaths.
func DefaultPath(fsys FS) (string, error) {
	for _, p := range DefaultPaths {
		if _, err := fsys.RealPath(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("none of %v exists", DefaultPaths)
}
