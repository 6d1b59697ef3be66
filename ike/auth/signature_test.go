package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"testing"

	"sallyport/ike/auth/authtest"
	"sallyport/ike/message"
)

var octets = []byte("what AUTH covers")

var keyWords = []string{"rsa2048", "rsa3072", "p256", "p384", "p521", "ed25519"}

func TestSignaturesVerifyAndNothingElseDoes(t *testing.T) {
	for _, word := range keyWords {
		key := authtest.Key(word, 0)
		for name, peer := range map[string][]message.HashAlgorithm{"classic": nil, "all": Hashes(), "sha256": {message.HashSHA2256}, "sha512": {message.HashSHA2512, message.HashIdentity}} {
			for _, pkcs1 := range []bool{false, true} {
				l := &Local{Key: key, Schemes: Schemes{PKCS1: pkcs1}}
				a, err := Sign(l, peer, octets, rand.Reader)
				if word == "ed25519" && !slices.Contains(peer, message.HashIdentity) {
					if !errors.Is(err, ErrAlgorithm) {
						t.Errorf("%s %s: %v", word, name, err)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s %s: %v", word, name, err)
					continue
				}
				if (peer == nil) == (a.Method == message.AuthDigitalSignature) {
					t.Errorf("%s %s: method %v", word, name, a.Method)
				}
				if err := VerifySignature(key.Public(), a, octets, Schemes{}); err != nil {
					t.Errorf("%s %s: %v", word, name, err)
				}
				if err := VerifySignature(key.Public(), a, append([]byte("x"), octets...), Schemes{}); !errors.Is(err, ErrProof) {
					t.Errorf("%s %s over other octets: %v", word, name, err)
				}
				if err := VerifySignature(authtest.Key(word, 1).Public(), a, octets, Schemes{}); !errors.Is(err, ErrProof) {
					t.Errorf("%s %s by another key: %v", word, name, err)
				}
				for i := range a.Data { // every changed byte, every shorter proof
					if i > 70 && i%37 != 0 || name == "sha512" && i%11 != 0 {
						continue
					}
					b := slices.Clone(a.Data)
					b[i] ^= 0x10
					if VerifySignature(key.Public(), &message.Auth{Method: a.Method, Data: b}, octets, Schemes{}) == nil {
						t.Errorf("%s %s: byte %d may be changed", word, name, i)
					}
					if VerifySignature(key.Public(), &message.Auth{Method: a.Method, Data: a.Data[:i]}, octets, Schemes{}) == nil {
						t.Errorf("%s %s: %d bytes are enough", word, name, i)
					}
				}
				if VerifySignature(key.Public(), &message.Auth{Method: a.Method, Data: append(slices.Clone(a.Data), 0)}, octets, Schemes{}) == nil {
					t.Errorf("%s %s: something may follow", word, name)
				}
				for m := range message.AuthMethod(16) {
					if m != a.Method && VerifySignature(key.Public(), &message.Auth{Method: m, Data: a.Data}, octets, Schemes{}) == nil {
						t.Errorf("%s %s passes as %v", word, name, m)
					}
				}
			}
		}
	}
}

// RFC 7427, appendix A gives these identifiers in full.
func TestAlgorithmIdentifiersAreThoseOfTheRFC(t *testing.T) {
	for _, c := range []struct {
		a    algorithm
		want string
	}{
		{algorithm{key: RSA, hash: message.HashSHA2256}, "300d06092a864886f70d01010b0500"},
		{algorithm{key: RSA, hash: message.HashSHA2384}, "300d06092a864886f70d01010c0500"},
		{algorithm{key: RSA, hash: message.HashSHA2512}, "300d06092a864886f70d01010d0500"},
		{algorithm{key: ECDSA, hash: message.HashSHA2256}, "300a06082a8648ce3d040302"},
		{algorithm{key: ECDSA, hash: message.HashSHA2384}, "300a06082a8648ce3d040303"},
		{algorithm{key: ECDSA, hash: message.HashSHA2512}, "300a06082a8648ce3d040304"},
		{algorithm{key: Ed25519, hash: message.HashIdentity}, "300506032b6570"},
		{algorithm{key: RSA, pss: true, hash: message.HashSHA2256, salt: 32}, "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"},
	} {
		if got := hex.EncodeToString(c.a.identifier()); got != c.want {
			t.Errorf("%+v: %s, want %s", c.a, got, c.want)
		}
		der, _ := hex.DecodeString(c.want)
		if got, err := parseAlgorithm(der); err != nil || got != c.a {
			t.Errorf("%s is read as %+v, %v", c.want, got, err)
		}
		for i := range der {
			if _, err := parseAlgorithm(der[:i]); err == nil {
				t.Errorf("%d bytes of %s pass", i, c.want)
			}
		}
		if _, err := parseAlgorithm(append(der, 0)); err == nil {
			t.Errorf("a byte behind %s passes", c.want)
		}
	}
}

// What RFC 8247, 3 and the hazards of signatures forbid.
func TestWeakSignaturesAreRefused(t *testing.T) {
	for _, c := range []struct{ what, der string }{
		{"sha1WithRSA", "300d06092a864886f70d0101050500"},
		{"md5WithRSA", "300d06092a864886f70d0101040500"},
		{"ecdsa-with-SHA1", "300906072a8648ce3d0401"},
		{"DSA with SHA-1", "300906072a8648ce380403"},
		{"PSS with all defaults", "300d06092a864886f70d01010a3000"},
		{"PSS with SHA-1", "302006092a864886f70d01010a3013a00b300906052b0e03021a0500a203020114"},
		{"PSS with two hashes", "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020120"},
		{"PSS without salt", "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020100"},
		{"RSA without NULL", "300b06092a864886f70d01010b"},
		{"ECDSA with NULL", "300c06082a8648ce3d0403020500"},
		{"a length in two bytes", "30810d06092a864886f70d01010b0500"},
	} {
		der, err := hex.DecodeString(c.der)
		if err != nil {
			t.Fatal(c.what, err)
		}
		if a, err := parseAlgorithm(der); !errors.Is(err, ErrAlgorithm) {
			t.Errorf("%s: %+v, %v", c.what, a, err)
		}
	}
	key := authtest.Key("rsa2048", 0).(*rsa.PrivateKey)
	digest := sha1.Sum(octets)
	s, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA1, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifySignature(key.Public(), &message.Auth{Method: message.AuthRSA, Data: s}, octets, Schemes{}); !errors.Is(err, ErrProof) {
		t.Error("RSA with SHA-1:", err)
	}
	for _, word := range []string{"rsa1024", "p224"} {
		k := authtest.Key(word, 0)
		if _, err := Sign(&Local{Key: k}, Hashes(), octets, rand.Reader); !errors.Is(err, ErrKey) {
			t.Error("signing with", word, err)
		}
		if err := VerifySignature(k.Public(), &message.Auth{Method: message.AuthDigitalSignature, Data: []byte{0}}, octets, Schemes{}); !errors.Is(err, ErrKey) {
			t.Error("verifying with", word, err)
		}
	}
	small := &rsa.PublicKey{N: key.N, E: 3}
	if err := VerifySignature(small, &message.Auth{Method: message.AuthRSA, Data: s}, octets, Schemes{}); !errors.Is(err, ErrKey) {
		t.Error("exponent 3:", err)
	}
	huge := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 16384), E: 65537}
	if err := VerifySignature(huge, &message.Auth{Method: message.AuthRSA, Data: s}, octets, Schemes{}); !errors.Is(err, ErrKey) {
		t.Error("an endless key:", err)
	}
	// An all-zero ECDSA signature, in both forms.
	ec := authtest.Key("p256", 0)
	for _, a := range []*message.Auth{
		{Method: message.AuthECDSA256, Data: make([]byte, 64)},
		{Method: message.AuthDigitalSignature, Data: append(append([]byte{12}, algorithm{key: ECDSA, hash: message.HashSHA2256}.identifier()...), 0x30, 6, 2, 1, 0, 2, 1, 0)},
	} {
		if err := VerifySignature(ec.Public(), a, octets, Schemes{}); !errors.Is(err, ErrProof) {
			t.Error("zero signature:", err)
		}
	}
}

