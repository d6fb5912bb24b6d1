package node

import "github.com/replblk/replblk/replication"

// statusCore is a core that can tell more about itself. The cores of tests need not.
type statusCore interface {
	Status() replication.Status
}

// Status is a snapshot of a resource.
type Status struct {
	replication.Status
	Name     string
	Requests int // application requests in flight
	Buffers  int // payload buffers in use
	// UnsentData and UnsentMeta are bytes queued for the peer that the kernel has
	// not taken.
	UnsentData, UnsentMeta int
}

// Status returns a snapshot, taken between two steps of the core.
func (r *Resource) Status() Status {
	s := Status{Name: r.name, Requests: r.slots.inUse(), Buffers: r.bufs.inUse()}
	if c, ok := r.core.(statusCore); ok {
		r.loop.call(func() { s.Status = c.Status() })
	}
	if k := r.conn.link.Load(); k != nil {
		s.UnsentData = k.out[replication.DataSocket].Pending()
		s.UnsentMeta = k.out[replication.MetaSocket].Pending()
	}
	return s
}
