package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

type fake struct {
	reloading, proceed chan struct{}
}

func (f *fake) Status() Status    { return Status{Instance: "test", Associations: 3} }
func (f *fake) SAs(q SAQuery) SAs { return SAs{Total: q.Limit, SAs: []SA{{Name: q.Name}}} }
func (f *fake) Connections() Connections {
	return Connections{Connections: []Connection{{Name: "site-b", Children: []ConnectionChild{{Name: "net"}}}}}
}
func (f *fake) Up(ctx context.Context, name string) error {
	if name == "slow" {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}
func (f *fake) Down(context.Context, string) error  { return errors.New("no such connection") }
func (f *fake) Rekey(context.Context, string) error { return nil }

func (f *fake) Trace(ctx context.Context, w Watch, each func(*Traced) error) error {
	for i := range w.Packets {
		if err := each(&Traced{Worker: i}); err != nil {
			return err
		}
	}
	if w.Name == "endless" {
		<-ctx.Done()
	}
	if w.Packets == 0 {
		return errors.New("a trace of 0 packets")
	}
	return nil
}

func (f *fake) Capture(ctx context.Context, w Watch, ready func() error, out io.Writer) error {
	if w.Name == "none" {
		return errors.New("no such thing")
	}
	if err := ready(); err != nil {
		return err
	}
	out.Write([]byte("first"))
	if w.Packets == 0 {
		<-ctx.Done()
	}
	out.Write([]byte(" last"))
	return nil
}

func (f *fake) Recorder(FlightQuery) (Flights, error) { return Flights{}, nil }

func (f *fake) Policies() Policies { return Policies{Unmatched: "forward"} }
func (f *fake) Counters() Counters { return Counters{Totals: Totals{Received: 7}} }
func (f *fake) Reload() (Reload, error) {
	if f.reloading != nil {
		close(f.reloading)
		<-f.proceed
	}
	return Reload{}, errors.New("sallyport.yaml:1:1: unknown key")
}

func listen(t *testing.T, f *fake) (string, *Server) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "s.sock")
	s, err := Listen(path, "", f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return path, s
}

func TestVerbsAnswer(t *testing.T) {
	path, _ := listen(t, &fake{})
	c, ctx := NewClient(path), context.Background()
	var status Status
	if _, err := c.Do(ctx, VerbStatus, nil, &status); err != nil || status.Associations != 3 {
		t.Errorf("%+v %v", status, err)
	}
	var sas SAs
	if _, err := c.Do(ctx, VerbSAs, SAQuery{Name: "a/b"}, &sas); err != nil || sas.Total != 1000 || sas.SAs[0].Name != "a/b" {
		t.Errorf("%+v %v", sas, err)
	}
	if _, err := c.Do(ctx, VerbReload, nil, nil); err == nil || err.Error() != "sallyport.yaml:1:1: unknown key" {
		t.Errorf("reload: %v", err)
	}
	if _, err := c.Do(ctx, "explode", nil, nil); err == nil || !strings.Contains(err.Error(), `unknown verb "explode"`) {
		t.Errorf("unknown verb: %v", err)
	}
}

func TestSocketIsPrivateAndReplacedWhenStale(t *testing.T) {
	path, s := listen(t, &fake{})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	if _, err := Listen(path, "", &fake{}); err == nil || !strings.Contains(err.Error(), "another daemon answers") {
		t.Errorf("second daemon: %v", err)
	}
	// A killed daemon leaves its socket.
	s.listener.SetUnlinkOnClose(false)
	s.Close()
	again, err := Listen(path, "", &fake{})
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	again.Close()
	if _, err := NewClient(path).Do(context.Background(), VerbStatus, nil, nil); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "is it running?") {
		t.Errorf("no daemon: %v", err)
	}
}

func TestGarbageEndsInAnError(t *testing.T) {
	path, _ := listen(t, &fake{})
	for _, c := range []struct{ send, want string }{
		{"not json\n", "not a JSON object"},
		{"[]\n", "not a JSON object"},
		{strings.Repeat("x", requestMax+10), "longer than"},
		{`{"verb":"sas","args":[1]}` + "\n", "args are name and limit"},
		{`{"verb":"status"}` + "\n" + `{"verb":"policies"}` + "\n", `"test"`},
	} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte(c.send))
		line, _ := bufio.NewReader(conn).ReadString('\n')
		if !strings.Contains(line, c.want) {
			t.Errorf("%.30q: got %q", c.send, line)
		}
		conn.Close()
	}
}

func TestReloadsDoNotOverlapAndReadersGoOn(t *testing.T) {
	f := &fake{reloading: make(chan struct{}), proceed: make(chan struct{})}
	path, _ := listen(t, f)
	c, ctx := NewClient(path), context.Background()
	first := make(chan error)
	go func() { _, err := c.Do(ctx, VerbReload, nil, nil); first <- err }()
	<-f.reloading
	if _, err := c.Do(ctx, VerbReload, nil, nil); err == nil || !strings.Contains(err.Error(), "running already") {
		t.Errorf("second reload: %v", err)
	}
	if _, err := c.Do(ctx, VerbStatus, nil, nil); err != nil {
		t.Errorf("status during a reload: %v", err)
	}
	close(f.proceed)
	<-first
}

