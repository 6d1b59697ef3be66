package message

import "fmt"

// AuthMethod is how an AUTH payload proves an identity, RFC 7296, 3.8.
type AuthMethod uint8

const (
	AuthRSA              AuthMethod = 1 // RSASSA-PKCS1-v1_5
	AuthSharedKey        AuthMethod = 2
	AuthECDSA256         AuthMethod = 9  // RFC 4754, P-256 with SHA-256
	AuthECDSA384         AuthMethod = 10 // RFC 4754, P-384 with SHA-384
	AuthECDSA521         AuthMethod = 11 // RFC 4754, P-521 with SHA-512
	AuthNull             AuthMethod = 13 // RFC 7619
	AuthDigitalSignature AuthMethod = 14 // RFC 7427
)

func (m AuthMethod) String() string {
	switch m {
	case AuthRSA:
		return "RSA"
	case AuthSharedKey:
		return "PSK"
	case AuthECDSA256:
		return "ECDSA-256"
	case AuthECDSA384:
		return "ECDSA-384"
	case AuthECDSA521:
		return "ECDSA-521"
	case AuthNull:
		return "NULL"
	case AuthDigitalSignature:
		return "signature"
	}
	return fmt.Sprintf("authentication method %d", uint8(m))
}

// HashAlgorithm is a hash of SIGNATURE_HASH_ALGORITHMS, RFC 7427, 4 and RFC 8420.
type HashAlgorithm uint16

const (
	HashSHA1     HashAlgorithm = 1
	HashSHA2256  HashAlgorithm = 2
	HashSHA2384  HashAlgorithm = 3
	HashSHA2512  HashAlgorithm = 4
	HashIdentity HashAlgorithm = 5 // Ed25519 signs the octets themselves
)

// Auth proves an identity.
type Auth struct {
	Method AuthMethod
	Data   []byte
}

func (p *Auth) Type() PayloadType { return TypeAuth }
func (p *Auth) AppendBody(b []byte) []byte {
	return append(append(b, byte(p.Method), 0, 0, 0), p.Data...)
}

func parseAuth(b []byte) (*Auth, error) {
	if len(b) < 5 {
		return nil, syntaxError("AUTH of %d bytes", len(b))
	}
	if len(b)-4 > AuthMax {
		return nil, tooMany("AUTH of %d bytes", len(b))
	}
	return &Auth{Method: AuthMethod(b[0]), Data: b[4:]}, nil
}
