// Command ledger loads a block device in the machine of the interop tests and keeps
// the books: every block holds exactly what was acknowledged last, so a lost write, a
// read from the past and a late copy of an old write are found. It prints one line of
// JSON when it ends, and one for each round of a longer run: SIGUSR1 ends a round and
// begins one with a warm driver, SIGUSR2 one with a cold driver.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/aoe/aoetest"
	"github.com/replblk/replblk/internal/buffer"
)

// result is what the test reads.
type result struct {
	Written, Read uint64
	StallMS       float64 // longest time without any completion
	SlowestMS     float64 // longest request
	Error         string
}

const blockSectors = 8

func main() {
	dev := flag.String("dev", "/dev/etherd/e1.1", "device")
	workers := flag.Int("workers", 4, "requests in flight")
	blocks := flag.Int("blocks", 2000, "blocks of 4 KiB")
	first := flag.Int("first", 0, "first block")
	limit := flag.Duration("for", time.Hour, "duration; SIGTERM ends it too")
	warm := flag.Uint64("warm", 0, "requests after which a driver is warm; 0 means that it is")
	cold := flag.Uint64("cold", 0, "requests that a cold driver has done when its round begins")
	ready := flag.String("ready", "/tmp/ledger.ready", "made when a round begins; stalls count from then on")
	books := flag.String("books", "", "file for the books: read at the start if it is there, written at the end")
	flag.Parse()
	r, err := run(*dev, *workers, *blocks, *first, *limit, *warm, *cold, *ready, *books)
	if err != nil {
		r.Error = err.Error()
	}
	out, _ := json.Marshal(r) // a struct of plain values
	fmt.Println(string(out))
	if err != nil {
		os.Exit(1)
	}
}

// load is a running load.
type load struct {
	fd   int
	stop atomic.Bool

	warm, cold uint64
	ready      string

	mu     sync.Mutex
	ledger *aoetest.Ledger // guarded by mu, like all that follows
	last   time.Time       // of the latest completion
	stall  time.Duration
	err    error
	begun  bool   // the round
	done   uint64 // requests since the last one
	known  uint64 // requests since the driver was cold
	chill  bool   // the driver is to be kept cold
}

// settled is how many requests a round has at least before it counts.
const settled = 200

// coldPace is the pause between requests to a driver that is to stay cold: it learns
// from every answer.
const coldPace = 10 * time.Millisecond

