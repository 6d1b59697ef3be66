package auth

import "errors"

// What callers tell apart; every error of this package about a peer wraps one of them.
var (
	ErrNoSecret    = errors.New("no secret is configured for the two identities")
	ErrMethod      = errors.New("the authentication method is not allowed")
	ErrProof       = errors.New("the proof is wrong")
	ErrAlgorithm   = errors.New("the signature algorithm is not allowed")
	ErrKey         = errors.New("the public key is too weak or of no use here")
	ErrCertificate = errors.New("the certificate is not usable")
	ErrUntrusted   = errors.New("the certificate is not trusted")
	ErrExpired     = errors.New("the certificate is outside of its time")
	ErrIdentity    = errors.New("the identity is not the certificate's")
	ErrRevoked     = errors.New("the certificate is revoked")
	ErrUnknown     = errors.New("nobody could say whether the certificate is revoked")
	// ErrEncryptedKey is for a private key behind a pass phrase.
	ErrEncryptedKey = errors.New("the private key is encrypted: the gateway starts unattended and has no pass phrase; decrypt it (openssl pkey -in key.pem -out plain.pem) and protect the file instead")
)
