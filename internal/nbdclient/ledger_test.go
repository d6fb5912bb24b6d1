package nbdclient

import "testing"

func TestLedgerJudges(t *testing.T) {
	block := func(at, number uint64) []byte {
		p := make([]byte, BlockSize)
		pattern(p, at, number)
		return p
	}
	torn := append(append([]byte(nil), block(5, 7)[:2048]...), block(5, 6)[2048:]...)
	for _, c := range []struct {
		name  string
		state contents
		found []byte
		ok    bool
	}{
		{"the acknowledged write is there", contents{acked: 7}, block(5, 7), true},
		{"an older write is there", contents{acked: 7}, block(5, 6), false},
		{"zeroes after an acknowledged write", contents{acked: 7}, make([]byte, BlockSize), false},
		{"the write in doubt happened", contents{acked: 7, doubted: []uint64{8}}, block(5, 8), true},
		{"the write in doubt did not happen", contents{acked: 7, doubted: []uint64{8}}, block(5, 7), true},
		{"never acknowledged, did not happen", contents{doubted: []uint64{8}}, make([]byte, BlockSize), true},
		{"the write of another block", contents{acked: 7}, block(6, 7), false},
		{"half a write", contents{acked: 7, doubted: []uint64{6}}, torn, false},
	} {
		err := c.state.check(c.found, make([]byte, BlockSize), 5)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
