package bitmap

import "testing"

func BenchmarkSetRange(b *testing.B) {
	for _, s := range []struct {
		name string
		bits uint64
	}{{"4KiB", 1}, {"1MiB", 256}, {"128MiB", PageBits}} {
		b.Run(s.name, func(b *testing.B) {
			m := New(1 << 22)
			m.SetRange(0, 1)
			at := uint64(0)
			for b.Loop() {
				m.SetRange(at, at+s.bits)
				m.ClearRange(at, at+s.bits)
				at = (at + 5003) % (1 << 22)
			}
		})
	}
}

func BenchmarkSetAll16TiB(b *testing.B) {
	m := New(bits16TiB)
	for b.Loop() {
		m.SetAll()
		m.ClearAll()
	}
}

func BenchmarkNext(b *testing.B) {
	for _, s := range []struct {
		name string
		bits uint64
		step uint64
	}{{"16TiB-clean", bits16TiB, 0}, {"dense", 1 << 22, 3}, {"sparse", 1 << 22, 5000}} {
		b.Run(s.name, func(b *testing.B) {
			m := New(s.bits)
			for i := uint64(0); s.step != 0 && i < s.bits; i += s.step {
				m.SetRange(i, i+1)
			}
			at := uint64(0)
			for b.Loop() {
				bit, ok := m.Next(at)
				if at = bit + 1; !ok {
					at = 0
				}
			}
		})
	}
}

func BenchmarkWeight(b *testing.B) {
	m := New(bits16TiB)
	m.SetRange(100, 1000000)
	for b.Loop() {
		m.Weight()
	}
}

func BenchmarkExtentWeight(b *testing.B) {
	m := New(1 << 24)
	for i := uint64(0); i < m.Bits(); i += 3 {
		m.SetRange(i, i+1)
	}
	e := uint32(0)
	for b.Loop() {
		m.ExtentWeight(e)
		e = (e + 1) % m.Extents()
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, s := range []struct {
		name string
		bits uint64
		step uint64
	}{{"16TiB-clean", bits16TiB, 0}, {"dense", 1 << 22, 3}, {"sparse", 1 << 22, 500}} {
		b.Run(s.name, func(b *testing.B) {
			m := New(s.bits)
			for i := uint64(0); s.step != 0 && i < s.bits; i += s.step {
				m.SetRange(i, i+1)
			}
			buf := make([]byte, 0, 2*MaxPacket)
			e := NewEncoder(m, header100, true)
			for b.Loop() { // one packet
				if e.Done() {
					e = NewEncoder(m, header100, true)
				}
				e.Next(buf)
			}
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	m := New(PageBits)
	m.SetRange(5, 500)
	buf := make([]byte, 0, PageSize)
	for b.Loop() {
		m.Snapshot(buf, 0)
		m.MarkWritten(0)
	}
}

func BenchmarkLoadPage(b *testing.B) {
	m := New(PageBits)
	m.SetRange(5, 500)
	data := m.AppendPage(nil, 0)
	for b.Loop() {
		if err := m.LoadPage(0, data); err != nil {
			b.Fatal(err)
		}
	}
}
