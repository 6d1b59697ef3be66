package config

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/ike/auth"
)

// expiryNotice is how long before its end a certificate is warned of.
const expiryNotice = 30 * 24 * time.Hour

// credentials loads secrets, keys and certificates, and gives each connection what it proves and what its peer must
// prove. Whatever a connection names and does not find is an error; one that names nothing and for which no
// secret exists is left out: its traffic stays blocked.
func (k *checker) credentials() {
	k.files = map[string][]*x509.Certificate{}
	m := auth.Material{Secrets: k.secrets(), Authorities: k.authorities(), Keys: k.keys}
	for i := range k.File.Connections {
		c := &k.File.Connections[i]
		m.Certificates = append(m.Certificates, k.certificates("connections."+c.Name+".local.certs", c.Local.Certs)...)
	}
	m.Certificates = slices.CompactFunc(m.Certificates, (*x509.Certificate).Equal)
	store, err := auth.NewStore(m)
	if err != nil {
		k.errorAt("secrets", "%v", err)
		store = new(auth.Store)
	}
	k.Store = store
	for i := range k.File.Connections {
		c := &k.File.Connections[i]
		if !slices.ContainsFunc(c.Children, func(child Child) bool { return k.children[c.Name+"/"+child.Name].manual }) {
			k.proofs(c, "connections."+c.Name)
		}
	}
	for _, w := range store.Expiring(time.Now(), expiryNotice) {
		k.warnAt("connections", "%s", w.Text)
	}
}

// proofs fills in both sides of one connection.
func (k *checker) proofs(c *Connection, path string) {
	bare := c.Local.Auth == "" && c.Local.ID == "" && len(c.Local.Certs) == 0 && c.Remote.Auth == "" && c.Remote.ID == "" &&
		len(c.Remote.Certs) == 0 && len(c.Remote.CACerts) == 0
	if c.Local.Auth == "" {
		c.Local.Auth = "psk"
		if len(c.Local.Certs) > 0 {
			c.Local.Auth = "pubkey"
		}
	}
	if c.Remote.Auth == "" {
		c.Remote.Auth = c.Local.Auth
		if len(c.Remote.Certs)+len(c.Remote.CACerts) > 0 {
			c.Remote.Auth = "pubkey"
		}
	}
	local, okLocal := k.local(c, path+".local")
	remote, okRemote := k.remote(c, path+".remote", bare)
	if !okLocal || !okRemote {
		return
	}
	if local.Method == auth.PSK || remote.Method == auth.PSK {
		if err := k.shared(c, local, remote); err != nil {
			if !bare {
				k.errorAt(path, "%s: %v", path, err)
			}
			return
		}
	}
	k.negotiated[c.Name], k.locals[c.Name], k.remotes[c.Name] = true, local, remote
}

// local reads what we prove.
func (k *checker) local(c *Connection, path string) (auth.Local, bool) {
	method, schemes, err := auth.ParseMethod(c.Local.Auth)
	if err != nil {
		k.errorAt(path+".auth", "%s.auth: %v", path, err)
		return auth.Local{}, false
	}
	var id auth.Identity
	if c.Local.ID != "" {
		if id, err = auth.ParseIdentity(c.Local.ID); err != nil {
			k.errorAt(path+".id", "%s.id: %v", path, err)
			return auth.Local{}, false
		}
	}
	certs := k.certificates(path+".certs", c.Local.Certs)
	if len(c.Local.Certs) > 0 && len(certs) == 0 {
		return auth.Local{}, false // said already why
	}
	var key crypto.Signer
	if len(certs) > 0 {
		key, certs = k.Store.Key(certs[0]), k.Store.Complete(certs)
	}
	l, err := auth.NewLocal(id, method, schemes, certs, key)
	if err != nil {
		k.errorAt(path, "%s: %v", path, err)
		return auth.Local{}, false
	}
	if method == auth.PublicKey && c.SendCert == "never" {
		k.warnAt("connections."+c.Name+".send_cert", "connections.%s.send_cert: never: the peer must have our certificate already", c.Name)
	}
	return *l, true
}

