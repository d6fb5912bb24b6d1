package loopback

import (
	"net"
	"testing"
)

// TestAddress: all of them can be listened at, at the same time.
func TestAddress(t *testing.T) {
	for range 20 {
		l, err := net.Listen("tcp", Address())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
}
