// Package faulty is a filter in front of a block device that misbehaves on
// request: it fails, delays, holds, tears or misdirects the requests that a
// rule selects. Requests that no rule selects go straight through.
package faulty

import (
	"sync"
	"syscall"
	"time"

	"github.com/replblk/replblk/block"
)

// Rule selects requests and says what happens to them. The first rule that
// matches a request decides. The zero Rule matches everything and does nothing.
type Rule struct {
	// Ops selects operations; empty selects all.
	Ops []block.Op
	// First and End select requests that touch sectors [First, End); End 0
	// selects all, and flushes.
	First, End uint64
	// Skip lets that many matching requests pass first; Count limits how many
	// are affected afterwards, 0 is no limit.
	Skip, Count int

	// Err fails the request with this error, after Tear sectors were written.
	Err syscall.Errno
	// Delay holds the request back before it is served or failed.
	Delay time.Duration
	// Hold keeps the request until Release.
	Hold bool
	// Tear executes only the first Tear sectors of a write. Without Err the
	// write is reported as good, as by a disk that lies.
	Tear uint32
	// Torn must be set for Tear to have an effect, so that 0 sectors can be asked for.
	Torn bool
	// Misdirect adds this many sectors to the address of the request.
	Misdirect int64

	seen, hits int
}

// Device is the filter. It implements block.Device.
type Device struct {
	inner block.Device

	mu    sync.Mutex
	rules []*Rule
	held  []*block.Request
	after []Rule // the rule that held each request
}

// New returns a filter in front of inner.
func New(inner block.Device, rules ...Rule) *Device {
	d := &Device{inner: inner}
	d.Set(rules...)
	return d
}

// Set replaces all rules. Requests held stay held.
func (d *Device) Set(rules ...Rule) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules = nil
	for _, r := range rules {
		d.rules = append(d.rules, &r)
	}
}

// Hits returns how many requests rule i has affected.
func (d *Device) Hits(i int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rules[i].hits
}

// Held returns the number of requests that wait for Release.
func (d *Device) Held() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.held)
}

// Release lets all held requests go, in order of submission.
func (d *Device) Release() {
	d.mu.Lock()
	held, after := d.held, d.after
	d.held, d.after = nil, nil
	d.mu.Unlock()
	for i, r := range held {
		d.serve(r, after[i])
	}
}

// Geometry implements block.Device.
func (d *Device) Geometry() block.Geometry { return d.inner.Geometry() }

// Submit implements block.Device.
func (d *Device) Submit(r *block.Request) {
	rule, ok := d.decide(r)
	switch {
	case !ok:
		d.inner.Submit(r)
	case rule.Hold:
		// decide queued it
	case rule.Delay > 0:
		time.AfterFunc(rule.Delay, func() { d.serve(r, rule) })
	default:
		d.serve(r, rule)
	}
}

// decide returns a copy of the rule for r, and queues r if the rule holds it.
func (d *Device) decide(r *block.Request) (Rule, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, rule := range d.rules {
		if !rule.matches(r) {
			continue
		}
		rule.seen++
		if rule.seen <= rule.Skip || rule.Count > 0 && rule.hits >= rule.Count {
			continue
		}
		rule.hits++
		if rule.Hold {
			d.held = append(d.held, r)
			d.after = append(d.after, *rule)
		}
		return *rule, true
	}
	return Rule{}, false
}

func (rule *Rule) matches(r *block.Request) bool {
	if len(rule.Ops) > 0 {
		found := false
		for _, op := range rule.Ops {
			found = found || op == r.Op
		}
		if !found {
			return false
		}
	}
	return rule.End == 0 || r.Op != block.Flush && r.Sector < rule.End && r.Sector+uint64(r.Sectors) > rule.First
}

// serve applies the rest of the rule after delaying or holding.
func (d *Device) serve(r *block.Request, rule Rule) {
	switch {
	case rule.Torn && r.Op == block.Write:
		d.tear(r, rule)
	case rule.Err != 0:
		r.Complete(r.Fail(rule.Err))
	case rule.Misdirect != 0 && r.Op != block.Flush:
		d.misdirect(r, rule.Misdirect)
	default:
		d.inner.Submit(r)
	}
}

func (d *Device) tear(r *block.Request, rule Rule) {
	n := min(rule.Tear, r.Sectors)
	part := &block.Request{Op: r.Op, Flags: r.Flags, Sector: r.Sector, Sectors: n, Data: r.Data[:int(n)*block.SectorSize]}
	part.Done = func(*block.Request) {
		err := part.Err
		if rule.Err != 0 {
			err = r.Fail(rule.Err)
		}
		r.Complete(err)
	}
	d.inner.Submit(part)
}

func (d *Device) misdirect(r *block.Request, by int64) {
	other := &block.Request{Op: r.Op, Flags: r.Flags, Sector: r.Sector + uint64(by), Sectors: r.Sectors, Data: r.Data}
	other.Done = func(*block.Request) { r.Complete(other.Err) }
	d.inner.Submit(other)
}
