package mdtool

import (
	"errors"
	"fmt"
)

// Exit codes of drbdmeta.
const (
	ExitCancelled    = 1  // cancelled by the user, no metadata found, or the log cannot be replayed
	ExitInconsistent = 5  // outdate of data that is not consistent
	ExitConfig       = 10 // sizes or options that cannot be, a dump that cannot be parsed
	ExitDevice       = 20 // not a block device, busy, or it reports an error
	ExitWouldCut     = 40 // a file system would lose its end
)

// ExitError is an error that knows the exit code it deserves.
type ExitError struct {
	Code int
	Err  error
}

// Error returns the text of the wrapped error: the code is for the shell.
func (e *ExitError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ExitError) Unwrap() error { return e.Err }

func exit(code int, format string, args ...any) error {
	return &ExitError{code, fmt.Errorf(format, args...)}
}

func exitWith(code int, err error) error {
	var e *ExitError
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &ExitError{code, err}
}

// ErrCancelled is wrapped by the error of an operation that the user did not confirm.
var ErrCancelled = errors.New("operation cancelled")

// ErrNoMetadata is wrapped by the error of an operation that found none.
var ErrNoMetadata = errors.New("no valid meta data found")
