// Package targets is what replblk run and vblade have in common about their AoE targets: what
// initiators have set outlives the process, and snapshots say what a target does.
package targets
