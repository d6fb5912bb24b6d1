package main

import (
	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/internal/config"
	"github.com/replblk/replblk/internal/targets"
)

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
	if st.Mask, err = targets.ParseMACs(cfg.MACs); err != nil {
		return st, err
	}
	permit := aoePermit(cfg)
	if permit == 0 {
		return st, nil
	}
	return targets.Load(cfg.StateFile, permit, st)
}
