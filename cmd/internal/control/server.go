package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Provider answers the verbs. Its methods are called from many goroutines; those
// that read take counters and snapshots and never wait for a packet worker.
type Provider interface {
	Status() Status
	SAs(SAQuery) SAs
	Policies() Policies
	Recorder(FlightQuery) (Flights, error)
	Counters() Counters
	Connections() Connections
	Reload() (Reload, error)
	// Up, Down and Rekey return once it is done, failed, or the context ends.
	Up(ctx context.Context, name string) error
	Down(ctx context.Context, name string) error
	Rekey(ctx context.Context, name string) error
	// Trace calls f with each packet until it is done or the context ends.
	Trace(ctx context.Context, w Watch, f func(*Traced) error) error
	// Capture writes pcapng until it is done or the context ends; ready is called before the first byte.
	Capture(ctx context.Context, w Watch, ready func() error, out io.Writer) error
}

// Limits of the server.
const (
	requestMax     = 64 << 10 // bytes
	connectionsMax = 32
	idleMax        = 5 * time.Minute
	writeMax       = 10 * time.Second
)

type request struct {
	Verb string          `json:"verb"`
	Args json.RawMessage `json:"args,omitempty"`
}

type response struct {
	Schema int             `json:"schema"`
	Error  string          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	More   bool            `json:"more,omitempty"` // this is not the last answer
}

// Server serves a Provider on a unix socket.
type Server struct {
	provider Provider
	listener *net.UnixListener
	path     string
	gids     []uint32
	slots    chan struct{}
	reload   sync.Mutex
	wait     sync.WaitGroup
	context  context.Context // ends with Close
	cancel   context.CancelFunc

	mu    sync.Mutex
	conns map[net.Conn]bool
	done  bool
}

// Listen makes the socket at path and starts to serve. group, if not empty, is
// the name or number of a group whose members may connect beside root and the
// daemon's own user. A socket that a dead daemon left is replaced; that of a
// living one is an error.
func Listen(path, group string, p Provider) (*Server, error) {
	s := &Server{provider: p, path: path, slots: make(chan struct{}, connectionsMax), conns: map[net.Conn]bool{}}
	s.context, s.cancel = context.WithCancel(context.Background())
	gid := -1
	if group != "" {
		n, err := strconv.Atoi(group)
		if err != nil {
			g, err := user.LookupGroup(group)
			if err != nil {
				return nil, fmt.Errorf("control socket: %w", err)
			}
			n, _ = strconv.Atoi(g.Gid)
		}
		gid = n
		s.gids = append(s.gids, uint32(n))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("control socket: %s exists and is not a socket", path)
		}
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, fmt.Errorf("control socket: another daemon answers on %s; use another instance name", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("control socket: removing the one a dead daemon left: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// Between bind and chmod the mode is the umask's; peers that connect in between still meet the credential check.
	err = os.Chmod(path, 0o660)
	if err == nil && gid >= 0 {
		err = os.Chown(path, -1, gid)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s.listener = l
	s.wait.Go(s.accept)
	return s, nil
}

// Close stops serving, ends every connection and removes the socket.
func (s *Server) Close() error {
	s.cancel()
	s.mu.Lock()
	s.done = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	err := s.listener.Close()
	s.wait.Wait()
	return err
}

func (s *Server) accept() {
	for {
		c, err := s.listener.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(50 * time.Millisecond) // out of descriptors: let some go
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			reply(c, nil, errors.New("too many connections to the control socket"), false)
			c.Close()
			continue
		}
		s.mu.Lock()
		if s.done {
			s.mu.Unlock()
			c.Close()
			return
		}
		s.conns[c] = true
		s.mu.Unlock()
		s.wait.Go(func() {
			s.serve(c)
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
			<-s.slots
		})
	}
}

func (s *Server) serve(c *net.UnixConn) {
	user, err := s.admit(c)
	if err != nil {
		reply(c, nil, err, false)
		return
	}
	in := bufio.NewScanner(c)
	in.Buffer(make([]byte, 4096), requestMax)
	for {
		c.SetReadDeadline(time.Now().Add(idleMax))
		if !in.Scan() {
			if errors.Is(in.Err(), bufio.ErrTooLong) {
				reply(c, nil, fmt.Errorf("the request is longer than %d bytes", requestMax), false)
			}
			return
		}
		var q request
		if err := json.Unmarshal(in.Bytes(), &q); err == nil && (q.Verb == VerbTrace || q.Verb == VerbCapture) {
			s.watch(c, user, &q)
			return
		}
		result, err := s.answer(in.Bytes())
		if reply(c, result, err, false) != nil {
			return
		}
	}
}

// admit checks the peer's credentials, root, our own user, or a member of the group, and returns its user.
func (s *Server) admit(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	if admitted(cred.Uid, cred.Gid, uint32(os.Geteuid()), s.gids, supplementary) {
		return cred.Uid, nil
	}
	return 0, fmt.Errorf("user %d may not use this control socket; see control.group in the configuration", cred.Uid)
}

func admitted(uid, gid, own uint32, allowed []uint32, groups func(uid uint32) []uint32) bool {
	if uid == 0 || uid == own || slices.Contains(allowed, gid) {
		return true
	}
	return len(allowed) > 0 && slices.ContainsFunc(groups(uid), func(g uint32) bool { return slices.Contains(allowed, g) })
}

func supplementary(uid uint32) []uint32 {
	u, err := user.LookupId(strconv.Itoa(int(uid)))
	if err != nil {
		return nil
	}
	ids, _ := u.GroupIds()
	var out []uint32
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			out = append(out, uint32(n))
		}
	}
	return out
}

