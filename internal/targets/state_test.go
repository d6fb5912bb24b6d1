package targets

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/replblk/replblk/aoe"
)

func TestKeepAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	path := filepath.Join(dir, "e7.3.json")
	given := aoe.State{Config: []byte("given"), Mask: []aoe.MAC{{2, 0, 0, 0, 0, 1}}}
	if got, err := Load(path, aoe.PermitAll, given); err != nil || !reflect.DeepEqual(got, given) {
		t.Errorf("without a file: %+v, %v", got, err)
	}
	set := aoe.State{Config: []byte{0, 0xff, '"'}, Mask: []aoe.MAC{{2, 0, 0, 0, 0, 2}}, Reserve: []aoe.MAC{{2, 0, 0, 0, 0, 3}}, Generation: 9}
	for range 2 { // the second time there is a file
		if err := Keep(path, set); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Load(path, aoe.PermitAll, given); err != nil || !reflect.DeepEqual(got, set) {
		t.Errorf("%+v, %v, want %+v", got, err, set)
	}
	want := aoe.State{Config: set.Config, Mask: given.Mask, Reserve: set.Reserve, Generation: 9}
	if got, err := Load(path, aoe.PermitConfig|aoe.PermitReserve, given); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("mask list not permitted: %+v, %v, want %+v", got, err, want)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("%v, %v: more than the file is left", list, err)
	}
}

func TestLoadDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.json")
	for _, text := range []string{"", "{", `{"mask":["zz"]}`, `{"reserve":["02:00"]}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, aoe.PermitAll, aoe.State{}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v, want an error that names the file", text, err)
		}
	}
}

func TestKeepFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Keep(filepath.Join(dir, "file", "x.json"), aoe.State{}); err == nil {
		t.Error("kept a state below a file")
	}
}
