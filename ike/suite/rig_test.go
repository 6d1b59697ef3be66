package suite

import (
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/c2sp/wycheproof"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// source is a random source that repeats itself from run to run.
func source(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

// xdhVectors has the shape of the project's vectors for key agreement.
type xdhVectors struct {
	TestGroups []struct {
		Tests []struct {
			TcID                                     int
			Comment, Public, Private, Shared, Result string
			Flags                                    []string
			Seed, Ek, C, K                           string
		}
	}
}

func readVectors(t *testing.T, name string, into any) {
	t.Helper()
	raw, err := fs.ReadFile(wycheproof.TestVectors, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

// pythonVectors are those of testdata/schedule.json; the script beside it makes them.
type pythonVectors struct {
	Schedules []struct {
		Choice, ESP                 pythonChoice
		NI, NR, SPII, SPIR, Shared  string
		Keys, Intermediate, Rekeyed map[string]string
		Extra, IntAuth              string
		NewPRF                      uint16 `json:"new_prf"`
		NewNI                       string `json:"new_ni"`
		NewNR                       string `json:"new_nr"`
		NewSPII                     string `json:"new_spii"`
		NewSPIR                     string `json:"new_spir"`
		S0, S1, Child               string
		ChildPFS                    string `json:"child_pfs"`
		Chain, Message              string
	}
	MODP []struct {
		Group                       uint16
		Prime, X, Y, GX, GY, Shared string
	}
}

type pythonChoice struct {
	Encr   uint16
	KeyLen int
	Integ  uint16
	PRF    uint16
}

func (c pythonChoice) choice() Choice {
	return Choice{Encr: c.Encr, KeyLen: c.KeyLen, Integ: c.Integ, PRF: c.PRF, KE: 31}
}

func readPython(t testing.TB) (v pythonVectors) {
	t.Helper()
	raw, err := os.ReadFile("testdata/schedule.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