// Configured schemes bind both the signer and the verifier.
func TestSchemesLimitSignatures(t *testing.T) {
	for _, c := range []struct {
		word, key string
		sign      Schemes
		ok        bool
	}{
		{"pubkey", "rsa2048", Schemes{}, true},
		{"rsa", "p256", Schemes{}, false},
		{"rsa-3072", "rsa2048", Schemes{}, false},
		{"rsa-3072", "rsa3072", Schemes{}, true},
		{"rsa/pss", "rsa2048", Schemes{}, true},
		{"rsa/pss", "rsa2048", Schemes{PKCS1: true}, false},
		{"ecdsa-384", "p256", Schemes{}, false},
		{"ecdsa-384", "p521", Schemes{}, true},
		{"ed25519", "ed25519", Schemes{}, true},
		{"ed25519", "p256", Schemes{}, false},
		{"pubkey-sha384", "p256", Schemes{}, false},
		{"pubkey-sha384", "p384", Schemes{}, true},
		{"ike:ecdsa-sha256", "p256", Schemes{}, true},
	} {
		m, schemes, err := ParseMethod(c.word)
		if err != nil || m != PublicKey {
			t.Fatal(c.word, m, err)
		}
		key := authtest.Key(c.key, 0)
		a, err := Sign(&Local{Key: key, Schemes: c.sign}, Hashes(), octets, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := VerifySignature(key.Public(), a, octets, schemes); (err == nil) != c.ok {
			t.Errorf("%s with %s: %v", c.word, c.key, err)
		}
	}
	for _, bad := range []string{"", "eap", "rsa-1024", "rsa-sha1", "ecdsa-255", "psk-sha256", "pubkey-2048", "rsa-16384", "xauth"} {
		if m, s, err := ParseMethod(bad); err == nil {
			t.Errorf("%q is taken for %v %+v", bad, m, s)
		}
	}
	if m, _, err := ParseMethod("psk"); m != PSK || err != nil {
		t.Error("psk:", m, err)
	}
	if got := ParseHashes(HashNotify().Data); !slices.Equal(got, Hashes()) {
		t.Error("our own notify is read as", got)
	}
	if ParseHashes(nil) == nil {
		t.Error("an empty notify is none")
	}
}

func TestPrivateKeysOfEveryForm(t *testing.T) {
	encode := func(kind string, der []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	for _, word := range keyWords {
		key := authtest.Key(word, 0)
		der, err := x509.MarshalPKCS8PrivateKey(key)
		forms := map[string][]byte{"PKCS#8": encode("PRIVATE KEY", der, err), "PKCS#8 DER": der}
		switch k := key.(type) {
		case *rsa.PrivateKey:
			forms["PKCS#1"] = encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k), nil)
			forms["PKCS#1 DER"] = x509.MarshalPKCS1PrivateKey(k)
		case *ecdsa.PrivateKey:
			der, err := x509.MarshalECPrivateKey(k)
			forms["SEC1"] = encode("EC PRIVATE KEY", der, err)
			forms["SEC1 DER"] = der
			params, err := asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7})
			forms["behind parameters"] = append(encode("EC PARAMETERS", params, err), forms["SEC1"]...)
		}
		for form, b := range forms {
			got, err := ParseKey(b)
			if err != nil || !samePublic(got.Public(), key.Public()) {
				t.Errorf("%s in %s: %v", word, form, err)
			}
		}
	}
	legacy := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: []byte{1}})
	for what, b := range map[string][]byte{"PKCS#8": encode("ENCRYPTED PRIVATE KEY", []byte{1}, nil), "legacy": legacy} {
		if _, err := ParseKey(b); !errors.Is(err, ErrEncryptedKey) {
			t.Errorf("encrypted %s: %v", what, err)
		}
	}
	weak, err := x509.MarshalPKCS8PrivateKey(authtest.Key("rsa1024", 0))
	if _, e := ParseKey(encode("PRIVATE KEY", weak, err)); !errors.Is(e, ErrKey) {
		t.Error("a weak key:", e)
	}
	for what, b := range map[string][]byte{"nothing": nil, "text": []byte("hello"), "certificate": encode("CERTIFICATE", []byte{1}, nil), "OpenSSH": encode("OPENSSH PRIVATE KEY", []byte{1}, nil), "DSA": encode("DSA PRIVATE KEY", []byte{1}, nil), "garbage": encode("PRIVATE KEY", []byte{1}, nil)} {
		if _, err := ParseKey(b); err == nil {
			t.Errorf("%s is a key", what)
		}
	}
}

