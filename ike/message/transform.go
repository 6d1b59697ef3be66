package message

import "fmt"

// TransformType is the kind of a transform, RFC 7296, 3.3.2 and RFC 9370, 2.2.1.
type TransformType uint8

const (
	TransformEncr  TransformType = 1
	TransformPRF   TransformType = 2
	TransformInteg TransformType = 3
	TransformKE    TransformType = 4 // key exchange, formerly "Diffie-Hellman group"
	TransformESN   TransformType = 5
	TransformADDKE TransformType = 6 // ADDKE1; 7 to 12 are ADDKE2 to ADDKE7
)

// String returns RFC 7296's abbreviation.
func (t TransformType) String() string {
	switch t {
	case TransformEncr:
		return "ENCR"
	case TransformPRF:
		return "PRF"
	case TransformInteg:
		return "INTEG"
	case TransformKE:
		return "KE"
	case TransformESN:
		return "ESN"
	}
	if t >= TransformADDKE && t < TransformADDKE+7 {
		return fmt.Sprintf("ADDKE%d", t-TransformADDKE+1)
	}
	return fmt.Sprintf("transform type %d", uint8(t))
}

// Encryption transforms (IANA, "Transform Type 1"). Only what some peer may offer and we name is listed.
const (
	Encr3DES                uint16 = 3
	EncrNULL                uint16 = 11
	EncrAESCBC              uint16 = 12
	EncrAESCTR              uint16 = 13
	EncrAESCCM8             uint16 = 14
	EncrAESCCM12            uint16 = 15
	EncrAESCCM16            uint16 = 16
	EncrAESGCM8             uint16 = 18
	EncrAESGCM12            uint16 = 19
	EncrAESGCM16            uint16 = 20
	EncrNullAuthAESGMAC     uint16 = 21 // RFC 4543, 8
	EncrChaCha20Poly1305    uint16 = 28
	EncrAESGCM16IIV         uint16 = 30 // RFC 8750, 8
	EncrChaCha20Poly1305IIV uint16 = 31 // RFC 8750, 8
)

// Pseudo-random functions (IANA, "Transform Type 2").
const (
	PRFHMACMD5     uint16 = 1
	PRFHMACSHA1    uint16 = 2
	PRFAES128XCBC  uint16 = 4
	PRFHMACSHA2256 uint16 = 5
	PRFHMACSHA2384 uint16 = 6
	PRFHMACSHA2512 uint16 = 7
	PRFAES128CMAC  uint16 = 8
)

// Integrity algorithms (IANA, "Transform Type 3").
const (
	AuthNone           uint16 = 0
	AuthHMACMD596      uint16 = 1
	AuthHMACSHA196     uint16 = 2
	AuthAESXCBC96      uint16 = 5
	AuthAESCMAC96      uint16 = 8
	AuthAES128GMAC     uint16 = 9 // RFC 4543, 8; in AH alone
	AuthAES192GMAC     uint16 = 10
	AuthAES256GMAC     uint16 = 11
	AuthHMACSHA2256128 uint16 = 12
	AuthHMACSHA2384192 uint16 = 13
	AuthHMACSHA2512256 uint16 = 14
)

// Key exchange methods (IANA, "Transform Type 4").
const (
	KENone       uint16 = 0
	KEMODP768    uint16 = 1
	KEMODP1024   uint16 = 2
	KEMODP1536   uint16 = 5
	KEMODP2048   uint16 = 14
	KEMODP3072   uint16 = 15
	KEMODP4096   uint16 = 16
	KEMODP6144   uint16 = 17
	KEMODP8192   uint16 = 18
	KEECP256     uint16 = 19
	KEECP384     uint16 = 20
	KEECP521     uint16 = 21
	KECurve25519 uint16 = 31
	KECurve448   uint16 = 32
	KEMLKEM512   uint16 = 35
	KEMLKEM768   uint16 = 36
	KEMLKEM1024  uint16 = 37
)

// Extended sequence numbers (IANA, "Transform Type 5").
const (
	ESNNo  uint16 = 0
	ESNYes uint16 = 1
)
