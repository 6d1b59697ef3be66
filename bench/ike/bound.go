package ike

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"time"

	"sallyport/ike/suite"
)

// bound returns how many handshakes a CPU second has room for if nothing but public-key operations took time: those of
// both ends.
func bound(s scenario) (float64, error) {
	proposal, err := suite.ParseIKE(s.ike)
	if err != nil {
		return 0, err
	}
	methods := []uint16{proposal.KE[0]}
	for _, additional := range proposal.Additional {
		if len(additional) > 0 {
			methods = append(methods, additional[0])
		}
	}
	pair, err := issue("bound", nil)
	if err != nil {
		return 0, err
	}
	digest := sha256.Sum256([]byte("what is signed"))
	once := func() error {
		for _, method := range methods {
			k, err := suite.Initiate(method, rand.Reader)
			if err != nil {
				return err
			}
			public, _, err := suite.Respond(method, rand.Reader, k.Public())
			if err != nil {
				return err
			}
			if _, err := k.Finish(public); err != nil {
				return err
			}
		}
		if s.method != ecdsaP256 {
			return nil
		}
		for range 2 { // each end signs once, and verifies the peer's signature and its certificate's
			signature, err := ecdsa.SignASN1(rand.Reader, pair.key, digest[:])
			if err != nil {
				return err
			}
			for range 2 {
				ecdsa.VerifyASN1(&pair.key.PublicKey, digest[:], signature)
			}
		}
		return nil
	}
	const times = 300
	cpu := threadTime()
	for range times {
		if err := once(); err != nil {
			return 0, err
		}
	}
	return times / (threadTime() - cpu).Seconds(), nil
}

// threadTime is processorTime where there is nothing but one goroutine at work.
func threadTime() time.Duration { return processorTime() }
