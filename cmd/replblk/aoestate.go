package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/internal/config"
)

// keptState is what initiators have set, as it is kept in a file.
type keptState struct {
	Config  []byte   `json:"config-string"`
	Mask    []string `json:"mask"`
	Reserve []string `json:"reserve"`

	Generation uint64 `json:"generation"` // how often they have
}

// aoePermit translates the words of the configuration.
func aoePermit(cfg *config.AoETarget) (p aoe.Permit) {
	for _, w := range cfg.Permit {
		p |= map[string]aoe.Permit{
			config.AoEPermitConfig: aoe.PermitConfig, config.AoEPermitMask: aoe.PermitMask, config.AoEPermitReserve: aoe.PermitReserve,
		}[w]
	}
	return p
}

// aoeState returns what a target starts with: the configuration's word, except on what
// initiators may set and have set.
func aoeState(cfg *config.AoETarget) (st aoe.State, err error) {
	st.Config = []byte(cfg.ConfigString)
	if st.Mask, err = parseMACs(cfg.MACs); err != nil {
		return st, err
	}
	permit := aoePermit(cfg)
	if permit == 0 {
		return st, nil
	}
	text, err := os.ReadFile(cfg.StateFile)
	if errors.Is(err, os.ErrNotExist) {
		return st, nil
	}
	var k keptState
	if err == nil {
		err = json.Unmarshal(text, &k)
	}
	if err != nil {
		return st, fmt.Errorf("%s: %w", cfg.StateFile, err)
	}
	mask, err := parseMACs(k.Mask)
	if err != nil {
		return st, fmt.Errorf("%s: mask: %w", cfg.StateFile, err)
	}
	reserve, err := parseMACs(k.Reserve)
	if err != nil {
		return st, fmt.Errorf("%s: reserve: %w", cfg.StateFile, err)
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

func parseMACs(list []string) ([]aoe.MAC, error) {
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

// keepAoEState makes st durable: what was there before, or st, is there after a crash.
func keepAoEState(path string, st aoe.State) error {
	k := keptState{Config: st.Config, Mask: formatMACs(st.Mask), Reserve: formatMACs(st.Reserve), Generation: st.Generation}
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

func formatMACs(list []aoe.MAC) []string {
	text := make([]string, 0, len(list))
	for _, m := range list {
		text = append(text, m.String())
	}
	return text
}
