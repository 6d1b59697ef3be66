package message

// VendorID names an implementation or one of its extensions. It never changes what we do.
type VendorID struct{ Data []byte }

func (p *VendorID) Type() PayloadType          { return TypeVendorID }
func (p *VendorID) AppendBody(b []byte) []byte { return append(b, p.Data...) }