// remote reads what the peer must prove. A bare connection names nothing of it.
func (k *checker) remote(c *Connection, path string, bare bool) (auth.Remote, bool) {
	method, schemes, err := auth.ParseMethod(c.Remote.Auth)
	if err != nil {
		k.errorAt(path+".auth", "%s.auth: %v", path, err)
		return auth.Remote{}, false
	}
	r := auth.Remote{Method: method, Schemes: schemes}
	if r.Revocation, err = auth.ParseRevocation(c.Remote.Revocation); err != nil {
		k.errorAt(path+".revocation", "%s.revocation: %v", path, err)
		return r, false
	}
	switch single := singles(c.RemoteAddrs); {
	case c.Remote.ID != "":
		if r.ID, err = auth.ParsePattern(c.Remote.ID); err != nil {
			k.errorAt(path+".id", "%s.id: %v", path, err)
			return r, false
		}
	case method == auth.PSK && len(single) == 1:
		r.ID = auth.ExactPattern(auth.AddressIdentity(single[0].First))
	case bare && len(k.File.Secrets) == 0:
		return r, false
	default:
		k.errorAt(path, "%s: id is missing: who is the peer? %%any takes everybody whose proof is right", path)
		return r, false
	}
	if method == auth.PSK {
		if len(c.Remote.Certs)+len(c.Remote.CACerts) > 0 {
			k.errorAt(path, "%s: certs and cacerts make no sense with auth: psk", path)
			return r, false
		}
		if r.ID.IsAny() && !c.reachable() {
			k.warnAt(path, "%s: whoever knows the preshared key may be any peer, from anywhere; a key and an id for each are better", path)
		}
		return r, true
	}
	r.CACerts, r.Certs = k.certificates(path+".cacerts", c.Remote.CACerts), k.certificates(path+".certs", c.Remote.Certs)
	if len(r.CACerts) < len(c.Remote.CACerts) || len(r.Certs) < len(c.Remote.Certs) {
		return r, false
	}
	if len(r.CACerts)+len(r.Certs) == 0 {
		if len(k.File.Authorities) == 0 {
			k.errorAt(path, "%s: no certificate can be believed: name certs, cacerts or authorities", path)
			return r, false
		}
		if r.ID.IsAny() {
			k.warnAt(path, "%s: id %%any without cacerts: everybody below any of the authorities may come", path)
		}
	}
	return r, true
}

// shared looks whether a preshared key exists for the two ends, as far as they are known.
func (k *checker) shared(c *Connection, local auth.Local, remote auth.Remote) error {
	id := local.ID
	if id.IsZero() {
		single := singles(c.LocalAddrs)
		if len(single) == 0 {
			return k.anySecret()
		}
		id = auth.AddressIdentity(single[0].First)
	}
	peer, exact := remote.ID.Exact()
	if !exact {
		return k.anySecret()
	}
	_, err := k.Store.PSK(id, peer)
	return err
}

func (k *checker) anySecret() error {
	if !slices.ContainsFunc(k.File.Secrets, func(s SecretItem) bool { return strings.HasPrefix(s.Name, "ike") }) {
		return errors.New("there is no preshared key: add one to secrets, under a name that begins with ike")
	}
	return nil
}

// secrets loads preshared keys, and private keys into k.keys.
func (k *checker) secrets() []auth.Secret {
	var out []auth.Secret
	users := map[[sha256.Size]byte]string{} // of a key, by its fingerprint
	for i := range k.File.Secrets {
		s := &k.File.Secrets[i]
		path := "secrets." + s.Name
		switch {
		case strings.HasPrefix(s.Name, "ike"):
			if s.File != "" {
				k.errorAt(path+".file", "%s.file: a private key's name begins with private; a preshared key stands in secret or secret_file", path)
				continue
			}
			if secret, ok := k.preshared(path, s); ok {
				print := sha256.Sum256(secret.Secret)
				if other, taken := users[print]; taken {
					k.warnAt(path, "%s: the same key as that of %s: who has one can pass for the other", path, other)
				} else {
					users[print] = secret.Name
				}
				out = append(out, secret)
			}
		case strings.HasPrefix(s.Name, "private"):
			k.privateKey(path, s)
		default:
			k.errorAt(path, "%s: the name of a preshared key begins with ike, that of a private key with private", path)
		}
	}
	return out
}

