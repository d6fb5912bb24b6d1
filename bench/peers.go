package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// server is something that serves NBD and can be measured.
type server struct {
	name   string
	uri    string
	procs  []*proc
	daemon int       // pid of a server in the background, 0 if none
	nodes  []*daemon // of a mirror; among procs too
}

func (s *server) stop() {
	for _, p := range s.procs {
		p.stop()
	}
	if s.daemon != 0 {
		_ = syscall.Kill(s.daemon, syscall.SIGTERM)
	}
}

// place is where the files of a section are: the backing files, and sockets and logs.
type place struct {
	data    string // folder of the backing files
	run     string // folder of sockets, logs and configurations
	size    int64  // of a backing file
	replblk string // the program
}

// image returns a new backing file full of data that does not compress, so that no
// server is helped or hindered by holes.
func (p place) image(name string) (string, error) {
	path := filepath.Join(p.data, name+".img")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	x := uint64(88172645463325252)
	for off := int64(0); off < p.size; off += int64(len(block)) {
		for i := range block {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			block[i] = byte(x)
		}
		if _, err := f.Write(block); err != nil {
			return "", err
		}
	}
	return path, f.Sync()
}

func (p place) socket(name string) string { return filepath.Join(p.run, name+".sock") }

// plainServer starts one of the servers without a mirror.
type plainServer func(ctx context.Context, p place, name, image, network string) (*server, error)

// launch starts a server that takes its address on the command line.
func launch(ctx context.Context, p place, name, network string, argv func(addr string) []string) (*server, error) {
	addr, uri := p.socket(name), "nbd+unix:///?socket="+p.socket(name)
	if network == "tcp" {
		var err error
		if addr, err = freePort(); err != nil {
			return nil, err
		}
		uri = "nbd://" + addr + "/"
	} else if err := os.RemoveAll(addr); err != nil {
		return nil, err
	}
	pr, err := start(ctx, p.run, name, argv(addr)...)
	if err != nil {
		return nil, err
	}
	s := &server{name: name, uri: uri, procs: []*proc{pr}}
	if err := pr.ready(network, addr); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func startOurs(ctx context.Context, p place, name, image, network string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return launch(ctx, p, name, network, func(addr string) []string {
		return []string{self, "serve", "-file", image, "-" + network, addr}
	})
}

func startNbdkit(ctx context.Context, p place, name, image, network string) (*server, error) {
	return launch(ctx, p, name, network, func(addr string) []string { return nbdkitArgs(image, network, addr) })
}

func nbdkitArgs(image, network, addr string, more ...string) []string {
	argv := append([]string{"nbdkit", "-f", "-t", "16"}, more...)
	if network == "unix" {
		return append(argv, "-U", addr, "file", image)
	}
	host, port, _ := net.SplitHostPort(addr) // from freePort
	return append(argv, "-i", host, "-p", port, "file", image)
}

func startQemuNBD(ctx context.Context, p place, name, image, network string) (*server, error) {
	return launch(ctx, p, name, network, func(addr string) []string {
		argv := []string{"qemu-nbd", "-t", "-e", "8", "-f", "raw"}
		if network == "unix" {
			return append(argv, "-k", addr, image)
		}
		host, port, _ := net.SplitHostPort(addr) // from freePort
		return append(argv, "-b", host, "-p", port, image)
	})
}

// startNbdServer differs from the others: with -d it would serve a single connection,
// so it goes to the background and is found by its pid file.
func startNbdServer(ctx context.Context, p place, name, image, network string) (*server, error) {
	addr, where := p.socket(name), "unixsock = "+p.socket(name)
	uri := "nbd+unix:///e?socket=" + addr
	if network == "tcp" {
		var err error
		if addr, err = freePort(); err != nil {
			return nil, err
		}
		host, port, _ := net.SplitHostPort(addr) // from freePort
		where, uri = "listenaddr = "+host+"\nport = "+port, "nbd://"+addr+"/e"
	}
	conf, pidFile := filepath.Join(p.run, name+".conf"), filepath.Join(p.run, name+".pid")
	text := fmt.Sprintf("[generic]\n%s\nmax_threads = 16\n[e]\nexportname = %s\nflush = true\nfua = true\ntrim = true\n", where, image)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := runQuiet(ctx, []string{"nbd-server", "-C", conf, "-p", pidFile}); err != nil {
		return nil, err
	}
	if c, err := dialRetry(network, addr); err != nil {
		return nil, fmt.Errorf("nbd-server: %w", err)
	} else if err := c.Close(); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pidFile, err)
	}
	return &server{name: name, uri: uri, daemon: pid}, nil
}

// startQuorum is QEMU's synchronous mirror: a local file and a remote nbdkit over TCP.
func startQuorum(ctx context.Context, p place, name, image string) (*server, error) {
	remote, err := p.image(name + "-remote")
	if err != nil {
		return nil, err
	}
	kit, err := launch(ctx, p, name+"-nbdkit", "tcp", func(addr string) []string {
		return nbdkitArgs(remote, "tcp", addr, "--filter=noextents")
	})
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(strings.Trim(strings.TrimPrefix(kit.uri, "nbd://"), "/"))
	s, err := launch(ctx, p, name, "unix", func(addr string) []string {
		return []string{
			"qemu-storage-daemon",
			"--blockdev", fmt.Sprintf(`{"driver":"file","node-name":"l0","filename":%q}`, image),
			"--blockdev", fmt.Sprintf(`{"driver":"nbd","node-name":"r0","server":{"type":"inet","host":%q,"port":%q},"export":"","reconnect-delay":0}`, host, port),
			"--blockdev", `{"driver":"quorum","node-name":"q0","vote-threshold":1,"read-pattern":"fifo","children":["l0","r0"]}`,
			"--nbd-server", "addr.type=unix,addr.path=" + addr + ",max-connections=0",
			"--export", "type=nbd,id=e0,node-name=q0,name=,writable=on",
		}
	})
	if err != nil {
		kit.stop()
		return nil, err
	}
	s.procs = append(s.procs, kit.procs...)
	return s, nil
}

// startMirror is two nodes, the first of them Primary and serving, in sync.
func startMirror(ctx context.Context, p place, name, image string, o pairOptions) (*server, error) {
	remote, err := p.image(name + "-remote")
	if err != nil {
		return nil, err
	}
	nodes, err := startPair(ctx, p, name, image, remote, o)
	if err != nil {
		return nil, err
	}
	s := &server{name: name, uri: "nbd+unix:///r0?socket=" + p.socket(name), nodes: nodes}
	for _, n := range nodes {
		s.procs = append(s.procs, n.proc)
	}
	return s, nil
}
