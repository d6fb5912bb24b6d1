package block

// Do submits a request and waits for it. It is for tools and tests; the data
// path never waits.
func Do(d Device, r *Request) error {
	done := make(chan struct{})
	r.Done = func(*Request) { close(done) }
	d.Submit(r)
	<-done
	return r.Err
}

// ReadAt reads len(p) bytes at sector. len(p) must be a multiple of SectorSize.
func ReadAt(d Device, p []byte, sector uint64) error {
	return Do(d, &Request{Op: Read, Sector: sector, Sectors: uint32(len(p) >> SectorShift), Data: p})
}

// WriteAt writes p at sector. len(p) must be a multiple of SectorSize.
func WriteAt(d Device, p []byte, sector uint64) error {
	return Do(d, &Request{Op: Write, Sector: sector, Sectors: uint32(len(p) >> SectorShift), Data: p})
}

// FlushAll makes everything written so far durable.
func FlushAll(d Device) error { return Do(d, &Request{Op: Flush}) }
