package suite

// The proposals of a connection that names none. The hybrid stands first; the classical ones are for peers that do not
// know additional key exchanges, to whom a proposal with a transform type of RFC 9370 is void (RFC 7296, 3.3.6).
var (
	defaultIKE = must(ParseIKE,
		"aes256gcm16-aes128gcm16-chacha20poly1305-prfsha384-prfsha256-prfsha512-x25519-ecp256-ecp384-ke1_mlkem768-ke1_mlkem1024",
		"aes256gcm16-aes128gcm16-chacha20poly1305-prfsha384-prfsha256-prfsha512-x25519-ecp256-ecp384-ecp521-modp3072-modp4096-modp2048",
		"aes256-aes128-sha256-sha384-sha512-prfsha384-prfsha256-prfsha512-x25519-ecp256-ecp384-ecp521-modp3072-modp4096-modp2048",
	)
	defaultESP = must(ParseESP,
		"aes256gcm16-aes128gcm16-chacha20poly1305-x25519-ecp256-ecp384-modp3072-modp2048-none-esn-noesn",
		"aes256-aes128-sha512-sha384-sha256-x25519-ecp256-ecp384-modp3072-modp2048-none-esn-noesn",
	)
)

// DefaultIKE returns the proposals for IKE SAs where none are configured: x25519 with ML-KEM-768 first, classical key
// exchanges for peers that have nothing else.
func DefaultIKE() []Proposal { return defaultIKE }

// DefaultESP returns the proposals for child SAs where none are configured: with a key exchange of their own where the
// peer does that, with extended sequence numbers where it has them. HMAC-SHA2-512 stands before -256, which some peers truncate
// wrongly (RFC 8221, 6). Implicit IVs are left to the configuration, although RFC 8750, 5 would have them offered: they save eight
// bytes a packet, and tie the nonce to the sequence number.
func DefaultESP() []Proposal { return defaultESP }

// DefaultAH returns what children of AH have without configuration.
func DefaultAH() []Proposal { return defaultAH }

var defaultAH = func() []Proposal {
	p, err := ParseAH("sha512-sha384-sha256")
	if err != nil {
		panic(err)
	}
	return []Proposal{p}
}()

// ParseList reads the proposals of a connection in their order: each a string of words, or "default" for the default
// ones. An empty list is the default.
func ParseList(list []string, parse func(string) (Proposal, error), defaults []Proposal) ([]Proposal, error) {
	if len(list) == 0 {
		return defaults, nil
	}
	var all []Proposal
	for _, s := range list {
		if s == "default" {
			all = append(all, defaults...)
			continue
		}
		p, err := parse(s)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func must(parse func(string) (Proposal, error), list ...string) []Proposal {
	all := make([]Proposal, len(list))
	for i, s := range list {
		p, err := parse(s)
		if err != nil {
			panic(err)
		}
		all[i] = p
	}
	return all
}
