package main

import (
	"hash/crc32"

	"github.com/replblk/replblk/internal/config"
)

// nodeIDSeed starts the checksum by which two hosts without configured node ids agree
// on them (spec/ecosystem.md 2.3).
const nodeIDSeed = 0x1a656f21

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// addressHash is the raw CRC-32C of an address, without the final inversion.
func addressHash(ip string) uint32 { return ^crc32.Update(^uint32(nodeIDSeed), castagnoli, []byte(ip)) }

// nodeIDs returns the node ids of a host and its peer: the one with the larger hash,
// compared as signed numbers, has 0. A DRBD 9 peer derives the same.
func nodeIDs(local, peer *config.Host) (own, other int) {
	if peer == nil {
		return 0, 1
	}
	a, b := addressHash(local.Address.IP.String()), addressHash(peer.Address.IP.String())
	if a == b { // two nodes on one address, as in tests: the port tells them apart
		a, b = uint32(peer.Address.Port), uint32(local.Address.Port)
	}
	if int32(a) > int32(b) {
		return 0, 1
	}
	return 1, 0
}
