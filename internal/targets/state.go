package targets

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/replblk/replblk/aoe"
)

// kept is what initiators have set, as it is kept in a file.
type kept struct {
	Config  []byte   `json:"config-string"`
	Mask    []string `json:"mask"`
	Reserve []string `json:"reserve"`

	Generation uint64 `json:"generation"` // how often they have
}

// Load returns st with what initiators may set, by permit, as the file at path has it. A file
// that does not exist changes nothing.
func Load(path string, permit aoe.Permit, st aoe.State) (aoe.State, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return st, nil
	}
	var k kept
	if err == nil {
		err = json.Unmarshal(text, &k)
	}
	if err != nil {
		return st, fmt.Errorf("%s: %w", path, err)
	}
	mask, err := ParseMACs(k.Mask)
	if err != nil {
		return st, fmt.Errorf("%s: mask: %w", path, err)
	}
	reserve, err := ParseMACs(k.Reserve)
	if err != nil {
		return st, fmt.Errorf("%s: reserve: %w", path, err)
	}
	st.Generation = k.Generation
	if permit&aoe.PermitConfig != 0 {
		st.Config = k.Config
	}
	if permit&aoe.PermitMask != 0 {
		st.Mask = mask
	}
	if permit&aoe.PermitReserve != 0 {
		st.Reserve = reserve
	}
	return st, nil
}

// Keep makes st durable in the file at path: what was there before, or st, is there after
// a crash.
func Keep(path string, st aoe.State) error {
	k := kept{Config: st.Config, Mask: formatMACs(st.Mask), Reserve: formatMACs(st.Reserve), Generation: st.Generation}
	text, err := json.MarshalIndent(k, "", " ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // for everybody
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ParseMACs reads addresses, as aoe.ParseMAC does.
func ParseMACs(list []string) ([]aoe.MAC, error) {
	macs := make([]aoe.MAC, 0, len(list))
	for _, s := range list {
		m, err := aoe.ParseMAC(s)
		if err != nil {
			return nil, err
		}
		macs = append(macs, m)
	}
	return macs, nil
}

func formatMACs(list []aoe.MAC) []string {
	text := make([]string, 0, len(list))
	for _, m := range list {
		text = append(text, m.String())
	}
	return text
}
