package message

// What a peer may make us look at. All are far above what real peers send.
const (
	HeaderLen        = 28    // IKE header, RFC 7296, 3.1
	payloadHeaderLen = 4     // generic payload header, RFC 7296, 3.2
	fragmentLen      = 4     // fragment number and total, RFC 7383, 2.5
	MessageMax       = 65507 // bytes of one message: the longest UDP payload
	PayloadsMax      = 100   // payloads of one chain; RFC 7296 knows messages of a dozen, plus certificates and notifies
	ProposalsMax     = 64    // proposals of one SA payload
	TransformsMax    = 128   // transforms of one proposal
	AttributesMax    = 8     // attributes of one transform
	SelectorsMax     = 128   // traffic selectors of one TS payload
	DeletesMax       = 1024  // SPIs of one Delete payload
	ConfigMax        = 64    // attributes of one Configuration payload
	CertificateMax   = 16384 // bytes of one certificate, CRL or OCSP response
	AuthorityMax     = 16384 // bytes of the hashes of one CERTREQ payload
	IdentityMax      = 2048  // bytes of an identity
	AuthMax          = 4096  // bytes of a signature or MAC
	KeyExchangeMax   = 4096  // bytes of a public value or ciphertext; ML-KEM-1024 needs 1568, MODP-8192 1024
	NonceMin         = 16    // RFC 7296, 3.9
	NonceMax         = 256   // RFC 7296, 3.9
	CookieMax        = 64    // RFC 7296, 2.6
	FragmentsMax     = 64    // fragments of one message; 64 of 512 bytes hold the longest message that we take in pieces
	ReassembledMax   = 32768 // bytes of all fragments of one message
)
