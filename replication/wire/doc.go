// Package wire encodes and decodes every packet of DRBD's protocol, versions 86
// to 101, as the Linux kernel module 8.4.11 speaks it. It is pure: bytes in,
// values out; it never allocates according to a length that it was told.
//
// A packet is a header and a payload. A reader takes HeaderSize bytes, calls
// ParseHeader, and asks Limits whether a packet of that command may have that
// length in this session before it makes room for the payload:
//
//	h, _, err := wire.ParseHeader(buf, session.Version)
//	err = session.Check(h)           // length bounded from here on
//	body, bulk := session.Split(h)   // bulk is data of the device, body the rest
//	r := wire.NewReader(h.Command, payload)
//	var p wire.BlockAck
//	p.DecodeFrom(&r)
//	err = r.Finish()
//
// Every packet with a fixed layout has a struct with AppendTo and DecodeFrom.
// Layouts that depend on the agreed version or features take a Session. Fields
// that the protocol leaves undefined ("pad", sometimes with stale contents in
// packets of a kernel) are ignored when read and zero when written.
//
// All integers are big endian, sizes in bytes, sectors 512 bytes. Block ids and
// barrier handles are tokens of their sender: this package passes them on
// unchanged and nobody but their sender may interpret them.
//
// Section numbers ("spec 4.1") refer to the project's specification of DRBD 8.4.
package wire
