package main

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

const (
	// logLines is how many lines wait for a reader of the log that is slower than the
	// daemon. More are lost.
	logLines = 4096
	// logPatience is how long the end waits for that reader.
	logPatience = time.Second
)

// logQueue keeps the data path from waiting for whoever reads the log: a pipe that
// nobody empties, a disk that hangs (X11). What does not fit is counted and dropped.
type logQueue struct {
	out          io.Writer
	lines        chan []byte
	lost         atomic.Int64
	ending, done chan struct{} // closed: the daemon ends; everything is written
}

func newLogQueue(out io.Writer) *logQueue {
	q := &logQueue{out: out, lines: make(chan []byte, logLines), ending: make(chan struct{}), done: make(chan struct{})}
	go q.run()
	return q
}

// Write implements io.Writer. It takes a line and never waits.
func (q *logQueue) Write(line []byte) (int, error) {
	select {
	case q.lines <- append([]byte(nil), line...):
	default:
		q.lost.Add(1)
	}
	return len(line), nil
}

func (q *logQueue) run() {
	defer close(q.done)
	for {
		select {
		case line := <-q.lines:
			q.line(line)
			continue
		case <-q.ending:
		}
		for len(q.lines) > 0 {
			q.line(<-q.lines)
		}
		return
	}
}

func (q *logQueue) line(line []byte) {
	if n := q.lost.Swap(0); n > 0 {
		q.put(fmt.Appendf(nil, "# %d lines of the log are lost: nobody read them in time\n", n))
	}
	q.put(line)
}

// put writes a line. There is nobody to tell that it failed.
func (q *logQueue) put(line []byte) { _, _ = q.out.Write(line) }

// end writes what is left, if somebody reads it.
func (q *logQueue) end() {
	close(q.ending)
	select {
	case <-q.done:
	case <-time.After(logPatience):
	}
}