func (s *Server) answer(line []byte) (any, error) {
	var q request
	if err := json.Unmarshal(line, &q); err != nil {
		return nil, errors.New("the request is not a JSON object with verb and args")
	}
	switch q.Verb {
	case VerbStatus:
		return s.provider.Status(), nil
	case VerbSAs:
		var a SAQuery
		if len(q.Args) > 0 {
			if err := json.Unmarshal(q.Args, &a); err != nil {
				return nil, errors.New("sas: args are name and limit")
			}
		}
		if a.Limit <= 0 {
			a.Limit = 1000
		}
		return s.provider.SAs(a), nil
	case VerbRecorder:
		var a FlightQuery
		if err := json.Unmarshal(q.Args, &a); err != nil || a.Name == "" {
			return nil, errors.New("recorder: the argument is name")
		}
		return s.provider.Recorder(a)
	case VerbPolicies:
		return s.provider.Policies(), nil
	case VerbCounters:
		return s.provider.Counters(), nil
	case VerbReload:
		if !s.reload.TryLock() {
			return nil, errors.New("a reload is running already")
		}
		defer s.reload.Unlock()
		return s.provider.Reload()
	case VerbConnections:
		return s.provider.Connections(), nil
	case VerbUp:
		return s.act(q, s.provider.Up)
	case VerbDown:
		return s.act(q, s.provider.Down)
	case VerbRekey:
		return s.act(q, s.provider.Rekey)
	}
	return nil, fmt.Errorf("unknown verb %q; this daemon knows status, sas, conns, policies, counters, up, down, rekey, reload, trace and capture", q.Verb[:min(len(q.Verb), 40)])
}

// Bounds of how long up, down and rekey may take.
const (
	actStandard = 30 * time.Second
	actMax      = 10 * time.Minute
)

// act carries out a verb that takes its time. It ends with the server.
func (s *Server) act(q request, do func(context.Context, string) error) (any, error) {
	var t Target
	if err := json.Unmarshal(q.Args, &t); err != nil || t.Name == "" {
		return nil, fmt.Errorf("%s: args are name, CONNECTION or CONNECTION/CHILD, and timeout_seconds", q.Verb)
	}
	limit := actStandard
	if t.TimeoutSeconds > 0 {
		limit = min(actMax, time.Duration(t.TimeoutSeconds*float64(time.Second)))
	}
	ctx, cancel := context.WithTimeout(s.context, limit)
	defer cancel()
	began := time.Now()
	if err := do(ctx, t.Name); errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("%s %s: not done after %v; it goes on", q.Verb, t.Name, limit)
	} else if err != nil {
		return nil, fmt.Errorf("%s %s: %w", q.Verb, t.Name, err)
	}
	return Done{Seconds: time.Since(began).Seconds()}, nil
}

// watch answers trace and capture, the last request of a connection: whatever else comes on it, its end too, ends them.
func (s *Server) watch(c *net.UnixConn, uid uint32, q *request) {
	if q.Verb == VerbCapture && uid != 0 && uid != uint32(os.Geteuid()) {
		reply(c, nil, errors.New("capture shows decrypted packets: it is root's"), false)
		return
	}
	ctx, cancel := context.WithCancel(s.context)
	defer cancel()
	c.SetReadDeadline(time.Time{})
	s.wait.Go(func() {
		c.Read(make([]byte, 1))
		cancel()
	})
	var w Watch
	if err := json.Unmarshal(q.Args, &w); err != nil {
		reply(c, nil, fmt.Errorf("%s: args are packets, name, source, destination, host, port, protocol, drop and snap", q.Verb), false)
		return
	}
	if q.Verb == VerbTrace {
		done := Watched{}
		err := s.provider.Trace(ctx, w, func(t *Traced) error {
			done.Packets++
			return reply(c, t, nil, true)
		})
		reply(c, done, err, false)
		return
	}
	began := false
	err := s.provider.Capture(ctx, w, func() error {
		began = true
		return reply(c, struct{}{}, nil, true)
	}, writer{c})
	if err != nil && !began {
		reply(c, nil, err, false)
	}
}

