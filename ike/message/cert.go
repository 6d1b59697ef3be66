package message

// CertEncoding is what a CERT or CERTREQ payload carries, RFC 7296, 3.6.
type CertEncoding uint8

const (
	CertPKCS7          CertEncoding = 1
	CertX509Signature  CertEncoding = 4
	CertCRL            CertEncoding = 7
	CertHashURL        CertEncoding = 12
	CertHashURLBundle  CertEncoding = 13
	CertOCSPContent    CertEncoding = 14 // RFC 4806
	CertRawPublicKey   CertEncoding = 15 // RFC 7670
	AuthorityHashBytes              = 20 // SHA-1 of an authority's SubjectPublicKeyInfo
)

// Cert is one certificate, CRL or OCSP response.
type Cert struct {
	Encoding CertEncoding
	Data     []byte
}

func (p *Cert) Type() PayloadType          { return TypeCert }
func (p *Cert) AppendBody(b []byte) []byte { return append(append(b, byte(p.Encoding)), p.Data...) }

func parseCert(b []byte) (*Cert, error) {
	if len(b) < 2 {
		return nil, syntaxError("CERT of %d bytes", len(b))
	}
	if len(b)-1 > CertificateMax {
		return nil, tooMany("CERT of %d bytes", len(b))
	}
	return &Cert{Encoding: CertEncoding(b[0]), Data: b[1:]}, nil
}

// CertReq asks for a certificate. For CertX509Signature, Authorities is a row of AuthorityHashBytes-byte hashes,
// empty for "any".
type CertReq struct {
	Encoding    CertEncoding
	Authorities []byte
}

func (p *CertReq) Type() PayloadType { return TypeCertReq }
func (p *CertReq) AppendBody(b []byte) []byte {
	return append(append(b, byte(p.Encoding)), p.Authorities...)
}

func parseCertReq(b []byte) (*CertReq, error) {
	if len(b) < 1 {
		return nil, syntaxError("CERTREQ of %d bytes", len(b))
	}
	if len(b)-1 > AuthorityMax {
		return nil, tooMany("CERTREQ of %d bytes", len(b))
	}
	p := &CertReq{Encoding: CertEncoding(b[0]), Authorities: b[1:]}
	if p.Encoding == CertX509Signature && len(p.Authorities)%AuthorityHashBytes != 0 {
		return nil, syntaxError("CERTREQ with %d bytes of hashes", len(p.Authorities))
	}
	return p, nil
}
