package main

import "testing"

// The vectors were checked against drbdadm dump (spec/ecosystem.md 2.3).
func TestAddressHash(t *testing.T) {
	for ip, want := range map[string]uint32{
		"127.0.0.1": 0xa910937e, "127.0.0.2": 0xba40608a, "10.0.0.1": 0xf81b08b9, "10.0.0.2": 0xeb4bfb4d,
	} {
		if got := addressHash(ip); got != want {
			t.Errorf("%s: %#x, want %#x", ip, got, want)
		}
	}
}
