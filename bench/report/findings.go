package report

import (
	"fmt"
	"slices"
	"strings"

	"sallyport/bench/result"
)

// findings are the sentences at the top. A figure that is not to be trusted makes none.
func (x *rows) findings() (all []string) {
	say := func(what string, list []*result.Row) {
		slices.SortStableFunc(list, func(a, b *result.Row) int { return bySize(sizeOf(a), sizeOf(b)) })
		for _, name := range peersOf(list) {
			var words []string
			for _, r := range list {
				ratio := r.RatioRow()
				if r.Peer == name && r.Ratio > 0 && x.withheld(&ratio) == "" {
					note := ""
					if ratio.Unstable() {
						note = " (unstable)"
					}
					words = append(words, fmt.Sprintf("%.2f× at %s%s", r.Ratio, sizeName(sizeOf(r)), note))
				}
			}
			if len(words) > 0 {
				all = append(all, what+": "+strings.Join(words, ", ")+" of what "+name+" carries.")
			}
		}
	}
	for _, d := range directions[:2] {
		var words []string
		for _, size := range []string{"64", "1420", "imix"} {
			if r := x.cell("pdr", d.name, size, "1", ""); r != nil && len(r.Samples) > 0 && x.withheld(r) == "" {
				words = append(words, fmt.Sprintf("%s Mpps or %s Gbit/s at %s", number(r.Value), number(r.Value*8*r.Parameters.Bytes/1e3), sizeName(size)))
			}
		}
		if len(words) > 0 {
			all = append(all, verbs[d.name]+" on the wire, one worker, veth, with 0.5 % loss: "+strings.Join(words, ", ")+".")
		}
		say(verbs[d.name]+" on the wire with 0.5 % loss", x.where(func(r *result.Row) bool {
			p := r.Parameters
			return strings.HasPrefix(r.Name, "wire/") && p.Measure == "pdr" && p.Direction == d.name && p.Tunnels <= 1
		}))
	}
	for _, d := range directions[:2] {
		say(verbs[d.name]+" on one core, memory to memory", x.where(func(r *result.Row) bool {
			return common(strings.Split(r.Name, "/")) && r.Unit == "Mpps" && strings.HasPrefix(r.Name, "gateway/"+d.name+"/")
		}))
	}
	for _, size := range []string{"64", "1420"} {
		if r := x.find("gateway/encrypt/"+size, "ns", ""); r != nil && x.withheld(r) == "" {
			all = append(all, fmt.Sprintf("A packet of %s bytes takes %s ns of a core to encrypt, everything but the network included.", size, number(r.Value)))
		}
	}
	if r := x.find("ike/handshake/psk-x25519", "1/s", ""); r != nil && x.withheld(r) == "" {
		all = append(all, fmt.Sprintf("%s handshakes a second with a preshared key and x25519, both ends on this machine.", number(r.Value)))
	}
	return all
}

var verbs = map[string]string{"encrypt": "Encrypting", "decrypt": "Decrypting"}

func (x *rows) where(is func(r *result.Row) bool) (list []*result.Row) {
	for i := range x.all {
		if is(&x.all[i]) {
			list = append(list, &x.all[i])
		}
	}
	return list
}

func peersOf(list []*result.Row) (names []string) {
	for _, r := range list {
		if r.Peer != "" && !slices.Contains(names, r.Peer) {
			names = append(names, r.Peer)
		}
	}
	return names
}

// sizeOf is the size that a row is of: by its parameters, else by the last word of its name.
func sizeOf(r *result.Row) string {
	if r.Parameters.Size != "" {
		return r.Parameters.Size
	}
	return r.Name[strings.LastIndexByte(r.Name, '/')+1:]
}
