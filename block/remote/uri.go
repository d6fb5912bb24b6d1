package remote

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/nbd/wire"
)

const maxExportName = 4096 // bytes

// Location is what a URI says.
type Location struct {
	Network, Address string // as of net.Dial
	Export           string
}

// IsURI says whether s looks like the address of an export rather than a path.
func IsURI(s string) bool {
	scheme, _, ok := strings.Cut(s, "://")
	return ok && (scheme == "nbd" || strings.HasPrefix(scheme, "nbd+") || strings.HasPrefix(scheme, "nbds"))
}

// ParseURI reads an NBD URI: nbd://HOST[:PORT]/[EXPORT] or
// nbd+unix:///[EXPORT]?socket=PATH. TLS (nbds) is refused.
func ParseURI(s string) (Location, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Location{}, err
	}
	l := Location{Network: "tcp", Export: strings.TrimPrefix(u.Path, "/")}
	if len(l.Export) > maxExportName {
		return Location{}, fmt.Errorf("export name of %d bytes, at most %d are allowed", len(l.Export), maxExportName)
	}
	switch u.Scheme {
	case "nbd", "nbd+tcp":
		if u.Hostname() == "" {
			return Location{}, fmt.Errorf("%s: no host", s)
		}
		port := u.Port()
		if port == "" {
			port = "10809"
		}
		l.Address = net.JoinHostPort(u.Hostname(), port)
	case "nbd+unix":
		l.Network, l.Address = "unix", u.Query().Get("socket")
		if l.Address == "" {
			return Location{}, fmt.Errorf("%s: no socket=PATH", s)
		}
	default:
		return Location{}, fmt.Errorf("%s: %q is not nbd, nbd+tcp or nbd+unix", s, u.Scheme)
	}
	return l, nil
}

// usable says what stands against using an export.
func usable(e wire.Export, readOnly bool) error {
	switch {
	case e.Minimum > block.SectorSize:
		return fmt.Errorf("the server insists on blocks of %d bytes", e.Minimum)
	case e.Size < block.SectorSize:
		return fmt.Errorf("the export has %d bytes", e.Size)
	case !readOnly && e.Flags&wire.FlagReadOnly != 0:
		return fmt.Errorf("the export is read-only: %w", syscall.EROFS)
	}
	return nil
}

// errno translates the error of a reply.
func errno(code uint32) syscall.Errno {
	switch e := syscall.Errno(code); e {
	case syscall.EPERM:
		return syscall.EROFS
	case syscall.EIO, syscall.EINVAL, syscall.ENOSPC:
		return e
	case wire.ENOTSUP:
		return syscall.EOPNOTSUPP
	case wire.ESHUTDOWN:
		return syscall.ESHUTDOWN
	default:
		return syscall.EIO
	}
}
