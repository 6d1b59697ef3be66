package sad

import (
	"testing"
	"unsafe"

	"sallyport/dataplane/transform"
)

// TestSizes holds the layout: whole cache lines, the hot fields in the first.
func TestSizes(t *testing.T) {
	var in Inbound
	var out Outbound
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"Inbound", unsafe.Sizeof(in), 192},
		{"Outbound", unsafe.Sizeof(out), 256},
		{"Record", unsafe.Sizeof(Record{}), 64},
		{"Flight", unsafe.Sizeof(Flight{}), 9 * 64},
		{"Key", unsafe.Sizeof(transform.Key{}), 9 * 64},
		{"end of the hot fields of Inbound", unsafe.Offsetof(in.Bytes), 64},
		{"end of the IPv4 addresses of Inbound", unsafe.Offsetof(in.Addresses) + 2*4, 124},
		{"end of the hot fields of Outbound", unsafe.Offsetof(out.path), 64},
		{"end of the IPv4 header of Outbound", unsafe.Offsetof(out.Header) + ipv4HeaderLen, 128},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, c.got, c.want)
		}
	}
}
