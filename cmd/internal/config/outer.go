package config

import "sallyport/dataplane/sad"

// outer says what outer packets of a child look like.
func (c *Child) outer() sad.Outer {
	o := sad.Outer{
		CopyDSCP: c.CopyDSCP.out(), AdoptDSCP: c.CopyDSCP.in(), DSCP: uint8(c.DSCP), ECN: c.CopyECN, CopyDF: c.CopyDF, SetDF: c.SetDF,
		TTL: uint8(c.TTL), CopyTTL: c.TTL == 0, MTU: uint16(c.MTU), Fragment: c.Fragment == "after", TFC: uint16(c.TFCPadding),
	}
	if c.TTL == defaultTTL {
		o.TTL = 0
	}
	return o
}

// outer checks a child's choices about outer packets.
func (k *checker) outer(child *Child, path string) {
	k.oneOf(path+".fragment", child.Fragment, "before", "after")
	k.between(path+".dscp", child.DSCP, 0, 63)
	if child.DSCP != 0 && child.CopyDSCP.out() {
		k.errorAt(path+".dscp", "%s: dscp fixes what copy_dscp: %s copies; copy_dscp is no or in with it", path, child.CopyDSCP)
	}
	if p := child.TFCPadding; p != paddingMTU && int(p) > mtuMax {
		k.errorAt(path+".tfc_padding", "%s.tfc_padding: %d bytes; at most %d, or mtu", path, p, mtuMax)
	}
	switch {
	case child.TFCPadding == 0:
	case child.ah():
		k.errorAt(path+".tfc_padding", "%s: tfc_padding with ah_proposals, which hide nothing", path)
	case child.transport():
		k.errorAt(path+".tfc_padding", "%s: tfc_padding needs mode: tunnel: not every protocol tells its length (RFC 4303, 2.7)", path)
	}
	if child.transport() && (child.DSCP != 0 || child.TTL != defaultTTL || child.SetDF) {
		k.errorAt(path+".mode", "%s: dscp, ttl and set_df need mode: tunnel: in transport mode a packet keeps its header", path)
	}
}