// preshared reads one preshared key and judges its strength.
func (k *checker) preshared(path string, s *SecretItem) (out auth.Secret, ok bool) {
	out.Name = s.Name
	for _, word := range s.ID {
		p, err := auth.ParsePattern(word)
		if err != nil {
			k.errorAt(path+".id", "%s.id: %v", path, err)
			return out, false
		}
		out.IDs = append(out.IDs, p)
	}
	at, text := path+".secret", s.Secret.Bytes()
	switch {
	case s.Secret.Len() > 0 && s.SecretFile != "":
		k.errorAt(path, "%s: both secret and secret_file are given; one is enough", path)
		return out, false
	case s.Secret.Len() > 0:
		k.private(k.file, k.mode, k.position(at))
	case s.SecretFile == "":
		k.errorAt(path, "%s: secret or secret_file is missing", path)
		return out, false
	default:
		at += "_file"
		if text, ok = k.secretFile(at, s.SecretFile); !ok {
			return out, false
		}
		defer clear(text)
	}
	secret, err := auth.ParseSecret(strings.TrimRight(string(text), "\r\n"))
	if err == nil {
		err = auth.CheckSecret(secret)
	}
	if err != nil {
		k.errorAt(at, "%s: %v", at, err)
		return out, false
	}
	out.Secret = secret
	return out, true
}

func (k *checker) privateKey(path string, s *SecretItem) {
	switch {
	case s.Secret.Len() > 0 || s.SecretFile != "" || len(s.ID) > 0:
		k.errorAt(path, "%s: a private key has file and nothing else; its certificate says whose it is", path)
		return
	case s.File == "":
		k.errorAt(path, "%s: file is missing: the private key, PEM", path)
		return
	}
	text, ok := k.secretFile(path+".file", s.File)
	if !ok {
		return
	}
	defer clear(text)
	key, err := auth.ParseKey(text)
	if err != nil {
		k.errorAt(path+".file", "%s.file: %s: %v", path, s.File, err)
		return
	}
	k.keys = append(k.keys, key)
}

func (k *checker) authorities() []auth.Authority {
	var out []auth.Authority
	for i := range k.File.Authorities {
		a := &k.File.Authorities[i]
		path := "authorities." + a.Name
		if a.CACert == "" {
			k.errorAt(path, "%s: cacert is missing: the authority's certificate", path)
			continue
		}
		certs := k.certificates(path+".cacert", []string{a.CACert})
		if len(certs) == 0 {
			continue
		}
		if len(certs) > 1 {
			k.errorAt(path+".cacert", "%s.cacert: %s holds %d certificates; an authority has one", path, a.CACert, len(certs))
			continue
		}
		out = append(out, auth.Authority{Name: a.Name, Certificate: certs[0], CRLs: a.CRLURIs, OCSP: a.OCSPURIs})
	}
	return out
}

// certificates reads all certificates of files. Files that many connections name are read once.
func (k *checker) certificates(at string, files []string) []*x509.Certificate {
	var out []*x509.Certificate
	for _, file := range files {
		certs, known := k.files[file]
		if !known {
			text, mode, err := k.read(k.beside(file))
			if err == nil && mode&0o002 != 0 {
				err = fmt.Errorf("everyone may write to %s (mode %04o): chmod 644 %s", file, mode, file)
			}
			if err == nil {
				if certs, err = auth.ParseCertificates(text); err != nil {
					err = fmt.Errorf("%s: %w", file, err)
				}
			}
			if err != nil {
				k.errorAt(at, "%s: %v", at, err)
			}
			k.files[file] = certs
		}
		out = append(out, certs...)
	}
	return out
}

// secretFile reads a file that must be its owner's alone.
func (k *checker) secretFile(at, file string) ([]byte, bool) {
	file = k.beside(file)
	text, mode, err := k.read(file)
	if err != nil {
		k.errorAt(at, "%s: %v", at, err)
		return nil, false
	}
	k.private(file, mode, k.position(at))
	return text, true
}

// beside returns a file's path; relative ones are relative to the configuration.
func (k *checker) beside(file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(filepath.Dir(k.file), file)
}
