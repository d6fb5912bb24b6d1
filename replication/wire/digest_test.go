package wire

import (
	"bytes"
	"encoding/hex"
	"path/filepath"
	"testing"
)

func TestDigests(t *testing.T) {
	check := []byte("123456789")
	for _, c := range []struct{ name, data, want string }{
		{"crc32c", string(make([]byte, 4096)), "8941f998"},          // spec 13.9
		{"crc32c", string(check), "839206e3"},                       // check value e3069283, little endian
		{"crc32", string(make([]byte, 4096)), "00000000"},           // no inversion: zeroes have none
		{"crc32", string(check), "882dfd2d"},                        // 2dfd2d88, little endian
		{"md5", "", "d41d8cd98f00b204e9800998ecf8427e"},             // RFC 1321
		{"sha1", "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"}, // FIPS 180
		{"sha256", "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
	} {
		d, err := NewDigest(c.name)
		if err != nil {
			t.Fatal(err)
		}
		got := d.Sum([]byte{0xaa}, []byte(c.data))
		if hex.EncodeToString(got[1:]) != c.want || d.Size() != len(got)-1 || got[0] != 0xaa || d.Name() != c.name {
			t.Errorf("%s of %.9q: %x, want aa%s", c.name, c.data, got, c.want)
		}
	}
	for name, size := range map[string]int{"md5": 16, "sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": MaxDigestSize, "crc32c": 4, "crc32": 4} {
		d, err := NewDigest(name)
		if err != nil || d.Size() != size {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewDigest("sha-1"); err == nil || err.Error() != `unknown digest algorithm "sha-1"` {
		t.Errorf("%v", err)
	}
}

// TestCRC32IsBareDivision compares with a division by hand.
func TestCRC32IsBareDivision(t *testing.T) {
	data := []byte("the kernel's crc32 has no inversions")
	var crc uint32
	for _, b := range data {
		crc ^= uint32(b)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xedb88320
			} else {
				crc >>= 1
			}
		}
	}
	if got := kernelCRC32(data); got != crc {
		t.Errorf("%08x, want %08x", got, crc)
	}
}

func TestDigestSumDoesNotAllocate(t *testing.T) {
	data, dst := make([]byte, 4096), make([]byte, 0, MaxDigestSize)
	for _, name := range []string{"md5", "sha1", "sha256", "crc32c", "crc32"} {
		d, err := NewDigest(name)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(10, func() { d.Sum(dst, data) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestGoldenIntegrity checks the digests that the kernel put before its data.
func TestGoldenIntegrity(t *testing.T) {
	if *goldenDir != "testdata" {
		t.Skip("other streams")
	}
	name := filepath.Join("testdata", "07a-proto-a-integrity.conn1.data.rx.bin")
	digest, err := NewDigest("sha1")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, p := range parseStream(t, name) {
		if p.Command != CmdData {
			continue
		}
		body, _ := p.session.Split(p.Header)
		if got := digest.Sum(nil, p.payload[body:]); !bytes.Equal(got, p.payload[DataSize:body]) {
			t.Errorf("digest %x, kernel says %x", got, p.payload[DataSize:body])
		}
		checked++
	}
	if checked != 2 {
		t.Errorf("%d writes with a digest", checked)
	}
}

func TestCRAMResponse(t *testing.T) {
	challenge := make([]byte, AuthChallengeSize)
	for i := range challenge {
		challenge[i] = byte(i)
	}
	for alg, want := range map[string]string{
		"sha1":   "afe9485a34cf04a78c4f0101a2a08974b912de08",
		"sha256": "5f5d485f2228776ad7710aa47d15a4d61744dbb9a2a3e5647f5a1bbfcf8015e1",
	} {
		got, err := CRAMResponse(alg, "secret", challenge)
		if err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%s: %x, %v, want %s", alg, got, err, want)
		}
	}
	if _, err := CRAMResponse("crc32c", "secret", challenge); err == nil {
		t.Error("crc32c accepted for authentication")
	}
}

// TestGoldenAuthentication repeats the kernel's answers; the shared secret of
// these lab recordings was "geheim".
func TestGoldenAuthentication(t *testing.T) {
	if *goldenDir != "testdata" {
		t.Skip("other streams")
	}
	for scenario, alg := range map[string]string{"02a-auth-sha1": "sha1", "02b-auth-sha256": "sha256"} {
		var challenge, response [2][]byte
		for i, direction := range []string{"tx", "rx"} {
			for _, p := range parseStream(t, filepath.Join("testdata", scenario+".conn1.data."+direction+".bin")) {
				switch p.Command {
				case CmdAuthChallenge:
					challenge[i] = p.payload
				case CmdAuthResponse:
					response[i] = p.payload
				default:
				}
			}
		}
		for i := range response {
			got, err := CRAMResponse(alg, "geheim", challenge[1-i])
			if err != nil || !bytes.Equal(got, response[i]) {
				t.Errorf("%s: %x, %v, want %x", scenario, got, err, response[i])
			}
		}
	}
}

func TestAlgorithms(t *testing.T) {
	if a := AlgorithmOf(""); a != 0 || a.Size() != 0 {
		t.Errorf("no name: algorithm %d of %d bytes", a, a.Size())
	}
	if a := AlgorithmOf("sha3-256"); a != 0 {
		t.Errorf("unknown name: algorithm %d", a)
	}
	for a := Algorithm(1); int(a) < Algorithms; a++ {
		d, err := NewDigest(a.String())
		if err != nil {
			t.Fatal(err)
		}
		if AlgorithmOf(a.String()) != a || d.Size() != a.Size() || len(d.Sum(nil, []byte{1})) != a.Size() {
			t.Errorf("%v: found as %v, %d bytes, a digest has %d", a, AlgorithmOf(a.String()), a.Size(), d.Size())
		}
	}
}
