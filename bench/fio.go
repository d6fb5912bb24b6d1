package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// job is one kind of load.
type job struct {
	Name  string
	rw    string // fio's name
	block int    // bytes
	depth int
}

// jobs are the loads that every server is measured with.
var jobs = []job{
	{"write 4k q1", "randwrite", 4 << 10, 1},
	{"write 4k q16", "randwrite", 4 << 10, 16},
	{"write 4k q64", "randwrite", 4 << 10, 64},
	{"read 4k q1", "randread", 4 << 10, 1},
	{"read 4k q16", "randread", 4 << 10, 16},
	{"read 4k q64", "randread", 4 << 10, 64},
	{"write 1m seq q4", "write", 1 << 20, 4},
	{"read 1m seq q4", "read", 1 << 20, 4},
}

func (j job) reads() bool { return j.rw == "randread" || j.rw == "read" }

// sample is what one run of one job showed.
type sample struct {
	IOPS float64 `json:"iops"`
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p999_us,omitempty"`
	// Repeats counts requests that had to be sent again (AoE).
	Repeats uint64 `json:"repeats,omitempty"`
	// CPU and LoadCPU are the processor time per request in µs, of the server and of
	// what loads it (AoE).
	CPU     float64 `json:"cpu_us,omitempty"`
	LoadCPU float64 `json:"load_cpu_us,omitempty"`
}

// fio's JSON, as far as it is needed.
type fioOutput struct {
	Jobs []struct {
		Read, Write fioSide
	}
}

type fioSide struct {
	IOPS   float64 `json:"iops"`
	ClatNs struct {
		Percentile map[string]float64 `json:"percentile"`
	} `json:"clat_ns"`
}

// fioArgs is the command line of a job, fit for a shell but for the quotes of uri.
func fioArgs(j job, uri string, size int64, d time.Duration) []string {
	return []string{
		"fio", "--name=j", "--ioengine=nbd", "--uri=" + uri, "--rw=" + j.rw,
		"--bs=" + strconv.Itoa(j.block), "--iodepth=" + strconv.Itoa(j.depth), "--size=" + strconv.FormatInt(size, 10),
		"--time_based", fmt.Sprintf("--runtime=%dms", d.Milliseconds()), "--ramp_time=250ms",
		"--randrepeat=0", "--norandommap", "--output-format=json",
	}
}

func runFio(ctx context.Context, j job, uri string, size int64, d time.Duration) (sample, error) {
	argv := fioArgs(j, uri, size, d)
	ctx, cancel := context.WithTimeout(ctx, d+30*time.Second)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // see fioArgs
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return sample{}, fmt.Errorf("%v: %w: %s", argv, err, stderr.Bytes())
	}
	// Notes may stand before the JSON.
	if i := bytes.IndexByte(out, '{'); i > 0 {
		out = out[i:]
	}
	var r fioOutput
	if err := json.Unmarshal(out, &r); err != nil || len(r.Jobs) != 1 {
		return sample{}, fmt.Errorf("%v: unexpected output: %w", argv, err)
	}
	side := r.Jobs[0].Write
	if j.reads() {
		side = r.Jobs[0].Read
	}
	if side.IOPS == 0 {
		return sample{}, fmt.Errorf("%v: no I/O: %s", argv, stderr.Bytes())
	}
	const us = 1000
	return sample{IOPS: side.IOPS, P50: side.ClatNs.Percentile["50.000000"] / us, P99: side.ClatNs.Percentile["99.000000"] / us}, nil
}
