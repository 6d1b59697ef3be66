package ikesa

import (
	"reflect"
	"runtime"
	"testing"
	"time"

	"sallyport/ike/message"
)

// TestIdleSAIsSmall holds an established SA with one child, at rest, to a bound on
// its share of the heap, keys and ciphers included, and checks that nothing of the
// handshake is left.
func TestIdleSAIsSmall(t *testing.T) {
	const pairs = 200
	w := newWorld(t, 1)
	a, b := w.hosts["a"], w.hosts["b"]
	var kept []*SA
	for range pairs {
		a.initiate(InitiatorOptions{})
		w.settle()
		a.command(Liveness{})
		w.settle()
		kept = append(kept, a.last, b.last)
		if a.last.state != StateEstablished || b.last.state != StateEstablished {
			t.Fatal(w.log.String())
		}
		w.log.Reset()
	}
	for _, s := range kept {
		if s.handshake != nil || s.request != nil || s.queue != nil || s.question != nil || s.asked != nil || s.answered != nil || s.followups != nil {
			t.Fatalf("something of the handshake is left: %+v", s.window)
		}
		if len(s.children) != 1 || s.children[0].keyOut != nil {
			t.Fatal("a key is left")
		}
	}
	for _, h := range w.hosts {
		h.last, h.sas, h.in, h.out, h.order = nil, map[message.SPI]*SA{}, map[uint32]*ChildSA{}, map[uint32]*ChildSA{}, nil
	}
	with := heap()
	runtime.KeepAlive(kept)
	states := uint64(len(kept))
	clear(kept)
	each := (with - heap()) / states
	t.Logf("%d bytes an SA with one child, all in; the struct alone is %d, a child %d", each, reflect.TypeFor[SA]().Size(), reflect.TypeFor[child]().Size())
	if each > 4096 {
		t.Errorf("an idle SA takes %d bytes", each)
	}
	runtime.KeepAlive(w)
}

func heap() uint64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