// writer gives each write its time.
type writer struct{ net.Conn }

func (w writer) Write(b []byte) (int, error) {
	w.SetWriteDeadline(time.Now().Add(writeMax))
	return w.Conn.Write(b)
}

// reply sends one answer.
func reply(c net.Conn, result any, failed error, more bool) error {
	r := response{Schema: Schema, More: more}
	if failed != nil {
		r.Error = failed.Error()
	} else if b, err := json.Marshal(result); err != nil {
		r.Error = err.Error()
	} else {
		r.Result = b
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = writer{c}.Write(append(b, '\n'))
	return err
}

// Client asks one daemon.
type Client struct{ path string }

// NewClient returns a client of the socket at path.
func NewClient(path string) *Client { return &Client{path} }

// ErrUnreachable is returned when nobody answers on the socket.
var ErrUnreachable = errors.New("cannot reach sallyportd")

// responseMax bounds what a client reads.
const responseMax = 1 << 30

// Do sends one request and decodes the answer into out, which may be nil to
// leave it out. It returns the result's JSON as the daemon sent it.
func (c *Client) Do(ctx context.Context, verb string, args, out any) (json.RawMessage, error) {
	conn, in, err := c.send(ctx, verb, args)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	result, _, err := next(in)
	if err != nil {
		return nil, err
	}
	return result, decode(result, out)
}

// Follow sends a request that is answered many times, and calls each with every result but the last, which it returns.
// When ctx ends, so does the connection; that is no error.
func (c *Client) Follow(ctx context.Context, verb string, args any, each func(json.RawMessage) error) (json.RawMessage, error) {
	conn, in, err := c.send(ctx, verb, args)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for {
		result, more, err := next(in)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, nil
		case err != nil || !more:
			return result, err
		}
		if err := each(result); err != nil {
			return nil, err
		}
	}
}

// Copy sends a request that is answered by bytes, and copies them to out until they or ctx end.
func (c *Client) Copy(ctx context.Context, verb string, args any, out io.Writer) (int64, error) {
	conn, in, err := c.send(ctx, verb, args)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.CloseWrite() })()
	if _, _, err := next(in); err != nil {
		return 0, err
	}
	return io.Copy(out, in)
}

// send connects and sends one request.
func (c *Client) send(ctx context.Context, verb string, args any) (*net.UnixConn, *bufio.Reader, error) {
	d := net.Dialer{Timeout: 3 * time.Second}
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		hint := "is it running? Another one is named by --instance or --socket"
		if errors.Is(err, os.ErrPermission) {
			hint = "run as root or as a member of control.group"
		}
		return nil, nil, fmt.Errorf("%w at %s: %s (%v)", ErrUnreachable, c.path, hint, errors.Unwrap(err))
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	q := request{Verb: verb}
	b, err := json.Marshal(args)
	if args != nil {
		q.Args = b
	}
	if err == nil {
		b, err = json.Marshal(q)
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	if _, err := conn.Write(append(b, '\n')); err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("asking sallyportd: %w", err)
	}
	return conn.(*net.UnixConn), bufio.NewReaderSize(conn, 64<<10), nil
}

// next reads one answer.
func next(in *bufio.Reader) (result json.RawMessage, more bool, err error) {
	line, err := line(in)
	if err != nil {
		return nil, false, fmt.Errorf("waiting for sallyportd's answer: %w", err)
	}
	var r response
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, false, fmt.Errorf("sallyportd's answer is not JSON: %w", err)
	}
	if r.Schema != Schema {
		return nil, false, fmt.Errorf("sallyportd speaks control schema %d, this tool %d: use the tool of the same version", r.Schema, Schema)
	}
	if r.Error != "" {
		return nil, false, errors.New(r.Error)
	}
	return r.Result, r.More, nil
}

// line reads to the end of a line, responseMax at most.
func line(in *bufio.Reader) (all []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		all = append(all, part...)
		switch {
		case err == nil:
			return all, nil
		case errors.Is(err, io.EOF):
			return nil, errors.New("it closed the connection")
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(all) > responseMax:
			return nil, fmt.Errorf("it is longer than %d bytes", responseMax)
		}
	}
}

// decode reads a result into out, unless out is nil.
func decode(result json.RawMessage, out any) error {
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(result, out); err != nil {
		return fmt.Errorf("reading sallyportd's answer: %w", err)
	}
	return nil
}
