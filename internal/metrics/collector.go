package metrics

import (
	"runtime"
	"runtime/debug"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/replblk/replblk/internal/control"
)

// Collector makes metrics of snapshots.
type Collector struct {
	send    func(emitter)
	process []prometheus.Collector
}

var _ prometheus.Collector = (*Collector)(nil)

// New returns a collector of what snapshot returns.
func New(snapshot func() []control.Resource) *Collector {
	return newCollector(func(e emitter) {
		list := snapshot()
		e.put(resources, float64(len(list)))
		e.put(version, 1, "", revision())
		for i := range list {
			e.resource(&list[i])
		}
	})
}

// Target is an AoE target with the name that its series have.
type Target struct {
	Name string
	control.AoE
}

// NewTargets returns a collector for a process that serves AoE targets and nothing else.
func NewTargets(snapshot func() []Target) *Collector {
	return newCollector(func(e emitter) {
		for _, t := range snapshot() {
			e.aoe(t.Name, &t.AoE)
		}
	})
}

func newCollector(send func(emitter)) *Collector {
	return &Collector{send: send, process: []prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range all {
		ch <- d.desc
	}
	for _, p := range c.process {
		p.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	for _, p := range c.process {
		p.Collect(ch)
	}
	e := emitter{ch}
	e.put(up, 1)
	e.put(buildInfo, 1, "0", revision(), runtime.Version())
	c.send(e)
}

func revision() string {
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

// metric is a description with its type.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

var all []metric // every metric of this file's tables, for Describe

func define(kind prometheus.ValueType, name, help string, labels ...string) metric {
	m := metric{prometheus.NewDesc(name, help, labels, nil), kind}
	all = append(all, m)
	return m
}

func gauge(name, help string, labels ...string) metric {
	return define(prometheus.GaugeValue, name, help, labels...)
}

func counter(name, help string, labels ...string) metric {
	return define(prometheus.CounterValue, name, help, labels...)
}

// histogram has no value type: it is sent by emitter.times.
func histogram(name, help string, labels ...string) metric {
	return define(prometheus.UntypedValue, name, help, labels...)
}

// emitter sends metrics to a scrape.
type emitter struct{ ch chan<- prometheus.Metric }

func (e emitter) put(m metric, v float64, labels ...string) {
	e.ch <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
}

func (e emitter) flag(m metric, v bool, labels ...string) {
	n := 0.0
	if v {
		n = 1
	}
	e.put(m, n, labels...)
}

// states sends one series per word, 1 for the present one.
func (e emitter) states(m metric, words []string, now string, labels ...string) {
	for _, w := range words {
		e.flag(m, w == now, with(labels, w)...)
	}
}

// times sends a histogram.
func (e emitter) times(m metric, h *control.Latency, labels ...string) {
	below := make(map[float64]uint64, len(h.Bounds))
	var count uint64
	for i, n := range h.Buckets {
		count += n
		if i < len(h.Bounds) {
			below[h.Bounds[i]] = count
		}
	}
	e.ch <- prometheus.MustNewConstHistogram(m.desc, count, h.Sum, below, labels...)
}

func number(n uint16) string { return strconv.Itoa(int(n)) }
