package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// Client sends commands to the daemon behind a socket.
type Client struct {
	Path string // of the socket
}

// Do sends a command and waits for its end. Every value of the answer is passed to
// each, which may be nil; an error of each ends the command. The error is an
// [*Error] if the daemon has refused or could not be reached.
func (c *Client) Do(ctx context.Context, req Request, each func(json.RawMessage) error) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	req.Version = Version
	line, err := json.Marshal(req)
	if err != nil {
		return err
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return c.lost(ctx, err)
	}
	in := bufio.NewScanner(conn)
	in.Buffer(make([]byte, 0, 4096), maxAnswer)
	for in.Scan() {
		var a answer
		if err := json.Unmarshal(in.Bytes(), &a); err != nil {
			return Errorf(ExitUsage, "control socket %s: answer %q: %v", c.Path, in.Bytes()[:min(80, len(in.Bytes()))], err)
		}
		if a.Done {
			if a.Exit != 0 || a.Error != "" {
				return &Error{Exit: a.Exit, Text: a.Error}
			}
			return nil
		}
		if each != nil {
			if err := each(a.Value); err != nil {
				return err
			}
		}
	}
	err = in.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return c.lost(ctx, err)
}

func (c *Client) lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return Errorf(ExitUsage, "control socket %s: the daemon went away before it answered: %v", c.Path, err)
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.Path)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, Errorf(ExitUsage, "no daemon at %s: start it with replblk run", c.Path)
	default:
		return nil, Errorf(ExitUsage, "control socket: %v", err)
	}
}

// Snapshot asks for the state of a resource, of all if name is "".
func (c *Client) Snapshot(ctx context.Context, name string) ([]Resource, error) {
	var list []Resource
	err := c.Do(ctx, Request{Command: "status", Resource: name}, func(raw json.RawMessage) error {
		var r Resource
		if err := json.Unmarshal(raw, &r); err != nil {
			return fmt.Errorf("control socket %s: snapshot: %w", c.Path, err)
		}
		list = append(list, r)
		return nil
	})
	return list, err
}
