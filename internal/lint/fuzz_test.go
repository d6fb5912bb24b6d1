package lint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// decoders are the packages that read what others wrote.
var decoders = []string{
	"replication/wire", "bitmap", "metadata", "activitylog", "internal/config", "nbd", "aoe", "internal/control",
	"node/transport", // a stream in any pieces
	"replication",    // a whole connection in every state
}

// Every decoder has a fuzz target, with a corpus in the repository.
func TestDecodersAreFuzzed(t *testing.T) {
	names := testNames(t)
	for _, pkg := range decoders {
		corpus, err := os.ReadDir(filepath.Join("..", "..", pkg, "testdata", "fuzz"))
		if err != nil || len(corpus) == 0 {
			t.Errorf("%s has no corpus: %v", pkg, err)
		}
		for _, dir := range corpus {
			if !strings.HasPrefix(dir.Name(), "Fuzz") || !names[pkg+"."+dir.Name()] {
				t.Errorf("%s: a corpus for %s, which is no fuzz target", pkg, dir.Name())
			}
		}
	}
}
