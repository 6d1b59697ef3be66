package config

import (
	"path/filepath"
	"strings"

	"sallyport/ike/auth"
)

// credentials gives each connection what it proves and what its peer has to prove.
func (k *checker) credentials() {
	k.Store = new(auth.Store)
	for i := range k.File.Secrets {
		s := &k.File.Secrets[i]
		path := "secrets." + s.Name
		psk, ok := k.preshared(path, s)
		if ok {
			k.Store.PSK = psk.Bytes()
		}
	}
	for i := range k.File.Connections {
		c := &k.File.Connections[i]
		static := false
		for j := range c.Children {
			t := k.children[c.Name+"/"+c.Children[j].Name]
			static = static || t != nil && t.manual
		}
		if !static && k.Store.PSK != nil {
			k.negotiated[c.Name] = true
		}
	}
}

// preshared returns the key itself from the file or from its own.
func (k *checker) preshared(path string, s *SecretItem) (Passphrase, bool) {
	switch {
	case s.Secret.Len() > 0 && s.SecretFile != "":
		k.errorAt(path, "%s: both secret and secret_file are given; one is enough", path)
		return Passphrase{}, false
	case s.Secret.Len() > 0:
		k.private(k.file, k.mode, k.position(path+".secret"))
		return s.Secret, true
	case s.SecretFile == "":
		k.errorAt(path, "%s: secret or secret_file is missing", path)
		return Passphrase{}, false
	}
	at := path + ".secret_file"
	text, ok := k.file0600(at, s.SecretFile)
	if !ok {
		return Passphrase{}, false
	}
	defer clear(text)
	var p Passphrase
	if err := p.parse(strings.TrimRight(string(text), "\r\n")); err != nil {
		k.errorAt(at, "%s: %s: %v", at, s.SecretFile, err)
		return Passphrase{}, false
	}
	return p, true
}

// file0600 reads a file that must be its owner's alone.
func (k *checker) file0600(at, file string) ([]byte, bool) {
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
