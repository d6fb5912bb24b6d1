// Package nbd serves block devices over the Network Block Device protocol:
// fixed newstyle negotiation, simple and structured replies, base:allocation.
// It knows nothing of what is behind a block.Device.
//
// # A connection
//
// One goroutine reads: it negotiates, decodes request headers in place, reads
// payload straight into page-aligned pooled memory and submits to the device.
// Whoever completes a request queues its reply; the first to find nobody
// writing becomes the writer and sends everything queued with one writev
// (reply.go). A socket that is full is left to a goroutine of its own, so a
// client that does not read never holds up the device or another client.
//
// # TLS
//
// A client may ask for TLS during negotiation, and must where the export says so.
// Nothing that was said before counts after (tls.go). Inside TLS there is no
// writev: replies always leave from the connection's second goroutine.
//
// # Limits
//
// maxInflight requests and maxInflightBytes of payload per connection. Beyond
// them the reader stops reading, and the client feels it through its socket.
//
// # A client that comes back
//
// Clients resend what they lost with a connection. If the old request executed
// after the resend and after a newer write to the same place, it would undo an
// acknowledged write. So a connection that ended is fenced: until the last of
// its requests has left the device, no connection to the same export submits a
// modification, and what was not yet submitted never will be (fence.go).
package nbd
