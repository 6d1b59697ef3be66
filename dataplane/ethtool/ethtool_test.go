package ethtool_test

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/ethtool"
	"sallyport/tools/testbed"
)

func TestVethTellsItsQueuesAndOffloads(t *testing.T) {
	testbed.Need(t, testbed.SysAdmin, testbed.NetAdmin)
	bed := testbed.ForTest(t, "ethtool")
	a, err := bed.Namespace("a")
	testbed.Must(t, err)
	z, err := bed.Namespace("z")
	testbed.Must(t, err)
	testbed.Must(t, bed.Veth(a, "three", z, "far", 3))
	testbed.Must(t, a.Do(func() error {
		n, err := ethtool.Queues("three")
		if n != 3 {
			t.Errorf("%d queues, %v", n, err)
		}
		on, err := ethtool.Features("three")
		if err != nil {
			return err
		}
		// The testbed switches these off, and highdma cannot be switched.
		if on["tx-checksum-ip-generic"] || on["rx-vlan-hw-parse"] || !on["highdma"] {
			t.Errorf("features %v", on)
		}
		if _, err := ethtool.Features("nothing"); !errors.Is(err, unix.ENODEV) {
			t.Errorf("no such interface: %v", err)
		}
		return nil
	}))
}

func TestNamesThatAreTooLongAreRefused(t *testing.T) {
	if _, err := ethtool.Queues(strings.Repeat("x", unix.IFNAMSIZ)); err == nil {
		t.Error("accepted")
	}
}

func TestLoopbackHasOneQueue(t *testing.T) {
	if n, err := ethtool.Queues("lo"); n != 1 || err != nil {
		t.Errorf("%d queues, %v", n, err)
	}
}