func TestLocalBelongsTogether(t *testing.T) {
	ca := authtest.NewRoot("ca", authtest.Key("p256", 9))
	key := authtest.Key("p256", 0)
	cert := ca.Issue("gw.example.org", key)
	certs := []*x509.Certificate{cert, ca.Certificate}
	l, err := NewLocal(Identity{}, PublicKey, Schemes{}, certs, key)
	if err != nil || l.ID != SubjectOf(cert) {
		t.Fatal(l, err)
	}
	if n := len(l.Payloads()); n != 1 {
		t.Errorf("%d certificates are sent; the root should not be", n)
	}
	if l, err := NewLocal(id(t, "c=ch, o=example, cn=GW.example.org"), PublicKey, Schemes{}, certs, key); err != nil || l.ID != SubjectOf(cert) {
		t.Error("the subject as written is not sent as certified:", err)
	}
	for what, f := range map[string]func() (*Local, error){
		"another name": func() (*Local, error) { return NewLocal(id(t, "b.example.org"), PublicKey, Schemes{}, certs, key) },
		"another key": func() (*Local, error) {
			return NewLocal(Identity{}, PublicKey, Schemes{}, certs, authtest.Key("p256", 1))
		},
		"no key":       func() (*Local, error) { return NewLocal(Identity{}, PublicKey, Schemes{}, certs, nil) },
		"no cert":      func() (*Local, error) { return NewLocal(Identity{}, PublicKey, Schemes{}, nil, key) },
		"psk":          func() (*Local, error) { return NewLocal(Identity{}, PSK, Schemes{}, certs, key) },
		"other scheme": func() (*Local, error) { return NewLocal(Identity{}, PublicKey, Schemes{Keys: RSA}, certs, key) },
	} {
		if _, err := f(); err == nil {
			t.Error(what, "is taken")
		}
	}
}

func FuzzSignature(f *testing.F) {
	keys := []crypto.Signer{}
	for i, word := range keyWords {
		key := authtest.Key(word, 0)
		keys = append(keys, key)
		for _, peer := range [][]message.HashAlgorithm{nil, Hashes()} {
			if a, err := Sign(&Local{Key: key}, peer, octets, rand.Reader); err == nil {
				f.Add(uint8(i), uint8(a.Method), a.Data, []byte("other"))
			}
		}
	}
	f.Fuzz(func(t *testing.T, k, method uint8, data, covered []byte) {
		key := keys[int(k)%len(keys)]
		if VerifySignature(key.Public(), &message.Auth{Method: message.AuthMethod(method), Data: data}, append(covered, "!"...), Schemes{}) == nil {
			t.Fatal("a forged signature verifies")
		}
	})
}
