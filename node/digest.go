package node

import (
	"sync"

	"github.com/replblk/replblk/replication/wire"
)

// digests computes digests on any goroutine. A Digest has state and belongs to one
// goroutine at a time.
type digests struct {
	pools [wire.Algorithms]sync.Pool
}

// sum appends the digest of data to dst.
func (d *digests) sum(dst []byte, alg wire.Algorithm, data []byte) []byte {
	pool := &d.pools[alg]
	g, ok := pool.Get().(*wire.Digest)
	if !ok {
		var err error
		if g, err = wire.NewDigest(alg.String()); err != nil {
			panic(err) // every Algorithm but zero has one, see its test
		}
	}
	dst = g.Sum(dst, data)
	pool.Put(g)
	return dst
}
