// Package block is the interface that everything meets in: frontends (NBD, AoE)
// submit requests to a Device; a Device is a file, a memory image, a fault
// filter, or a replicated volume. A frontend cannot tell which.
//
// The model is asynchronous and single-use: the submitter owns a Request until
// it calls Submit, the device owns it until it calls Done, then the submitter
// owns it again. Data is never copied on the way; its memory belongs to the
// submitter throughout, and the device may neither keep nor touch it after Done.
package block

import (
	"errors"
	"fmt"
	"syscall"
)

// Op says what a Request asks for. The zero value is invalid.
type Op uint8

// Operations of a Device.
const (
	Read        Op = iota + 1
	Write          // Data is written
	Flush          // every request completed before this one was submitted becomes durable
	Discard        // contents become unspecified; the mirror makes them read as zeroes
	WriteZeroes    // contents become zeroes; may deallocate unless NoHole is set
)

var opNames = [...]string{0: "invalid", Read: "read", Write: "write", Flush: "flush", Discard: "discard", WriteZeroes: "write zeroes"}

// String returns the operation in words, as it appears in errors and logs.
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return opNames[0]
}

// Modifies says whether the operation can change the contents of the device.
func (o Op) Modifies() bool { return o == Write || o == Discard || o == WriteZeroes }

// Flags modify an operation.
type Flags uint8

// Flags of a Request.
const (
	// FUA: the request completes only when its own data is durable, on every
	// copy that the device keeps.
	FUA Flags = 1 << iota
	// NoHole: WriteZeroes must leave the range allocated.
	NoHole
	// More: the submitter has further requests at hand and will submit them at
	// once. A device that would otherwise serve the request on the caller's
	// goroutine may prefer to queue it. Only a hint.
	More
)

// Request is one I/O. The exported fields are set by the submitter; Err is set
// by the device before it calls Done.
//
// Read and Write have len(Data) == Sectors*SectorSize. Flush has no range.
type Request struct {
	Op      Op
	Flags   Flags
	Sectors uint32 // length in sectors
	Sector  uint64 // start, in sectors
	Data    []byte

	// Done is called exactly once, when the device is finished with the
	// request, from any goroutine, possibly before Submit returns. It must not
	// block.
	Done func(*Request)

	// Err is nil or an *IOError (wrapped or not) when Done is called.
	Err error

	// Device state, meaningful only between Submit and Done, to the device
	// that holds the request: it saves an allocation per request.
	Next *Request
	Slot uint32
}

// Complete records err and calls Done. The device must not touch the request
// afterwards.
func (r *Request) Complete(err error) {
	r.Err = err
	r.Done(r)
}

// Geometry describes a device to its users. Sizes are bytes unless the name
// says otherwise.
type Geometry struct {
	Sectors       uint64 // capacity
	LogicalBlock  uint32 // smallest addressable unit, a power of two, at least SectorSize
	PhysicalBlock uint32 // preferred unit
	Discard       bool   // Discard gives space back
	ReadOnly      bool   // requests that modify are refused with EROFS
	Rotational    bool
}

// Device is a block device. All methods may be called from any goroutine.
type Device interface {
	// Submit starts a request. It never fails directly: errors arrive in
	// Request.Err through Done. It may block to exert backpressure. Requests
	// in flight at the same time may execute in any order; the device keeps
	// the order of submission for overlapping ranges only if it says so.
	Submit(*Request)

	// Geometry returns the current geometry. The capacity may change while
	// the device is open.
	Geometry() Geometry
}

// Batcher is a Device that serves several requests at once better than one by one.
type Batcher interface {
	Device
	// SubmitBatch is Submit for each of the requests, in this order. The slice is the
	// caller's again when it returns.
	SubmitBatch([]*Request)
}

// SubmitAll submits requests to d, together if d can. All but the last carry More. It
// keeps nothing of the slice.
func SubmitAll(d Device, rs []*Request) {
	for i, r := range rs {
		r.Flags |= More
		if i == len(rs)-1 {
			r.Flags &^= More
		}
	}
	if b, ok := d.(Batcher); ok && len(rs) > 1 {
		b.SubmitBatch(rs)
		return
	}
	for _, r := range rs {
		d.Submit(r)
	}
}

// IOError says which I/O failed and how. It unwraps to the errno, so
// errors.Is(err, syscall.ENOSPC) works.
type IOError struct {
	Op      Op
	Sector  uint64
	Sectors uint32
	Err     error
}

// Error implements error.
func (e *IOError) Error() string {
	if e.Op == Flush {
		return fmt.Sprintf("flush: %v", e.Err)
	}
	return fmt.Sprintf("%v of %d sectors at sector %d: %v", e.Op, e.Sectors, e.Sector, e.Err)
}

// Unwrap returns the cause.
func (e *IOError) Unwrap() error { return e.Err }

// Errno returns the system error behind err, EIO if there is none.
func Errno(err error) syscall.Errno {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return syscall.EIO
}

// Fail returns the *IOError for r with cause err.
func (r *Request) Fail(err error) *IOError {
	return &IOError{Op: r.Op, Sector: r.Sector, Sectors: r.Sectors, Err: err}
}

// Check validates r against g: range inside the device, data as long as the
// range, no modification of a read-only device. It returns nil or an *IOError
// with EINVAL, ENOSPC (a write beyond the end) or EROFS.
func (r *Request) Check(g Geometry) error {
	if r.Op == Flush {
		return nil
	}
	if r.Op.Modifies() && g.ReadOnly {
		return r.Fail(syscall.EROFS)
	}
	if r.Sector > g.Sectors || uint64(r.Sectors) > g.Sectors-r.Sector {
		if r.Op == Write || r.Op == WriteZeroes {
			return r.Fail(syscall.ENOSPC)
		}
		return r.Fail(syscall.EINVAL)
	}
	if (r.Op == Read || r.Op == Write) && uint64(len(r.Data)) != uint64(r.Sectors)*SectorSize {
		return r.Fail(syscall.EINVAL)
	}
	return nil
}
