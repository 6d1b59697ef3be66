package offheap

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestValuesAreZeroAndApart writes every value of several sizes of memory and finds it again.
func TestValuesAreZeroAndApart(t *testing.T) {
	for _, n := range []int{1, 1000, hugePage / 8, hugePage/8 + 1} {
		values, m, err := New[uint64](n)
		if err != nil {
			t.Fatal(err)
		}
		if len(values) != n {
			t.Fatalf("%d values, want %d", len(values), n)
		}
		for i := range values {
			if values[i] != 0 {
				t.Fatalf("value %d of %d is not zero", i, n)
			}
			values[i] = uint64(i) + 1
		}
		for i := range values {
			if values[i] != uint64(i)+1 {
				t.Fatalf("value %d of %d was changed", i, n)
			}
		}
		m.Release()
	}
	Mapping(nil).Release()
	if _, _, err := New[uint64](1 << 58); err == nil {
		t.Error("more memory than there are addresses")
	}
}

// TestNothingOfItLeavesTheProcess reads the kernel's list of mappings: keys are in no core dump (dd), no forked child (wf) and, with
// the privilege to lock memory, no swap (lo).
func TestNothingOfItLeavesTheProcess(t *testing.T) {
	for _, n := range []int{1, hugePage} {
		values, m, err := New[uint64](n)
		if err != nil {
			t.Fatal(err)
		}
		values[0] = 1
		flags := flagsAt(t, m)
		for _, flag := range []string{"dd", "wf"} {
			if !slices.Contains(flags, flag) {
				t.Errorf("%d values: %s is not in %v", n, flag, flags)
			}
		}
		if locked := slices.Contains(flags, "lo"); !locked && os.Geteuid() == 0 {
			t.Errorf("%d values are not locked: %v", n, flags)
		}
		if err := unix.Madvise(m, unix.MADV_DODUMP); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(flagsAt(t, m), "dd") {
			t.Error("what is taken into a core dump looks the same: the test shows nothing")
		}
		m.Release()
	}
}

// flagsAt returns the flags of the kernel's mapping that m begins or lies in.
func flagsAt(t *testing.T, m Mapping) []string {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	at, inside := address(m), false
	for s := bufio.NewScanner(f); s.Scan(); {
		var first, end uintptr
		if n, _ := fmt.Sscanf(s.Text(), "%x-%x ", &first, &end); n == 2 {
			inside = first <= at && at < end
		}
		if flags, ok := strings.CutPrefix(s.Text(), "VmFlags:"); ok && inside {
			return strings.Fields(flags)
		}
	}
	t.Fatal("the mapping is in no list")
	return nil
}
