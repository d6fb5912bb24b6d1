package main

import (
	"strings"
	"testing"

	"github.com/replblk/replblk/internal/config"
)

// Options that would be announced to the peer but not honoured keep a resource down, and
// only that resource.
func TestUnsupportedOptionsAreRefused(t *testing.T) {
	for option, set := range map[string]func(*config.Resource){
		"data-integrity-alg": func(r *config.Resource) { r.Net.DataIntegrityAlg = "sha3-256" },
		"verify-alg":         func(r *config.Resource) { r.Net.VerifyAlg = "sha3-256" },
		"csums-alg":          func(r *config.Resource) { r.Net.CsumsAlg = "sha3-256" },
		"": func(r *config.Resource) {
			r.Net.VerifyAlg, r.Net.DataIntegrityAlg, r.Net.CsumsAlg = "sha256", "crc32c", "md5"
		},
	} {
		r := &config.Resource{Name: "r0", Pos: config.Pos{File: "r0.res", Line: 1, Col: 10}}
		set(r)
		err := (&section{res: r}).unsupported()
		switch {
		case option == "" && err != nil:
			t.Errorf("known algorithms: %v", err)
		case option != "" && (err == nil || !strings.Contains(err.Error(), option) || !strings.Contains(err.Error(), "r0.res:1:10")):
			t.Errorf("%s: %v", option, err)
		}
	}
}
