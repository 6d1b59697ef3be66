// Package auth says who the two ends of an IKE SA are and how they prove it.
//
//	configuration ─► Store (secrets, authorities, keys: immutable; a reload builds another)
//	Local  ─► PSKAuth / Sign, Local.Payloads            what we send
//	CERT   ─► Store.Chain ─► Chain (trusted, bound to the identity)
//	AUTH   ─► VerifyPSK / VerifySignature                what we believe
//	Chain  ─► Checker.Check (CRL and OCSP, the only part that speaks with a network)
//
// A peer's message never makes anything here but an error: certificates are parsed by
// crypto/x509, signatures verified by the standard library, algorithm identifiers
// read strictly. Whatever is weak is refused before it is computed with: SHA-1, RSA
// below 2048 bits or with an exponent below 65537, curves below P-256 (RFC 8247, 3).
//
// Not handled: EAP, raw public keys (RFC 7670), hash-and-URL certificates (refused:
// a peer that is not authenticated must not make us fetch things), PKCS#7, IKEv1.
package auth
