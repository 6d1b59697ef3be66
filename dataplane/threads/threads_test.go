package threads

import (
	"errors"
	"runtime"
	"slices"
	"testing"
)

// TestPinStaysWithItsThread pins one thread, which then ends, and finds the others as they were.
func TestPinStaysWithItsThread(t *testing.T) {
	before, err := Allowed()
	if err != nil {
		t.Fatal(err)
	}
	last := before[len(before)-1]
	got := make(chan []int)
	go func() {
		runtime.LockOSThread() // ends with the goroutine
		if err := Pin(last); err != nil {
			t.Error(err)
		}
		cpus, _ := Allowed()
		got <- cpus
	}()
	if cpus := <-got; !slices.Equal(cpus, []int{last}) {
		t.Errorf("pinned to %d, allowed are %v", last, cpus)
	}
	if after, _ := Allowed(); !slices.Equal(after, before) {
		t.Errorf("allowed were %v, are %v", before, after)
	}
}

// TestAvoidLeavesSomething asks to avoid every CPU, which must change nothing.
func TestAvoidLeavesSomething(t *testing.T) {
	before, err := Allowed()
	if err != nil {
		t.Fatal(err)
	}
	if err := Avoid(before); err != nil {
		t.Fatal(err)
	}
	if after, _ := Allowed(); !slices.Equal(after, before) {
		t.Errorf("allowed were %v, are %v", before, after)
	}
}

// TestAllowUndoesAvoid keeps all threads off one CPU, and has them back on it.
func TestAllowUndoesAvoid(t *testing.T) {
	before, err := Allowed()
	if err != nil {
		t.Fatal(err)
	}
	if len(before) < 2 {
		t.Skip("this machine has one CPU")
	}
	if err := Avoid(before[:1]); err != nil {
		t.Fatal(err)
	}
	during, err := Allowed()
	if err := errors.Join(err, Allow(before)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(during, before[1:]) {
		t.Errorf("allowed were %v while %v was avoided", during, before[:1])
	}
	if after, _ := Allowed(); !slices.Equal(after, before) {
		t.Errorf("allowed were %v, are %v", before, after)
	}
}

func TestPinNamesAnImpossibleCPU(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := Pin(1023); err == nil {
		t.Skip("this machine has 1,024 CPUs")
	}
}
