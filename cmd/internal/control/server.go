package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	Counters() Counters
	Connections() Connections
	Reload() (Reload, error)
	// Up, Down and Rekey return once it is done, failed, or the context ends.
	Up(ctx context.Context, name string) error
	Down(ctx context.Context, name string) error
	Rekey(ctx context.Context, name string) error
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
			c.SetWriteDeadline(time.Now().Add(time.Second))
			reply(c, nil, errors.New("too many connections to the control socket"))
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
	c.SetWriteDeadline(time.Now().Add(writeMax))
	if err := s.admit(c); err != nil {
		reply(c, nil, err)
		return
	}
	in := bufio.NewScanner(c)
	in.Buffer(make([]byte, 4096), requestMax)
	for {
		c.SetReadDeadline(time.Now().Add(idleMax))
		if !in.Scan() {
			if errors.Is(in.Err(), bufio.ErrTooLong) {
				c.SetWriteDeadline(time.Now().Add(writeMax))
				reply(c, nil, fmt.Errorf("the request is longer than %d bytes", requestMax))
			}
			return
		}
		result, err := s.answer(in.Bytes())
		c.SetWriteDeadline(time.Now().Add(writeMax))
		if reply(c, result, err) != nil {
			return
		}
	}
}

// admit checks the peer's credentials: root, our own user, or a member of the group.
func (s *Server) admit(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	if admitted(cred.Uid, cred.Gid, uint32(os.Geteuid()), s.gids, supplementary) {
		return nil
	}
	return fmt.Errorf("user %d may not use this control socket; see control.group in the configuration", cred.Uid)
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
	return nil, fmt.Errorf("unknown verb %q; this daemon knows status, sas, conns, policies, counters, up, down, rekey and reload", q.Verb[:min(len(q.Verb), 40)])
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

func reply(c net.Conn, result any, failed error) error {
	r := response{Schema: Schema}
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
	_, err = c.Write(append(b, '\n'))
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
	d := net.Dialer{Timeout: 3 * time.Second}
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		hint := "is it running? Another one is named by --instance or --socket"
		if errors.Is(err, os.ErrPermission) {
			hint = "run as root or as a member of control.group"
		}
		return nil, fmt.Errorf("%w at %s: %s (%v)", ErrUnreachable, c.path, hint, errors.Unwrap(err))
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	q := request{Verb: verb}
	if args != nil {
		if q.Args, err = json.Marshal(args); err != nil {
			return nil, err
		}
	}
	b, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(b, '\n')); err != nil {
		return nil, fmt.Errorf("asking sallyportd: %w", err)
	}
	in := bufio.NewScanner(conn)
	in.Buffer(make([]byte, 64<<10), responseMax)
	if !in.Scan() {
		err := in.Err()
		if err == nil {
			err = errors.New("it closed the connection")
		}
		return nil, fmt.Errorf("waiting for sallyportd's answer: %w", err)
	}
	var r response
	if err := json.Unmarshal(in.Bytes(), &r); err != nil {
		return nil, fmt.Errorf("sallyportd's answer is not JSON: %w", err)
	}
	if r.Schema != Schema {
		return nil, fmt.Errorf("sallyportd speaks control schema %d, this tool %d: use the tool of the same version", r.Schema, Schema)
	}
	if r.Error != "" {
		return nil, errors.New(r.Error)
	}
	if out != nil {
		if err := json.Unmarshal(r.Result, out); err != nil {
			return nil, fmt.Errorf("reading sallyportd's answer: %w", err)
		}
	}
	return r.Result, nil
}
