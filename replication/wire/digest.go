package wire

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
)

// Algorithm is a digest algorithm: an index of its kernel name. The zero value is
// "none".
type Algorithm uint8

// algorithm is what is known of a digest without computing one.
type algorithm struct {
	name string
	size int // of a digest in bytes
}

var algorithms = [...]algorithm{{}, {"crc32c", crc32.Size}, {"crc32", crc32.Size}, {"md5", md5.Size}, {"sha1", sha1.Size},
	{"sha224", sha256.Size224}, {"sha256", sha256.Size}, {"sha384", sha512.Size384}, {"sha512", sha512.Size}}

// Algorithms is how many algorithms there are, "none" included.
const Algorithms = len(algorithms)

// AlgorithmOf returns the algorithm with the given kernel name; zero if there is none, as
// for the empty name.
func AlgorithmOf(name string) Algorithm {
	for i := range algorithms {
		if algorithms[i].name == name {
			return Algorithm(i)
		}
	}
	return 0
}

// Size returns the length of a digest in bytes, 0 of no algorithm.
func (a Algorithm) Size() int { return algorithms[a].size }

// String returns the kernel's name.
func (a Algorithm) String() string { return algorithms[a].name }

// Digest computes the digest of a block for data-integrity-alg, csums-alg and
// verify-alg, as the kernel's crypto API would (spec 4.8). It has state and is
// for one goroutine at a time.
type Digest struct {
	name string
	size int
	hash hash.Hash // nil for the CRCs
	crc  func([]byte) uint32
}

// newHash returns the constructor of a cryptographic hash by its kernel name,
// nil for any other name.
func newHash(name string) func() hash.Hash {
	switch name {
	case "md5":
		return md5.New
	case "sha1":
		return sha1.New
	case "sha224":
		return sha256.New224
	case "sha256":
		return sha256.New
	case "sha384":
		return sha512.New384
	case "sha512":
		return sha512.New
	default:
		return nil
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// NewDigest returns the digest with the given kernel name: md5, sha1, sha224,
// sha256, sha384, sha512, crc32c or crc32.
func NewDigest(name string) (*Digest, error) {
	switch name {
	case "crc32c":
		return &Digest{name: name, size: crc32.Size, crc: func(data []byte) uint32 { return crc32.Checksum(data, castagnoli) }}, nil
	case "crc32":
		return &Digest{name: name, size: crc32.Size, crc: kernelCRC32}, nil
	}
	constructor := newHash(name)
	if constructor == nil {
		return nil, fmt.Errorf("unknown digest algorithm %q", name)
	}
	h := constructor()
	return &Digest{name: name, size: h.Size(), hash: h}, nil
}

// kernelCRC32 is CRC-32 without the usual inversions at the start and the end:
// the kernel's "crc32" is the bare polynomial division from zero.
func kernelCRC32(data []byte) uint32 { return ^crc32.Update(0xffffffff, crc32.IEEETable, data) }

// Name returns the kernel's name of the algorithm.
func (d *Digest) Name() string { return d.name }

// Size returns the length of a digest in bytes.
func (d *Digest) Size() int { return d.size }

// Sum appends the digest of data to dst. The CRCs are little endian, unlike
// everything else in the protocol.
func (d *Digest) Sum(dst, data []byte) []byte {
	if d.crc != nil {
		return binary.LittleEndian.AppendUint32(dst, d.crc(data))
	}
	d.hash.Reset()
	_, _ = d.hash.Write(data) // a hash.Hash never fails
	return d.hash.Sum(dst)
}

// CRAMResponse answers an authentication challenge (spec 3.5): the HMAC of the
// challenge with the shared secret as key. alg is the kernel name of a
// cryptographic hash. Compare the peer's response with hmac.Equal.
func CRAMResponse(alg, secret string, challenge []byte) ([]byte, error) {
	constructor := newHash(alg)
	if constructor == nil {
		return nil, fmt.Errorf("unknown authentication algorithm %q", alg)
	}
	mac := hmac.New(constructor, []byte(secret))
	_, _ = mac.Write(challenge) // a hash.Hash never fails
	return mac.Sum(nil), nil
}