func run(dev string, workers, blocks, first int, limit time.Duration, warm, cold uint64, ready, books string) (r result, err error) {
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	fd, err := unix.Open(dev, unix.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return r, fmt.Errorf("open %s: %w", dev, err)
	}
	defer func() { _ = unix.Close(fd) }()
	l := &load{fd: fd, ledger: aoetest.NewLedger(blocks, blockSectors, 30, uint64(os.Getpid())), last: time.Now(), warm: warm, cold: cold, ready: ready}
	l.ledger.First = uint64(first * blockSectors)
	if known, err := l.open(books); err != nil {
		return r, err
	} else if !known {
		if err := l.erase(); err != nil {
			return r, err
		}
	}
	go l.follow(sig, limit)
	l.all(workers, l.ledger.Next)
	written, read, stall, slowest := l.ledger.Written, l.ledger.Read, l.stall, l.ledger.Slowest
	l.stop.Store(false)
	l.chill = false
	if l.err == nil {
		l.all(workers, l.ledger.All())
	}
	if l.err == nil {
		l.err = l.keep(books)
	}
	return result{Written: written, Read: read, StallMS: ms(stall), SlowestMS: ms(slowest)}, l.err
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// follow does what signals say, until one ends the load or its time is over.
func (l *load) follow(sig chan os.Signal, limit time.Duration) {
	end := time.After(limit)
	for {
		select {
		case s := <-sig:
			if s == syscall.SIGTERM {
				l.stop.Store(true)
				return
			}
			l.round(s == syscall.SIGUSR2)
		case <-end:
			l.stop.Store(true)
			return
		}
	}
}

// round ends a round, when it does not stall any more, and begins one. A driver that asks a target who it is forgets what it
// knew about the network.
func (l *load) round(cold bool) {
	_ = os.Remove(l.ready)
	l.mu.Lock()
	defer l.mu.Unlock()
	for end := time.Now().Add(time.Minute); l.err == nil && time.Since(l.last) > 50*time.Millisecond && time.Now().Before(end); {
		l.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
		l.mu.Lock()
	}
	r := result{Written: l.ledger.Written, Read: l.ledger.Read, StallMS: ms(l.stall), SlowestMS: ms(l.ledger.Slowest)}
	out, _ := json.Marshal(r) // a struct of plain values
	fmt.Println(string(out))
	l.begun, l.done, l.chill = false, 0, cold
	if cold && l.err == nil {
		l.known = 0
		l.err = os.WriteFile("/dev/etherd/revalidate", []byte("e1.1"), 0)
	}
}

// open reads the books that another ledger has kept, and says whether there are any.
func (l *load) open(path string) (bool, error) {
	if path == "" {
		return false, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	var books []uint32
	if err == nil {
		err = json.Unmarshal(text, &books)
	}
	if err == nil {
		err = l.ledger.Resume(books)
	}
	return err == nil, err
}

// keep writes the books.
func (l *load) keep(path string) error {
	if path == "" {
		return nil
	}
	text, _ := json.Marshal(l.ledger.Books()) // numbers
	return os.WriteFile(path, text, 0o600)
}

// begins says whether the driver is as it should be in this round.
func (l *load) begins() bool {
	if l.chill {
		return l.done >= l.cold
	}
	return l.done >= settled && l.known >= l.warm
}

// erase makes every block what a new ledger believes it to be.
func (l *load) erase() error {
	b := buffer.Get(1 << 20)
	defer buffer.Put(b)
	clear(b.B)
	for left, off := l.ledger.Blocks*blockSectors*512, int64(l.ledger.First)*512; left > 0; { //nolint:gosec // small
		n, err := unix.Pwrite(l.fd, b.B[:min(left, len(b.B))], off)
		if err != nil {
			return fmt.Errorf("erase: %w", err)
		}
		left, off = left-n, off+int64(n)
	}
	return nil
}

// all works until there is no more to do, or a check fails.
func (l *load) all(workers int, next func(int, *aoetest.Request) bool) {
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			b := buffer.Get(blockSectors * 512)
			defer buffer.Put(b)
			for !l.stop.Load() && l.one(i, b.B, next) {
			}
		})
	}
	wg.Wait()
}

// one does one request; false ends the worker.
func (l *load) one(place int, b []byte, next func(int, *aoetest.Request) bool) bool {
	r := &aoetest.Request{Data: b}
	l.mu.Lock()
	if l.chill {
		l.mu.Unlock()
		time.Sleep(coldPace)
		l.mu.Lock()
	}
	r.Began = time.Now()
	more := l.err == nil && next(place, r)
	l.mu.Unlock()
	if !more {
		return false
	}
	err := l.transfer(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		err = l.ledger.Done(place, r)
	}
	now := time.Now()
	l.done++
	l.known++
	l.stall = max(l.stall, now.Sub(l.last))
	if !l.begun && l.begins() {
		l.begun = true
		_ = os.WriteFile(l.ready, nil, 0o600)
		l.stall, l.ledger.Slowest = 0, 0
	}
	l.last = now
	if err != nil && l.err == nil {
		l.err = err
	}
	return err == nil
}

func (l *load) transfer(r *aoetest.Request) error {
	op := unix.Pread
	if r.Write {
		op = unix.Pwrite
	}
	n, err := op(l.fd, r.Data, int64(r.LBA)*512) //nolint:gosec // small
	if err != nil {
		return fmt.Errorf("sector %d, write %v: %w", r.LBA, r.Write, err)
	}
	if n != len(r.Data) {
		return errors.New("short transfer")
	}
	return nil
}
