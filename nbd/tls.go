package nbd

import (
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/replblk/replblk/nbd/wire"
)

// startTLS answers STARTTLS, and after the ACK makes the rest of the connection
// run inside TLS.
//
// What was said in the clear may have been said by anybody: all that was
// negotiated is forgotten, and a byte that arrived behind the option, where it
// would be taken for one that came through TLS, ends the connection
// (CVE-2021-3716 was the lack of that).
func (h *handshaker) startTLS(data []byte) error {
	switch {
	case h.s.opt.TLS == nil:
		h.fail(wire.OptStartTLS, wire.RepErrPolicy, "TLS is not offered here")
		return nil
	case h.tls != nil:
		h.fail(wire.OptStartTLS, wire.RepErrInvalid, "TLS runs already")
		return nil
	case len(data) > 0:
		h.fail(wire.OptStartTLS, wire.RepErrInvalid, "starttls takes no data")
		return nil
	}
	if n := h.rd.buffered(); n > 0 {
		return &ProtocolError{"bytes behind the request for TLS", uint64(n)}
	}
	h.reply(wire.OptStartTLS, wire.RepAck, nil)
	if err := h.flush(); err != nil {
		return err
	}
	h.tls = tls.Server(h.sock, h.s.opt.TLS)
	if err := h.tls.Handshake(); err != nil {
		h.s.log.Warn("tls handshake", "client", h.sock.RemoteAddr().String(), "err", err)
		return err
	}
	h.rd, h.w = newReader(h.tls), h.tls
	h.ses = session{noZeroes: h.ses.noZeroes} // the flags are not negotiated again
	return nil
}

// needsTLS says whether the option has to be refused until TLS runs. Where no
// export may be used without, nothing is told without either.
func (h *handshaker) needsTLS(opt uint32) bool {
	if h.tls != nil || opt == wire.OptStartTLS || opt == wire.OptAbort {
		return false
	}
	return h.s.allRequireTLS()
}

// allRequireTLS says whether there is no export that a client could use in the clear.
func (s *Server) allRequireTLS() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.exports {
		if !x.RequireTLS {
			return false
		}
	}
	return len(s.exports) > 0
}

// tlsAttrs describes the TLS of a connection for the log.
func tlsAttrs(c *tls.Conn) slog.Attr {
	st := c.ConnectionState()
	subject := ""
	if len(st.PeerCertificates) > 0 {
		subject = st.PeerCertificates[0].Subject.String()
	}
	return slog.Group("tls", "version", tls.VersionName(st.Version), "subject", subject)
}

// closeTLS ends a TLS connection in order: the client can tell that nothing was
// cut off. The socket may be full, and nobody waits for that.
func closeTLS(c *tls.Conn) {
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	_ = c.CloseWrite()
}
