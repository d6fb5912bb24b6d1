//go:build !amd64

package file

// prefetch leaves it to the processor when to fetch p.
func prefetch([]byte) {}
