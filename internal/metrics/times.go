package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/replblk/replblk/block"
)

// buckets of durations: 20 µs to 0.65 s, factor 2.
var buckets = prometheus.ExponentialBuckets(20e-6, 2, 16)

// Times makes the histograms of all volumes.
type Times struct {
	write, read, flush *prometheus.HistogramVec
}

// NewTimes registers the histograms with r.
func NewTimes(r prometheus.Registerer) *Times {
	vec := func(name, help string, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: buckets, NativeHistogramBucketFactor: 1.2,
			NativeHistogramMaxBucketNumber: 100,
		}, append([]string{"name", "volume", "minor"}, labels...))
		r.MustRegister(h)
		return h
	}
	return &Times{
		write: vec("drbd_device_write_duration_seconds", "Duration of writes, by stage; one in 16 is measured.", "stage"),
		read:  vec("drbd_device_read_duration_seconds", "Duration of reads, by copy; one in 16 is measured.", "from"),
		flush: vec("drbd_device_flush_duration_seconds", "Duration of flushes of the backing device."),
	}
}

// Disk returns the histograms of a volume's backing device.
func (t *Times) Disk(resource string, volume uint16, minor uint32) *DiskTimes {
	base := []string{resource, strconv.Itoa(int(volume)), strconv.FormatUint(uint64(minor), 10)}
	local := with(base, "local")
	return &DiskTimes{
		write: t.write.WithLabelValues(local...), read: t.read.WithLabelValues(local...), flush: t.flush.WithLabelValues(base...),
	}
}

// DiskTimes collects how long a backing device takes. Its method may be called from
// any goroutine.
type DiskTimes struct {
	write, read, flush prometheus.Observer
}

// Observe records one request.
func (d *DiskTimes) Observe(op block.Op, took time.Duration) {
	switch op {
	case block.Read:
		d.read.Observe(took.Seconds())
	case block.Flush:
		d.flush.Observe(took.Seconds())
	default:
		d.write.Observe(took.Seconds())
	}
}
