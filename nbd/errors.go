package nbd

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/nbd/wire"
)

// ErrUnknownExport makes Export.Open answer that there is no such export. Any
// other error of Open refuses the client with the error's text.
var ErrUnknownExport = errors.New("unknown export")

// errNeedsTLS refuses an export, or everything, to a client without TLS.
var errNeedsTLS = errors.New("TLS is required")

// ErrClosed is returned by Serve and ServeConn after Shutdown.
var ErrClosed = errors.New("nbd server closed")

// ProtocolError says how a client broke the protocol. The connection was dropped.
type ProtocolError struct {
	What string
	Got  uint64
}

// Error implements error.
func (e *ProtocolError) Error() string {
	return fmt.Sprintf("protocol violation: %s 0x%x", e.What, e.Got)
}

// wireError maps the error of a device to the few that NBD knows. ESHUTDOWN is
// never sent: clients hand it to their users, while a dropped connection makes
// them come back.
func wireError(err error) uint32 {
	if err == nil {
		return 0
	}
	switch block.Errno(err) {
	case syscall.EPERM, syscall.EROFS, syscall.EACCES:
		return wire.EPERM
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return wire.ENOSPC
	case syscall.EINVAL:
		return wire.EINVAL
	case syscall.EOPNOTSUPP:
		return wire.ENOTSUP
	default:
		return wire.EIO
	}
}

// refusal maps the error of opening an export to an option reply.
func refusal(err error) (reply uint32, text string) {
	if errors.Is(err, ErrUnknownExport) || errors.Is(err, fs.ErrNotExist) {
		return wire.RepErrUnknown, err.Error()
	}
	if errors.Is(err, errNeedsTLS) {
		return wire.RepErrTLSReqd, err.Error()
	}
	return wire.RepErrPolicy, err.Error()
}