func TestIdleConnectionsAreBounded(t *testing.T) {
	path, _ := listen(t, &fake{})
	for range connectionsMax {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if _, err := NewClient(path).Do(context.Background(), VerbStatus, nil, nil); err == nil || !strings.Contains(err.Error(), "too many") {
		// The refusal may overtake the request, which then meets a closed socket.
		if err == nil {
			t.Error("one connection too many was served")
		}
	}
}

func TestCredentials(t *testing.T) {
	groups := func(uint32) []uint32 { return []uint32{50, 60} }
	for _, c := range []struct {
		uid, gid uint32
		allowed  []uint32
		want     bool
	}{{0, 0, nil, true}, {7, 7, nil, true}, {1000, 1000, nil, false}, {1000, 60, []uint32{60}, true}, {1000, 1000, []uint32{60}, true}, {1000, 1000, []uint32{61}, false}} {
		if got := admitted(c.uid, c.gid, 7, c.allowed, groups); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestVerbsThatActReturnOnceDoneOrInTime(t *testing.T) {
	path, _ := listen(t, &fake{})
	c := NewClient(path)
	var d Done
	if _, err := c.Do(t.Context(), VerbUp, Target{Name: "site-b"}, &d); err != nil {
		t.Error(err)
	}
	if _, err := c.Do(t.Context(), VerbDown, Target{Name: "site-b"}, nil); err == nil || !strings.Contains(err.Error(), "down site-b: no such connection") {
		t.Errorf("a failure: %v", err)
	}
	if _, err := c.Do(t.Context(), VerbUp, Target{Name: "slow", TimeoutSeconds: 0.05}, nil); err == nil || !strings.Contains(err.Error(), "not done after 50ms") {
		t.Errorf("out of time: %v", err)
	}
	if _, err := c.Do(t.Context(), VerbRekey, Target{}, nil); err == nil || !strings.Contains(err.Error(), "args are name") {
		t.Errorf("without a name: %v", err)
	}
	var conns Connections
	if _, err := c.Do(t.Context(), VerbConnections, nil, &conns); err != nil || len(conns.Connections) != 1 || conns.Connections[0].Children[0].Name != "net" {
		t.Errorf("%+v %v", conns, err)
	}
}

func TestCloseEndsWhatActs(t *testing.T) {
	path, s := listen(t, &fake{})
	failed := make(chan error)
	go func() {
		_, err := NewClient(path).Do(t.Context(), VerbUp, Target{Name: "slow"}, nil)
		failed <- err
	}()
	time.Sleep(50 * time.Millisecond)
	s.Close()
	select {
	case err := <-failed:
		if err == nil {
			t.Error("done, it says")
		}
	case <-time.After(5 * time.Second):
		t.Error("still waiting")
	}
}

func TestTraceAnswersUntilItIsDone(t *testing.T) {
	path, _ := listen(t, &fake{})
	c := NewClient(path)
	var workers []int
	each := func(raw json.RawMessage) error {
		var one Traced
		err := json.Unmarshal(raw, &one)
		workers = append(workers, one.Worker)
		return err
	}
	last, err := c.Follow(context.Background(), VerbTrace, Watch{Packets: 3}, each)
	if err != nil || string(last) != `{"packets":3}` || !slices.Equal(workers, []int{0, 1, 2}) {
		t.Errorf("%s %v %v", last, err, workers)
	}
	if _, err := c.Follow(context.Background(), VerbTrace, Watch{}, each); err == nil || !strings.Contains(err.Error(), "0 packets") {
		t.Errorf("error %v", err)
	}
	// One that goes on ends with the tool.
	ctx, cancel := context.WithCancel(context.Background())
	seen := 0
	last, err = c.Follow(ctx, VerbTrace, Watch{Packets: 2, Name: "endless"}, func(json.RawMessage) error {
		if seen++; seen == 2 {
			cancel()
		}
		return nil
	})
	if err != nil || last != nil || seen != 2 {
		t.Errorf("%s %v %d", last, err, seen)
	}
}

func TestCaptureIsCopiedToTheEnd(t *testing.T) {
	path, _ := listen(t, &fake{})
	c := NewClient(path)
	var out strings.Builder
	if n, err := c.Copy(context.Background(), VerbCapture, Watch{Packets: 1}, &out); err != nil || n != 10 || out.String() != "first last" {
		t.Errorf("%d %v %q", n, err, out.String())
	}
	// Ended by the tool, the daemon's last bytes still come.
	ctx, cancel := context.WithCancel(context.Background())
	got := firstWrite{cancel: cancel}
	if _, err := c.Copy(ctx, VerbCapture, Watch{}, &got); err != nil || got.String() != "first last" {
		t.Errorf("%v %q", err, got.String())
	}
	if _, err := c.Copy(context.Background(), VerbCapture, Watch{Name: "none"}, &out); err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("error %v", err)
	}
}

// firstWrite cancels at the first write.
type firstWrite struct {
	strings.Builder
	cancel func()
}

func (w *firstWrite) Write(b []byte) (int, error) {
	w.cancel()
	return w.Builder.Write(b)
}
