package config

import (
	"os"
	"testing"
)

func seeds(f *testing.F, patterns ...string) {
	for _, pattern := range patterns {
		for _, file := range samples(f, pattern, 1) {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(data))
		}
	}
}

// FuzzParse: no panic on any text, every error has a place, and what is accepted
// survives dump and reading again, twice.
func FuzzParse(f *testing.F) {
	seeds(f, "testdata/valid/*.conf", "testdata/invalid/*.conf", "testdata/stricter/*.conf", "testdata/lab/*")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(memFS{"/inc": text}, "/t.conf", []byte(text))
		if err != nil {
			checkErrors(t, err)
			return
		}
		out := c.Dump()
		again, err := Parse(memFS{}, "/dump", []byte(out))
		if err != nil {
			t.Fatalf("the dump is refused: %v\n%s", err, out)
		}
		if a, b := dump(c.forget()), dump(again.forget()); a != b {
			t.Fatalf("before:\n%s\nafter:\n%s\ntext:\n%s", a, b, out)
		}
		for _, r := range c.Resources {
			r.Local("alpha", nil)
		}
	})
}

// FuzzParseDaemon is the same for replblk.conf.
func FuzzParseDaemon(f *testing.F) {
	seeds(f, "testdata/replblk/*")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDaemon(memFS{"/inc": text}, "/t.conf", []byte(text))
		if err != nil {
			checkErrors(t, err)
			return
		}
		again, err := ParseDaemon(memFS{}, "/dump", []byte(d.Dump()))
		if err != nil {
			t.Fatalf("the dump is refused: %v\n%s", err, d.Dump())
		}
		if a, b := dump(d.forget()), dump(again.forget()); a != b {
			t.Fatalf("before:\n%s\nafter:\n%s", a, b)
		}
	})
}
