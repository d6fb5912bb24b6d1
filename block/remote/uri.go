package remote

import (
	"fmt"
	"net"
	"net/url"
	"strings"
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
