package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	maxConns       = 64
	requestTimeout = 5 * time.Second
	writeTimeout   = 10 * time.Second
)

// Handler carries out commands.
type Handler interface {
	// Handle carries out req. send sends a value to the client; its error says
	// that the client has gone. ctx ends when the server stops, or, once
	// something was sent, when the client goes.
	Handle(ctx context.Context, req *Request, send func(value any) error) error
}

// Listen opens the socket at path, for the owner and its group. A socket file that
// nobody listens on is replaced; one that somebody listens on is an error.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		if c, dialErr := net.Dial("unix", path); dialErr == nil {
			_ = c.Close()
			return nil, fmt.Errorf("%s: another daemon answers there", path)
		}
		if rmErr := removeSocket(path); rmErr != nil {
			return nil, errors.Join(err, rmErr)
		}
		if l, err = net.Listen("unix", path); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(path, 0o660); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// removeSocket removes path, but only if it is a socket.
func removeSocket(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	return os.Remove(path)
}

// Serve answers commands on l until ctx ends. It closes l, and returns when all
// commands have been answered.
func Serve(ctx context.Context, l net.Listener, h Handler, log *slog.Logger) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer func() { _ = l.Close() }()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxConns)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("control socket: %w", err)
		}
		wg.Go(func() {
			defer func() { <-slots }()
			defer func() { _ = c.Close() }()
			serve(ctx, c, h, log)
		})
	}
}

// serve carries out the one command of a connection.
func serve(ctx context.Context, c net.Conn, h Handler, log *slog.Logger) {
	s := &session{conn: c}
	_ = c.SetReadDeadline(time.Now().Add(requestTimeout))
	req, err := readRequest(c)
	if errors.Is(err, io.EOF) {
		return // looked in and left
	}
	if err != nil {
		log.Warn("control request refused", "err", err)
		s.done(Errorf(ExitUsage, "control request: %v", err))
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.gone = cancel
	_ = c.SetReadDeadline(time.Time{})
	s.done(h.Handle(ctx, req, s.send))
}

func readRequest(r io.Reader) (*Request, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxRequest)).ReadBytes('\n')
	if err != nil {
		if errors.Is(err, io.EOF) && len(line) > 0 {
			return nil, fmt.Errorf("no end of line within %d bytes", len(line))
		}
		return nil, err
	}
	var req Request
	if err := json.Unmarshal(line, &req); err != nil {
		return nil, err
	}
	if req.Version != Version {
		return nil, fmt.Errorf("protocol version %d, the daemon speaks %d", req.Version, Version)
	}
	return &req, nil
}

// session writes the answer to one command.
type session struct {
	conn  net.Conn
	gone  context.CancelFunc
	watch sync.Once
}

// send implements the send of Handler. From the first value on the connection is
// watched: a streaming command must end when nobody listens any more.
func (s *session) send(value any) error {
	s.watch.Do(func() {
		go func() {
			var b [1]byte
			_, _ = s.conn.Read(b[:]) // a client says nothing after its request
			s.gone()
		}()
	})
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return s.write(answer{Version: Version, Value: raw})
}

// done sends the last line.
func (s *session) done(err error) {
	a := answer{Version: Version, Done: true}
	if err != nil {
		a.Exit, a.Error = ExitUsage, err.Error()
		if e, ok := errors.AsType[*Error](err); ok {
			a.Exit = e.Exit
		}
	}
	_ = s.write(a) // who has gone needs no answer
}

func (s *session) write(a answer) error {
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err = s.conn.Write(append(line, '\n'))
	return err
}
