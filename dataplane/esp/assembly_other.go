//go:build !amd64

package esp

// prepare prepares the packets of r for encryption, see prepareGeneric.
func (r *plainOutbound) prepare() (packets int) { return r.prepareGeneric() }

// accept accepts packets of r, see acceptGeneric.
func (r *plainInbound) accept() (packets int) { return r.acceptGeneric() }

// take takes packets of r, see takeGeneric.
func (r *plainTaken) take() (packets int) { return r.takeGeneric() }
