package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestLogQueueDoesNotWait(t *testing.T) {
	r, w := io.Pipe()
	q := newLogQueue(w)
	for i := range logLines + 100 { // nobody reads: one line is in the pipe, the rest waits or is lost
		fmt.Fprintf(q, "line %d\n", i)
	}
	var got bytes.Buffer
	read := make(chan struct{})
	go func() { _, _ = io.Copy(&got, r); close(read) }()
	q.end()
	w.Close()
	<-read
	text := got.String()
	if n := strings.Count(text, "line "); n < logLines || n > logLines+1 || !strings.Contains(text, "line 0\n") {
		t.Errorf("%d lines of the log", n)
	}
	if !strings.Contains(text, "lines of the log are lost") {
		t.Error("the log does not say that lines are lost")
	}
}
