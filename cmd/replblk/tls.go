package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/replblk/replblk/internal/config"
)

// certificates are the files of a tls section. They are looked at before each
// handshake, so that a renewed certificate needs no restart, which would throw
// out every client.
type certificates struct {
	files config.TLSOptions
	log   *slog.Logger

	mu     sync.Mutex
	stamps [3]time.Time // modification times of what is loaded
	loaded *tls.Config
}

// serverTLS reads the certificates of a configuration; nil if it has none.
func serverTLS(files config.TLSOptions, log *slog.Logger) (*tls.Config, error) {
	if files.Certificate == "" {
		return nil, nil
	}
	c := &certificates{files: files, log: log, stamps: stampsOf(files)}
	var err error
	if c.loaded, err = loadTLS(files); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current(), nil },
	}, nil
}

// current returns what the files say now. While they do not fit together, as
// between the replacement of one and of the other, what was loaded stays.
func (c *certificates) current() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := stampsOf(c.files)
	if now == c.stamps {
		return c.loaded
	}
	fresh, err := loadTLS(c.files)
	if err != nil {
		c.log.Warn("changed certificates are not usable, the old ones stay", "err", err)
		return c.loaded
	}
	c.log.Info("certificates loaded anew", "certificate", c.files.Certificate)
	c.loaded, c.stamps = fresh, now
	return fresh
}

// stampsOf returns the modification times of the files, zero for one that
// cannot be seen.
func stampsOf(files config.TLSOptions) (stamps [3]time.Time) {
	for i, path := range []string{files.Certificate, files.Key, files.CA} {
		if fi, err := os.Stat(path); err == nil {
			stamps[i] = fi.ModTime()
		}
	}
	return stamps
}

// loadTLS reads certificate, key and, if there is one, the CA whose clients are
// admitted.
func loadTLS(files config.TLSOptions) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s, key %s: %w", files.Certificate, files.Key, err)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	if files.CA == "" {
		return conf, nil
	}
	pem, err := os.ReadFile(files.CA)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	conf.ClientCAs = x509.NewCertPool()
	if !conf.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca %s: no certificate in it", files.CA)
	}
	conf.ClientAuth = tls.RequireAndVerifyClientCert
	return conf, nil
}
