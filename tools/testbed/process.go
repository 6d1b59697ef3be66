package testbed

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Process is a program that runs inside a namespace.
type Process struct {
	Cmd *exec.Cmd

	done chan struct{}
	err  error
}

// Start runs a command inside the namespace, in its own process group, with the
// caller's mount namespace. The process is killed when the bed closes, and by the
// kernel when this process dies.
func (n *Namespace) Start(cmd *exec.Cmd) (*Process, error) {
	end, err := n.bed.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	p := &Process{Cmd: cmd, done: make(chan struct{})}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	started := make(chan error, 1)
	go func() {
		// The death signal is sent when the thread that forked ends, so this one
		// stays for as long as the process lives and ends with it, still locked.
		runtime.LockOSThread()
		defer close(p.done)
		if err := netns.Set(n.handle); err != nil {
			started <- fmt.Errorf("entering %s: %w", n.Name, err)
			return
		}
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("starting %s in %s: %w", cmd.Path, n.Name, err)
			return
		}
		started <- nil
		p.err = cmd.Wait()
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	n.bed.Defer(func() error { p.Kill(); return nil })
	return p, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process and returns what exec.Cmd.Wait says.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Signal sends a signal to the process, unless it has ended.
func (p *Process) Signal(s syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
		return p.Cmd.Process.Signal(s)
	}
}

// Stop asks the process to end, waits so long, and kills it if it has not ended by
// then, which is an error.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.Signal(unix.SIGTERM); err != nil {
		return fmt.Errorf("stopping %s: %w", p.Cmd.Path, err)
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(grace):
		p.Kill()
		return errors.New(p.Cmd.Path + " did not stop when asked and was killed")
	}
}

// Kill kills the process at once and waits for its end.
func (p *Process) Kill() {
	p.Signal(unix.SIGKILL)
	<-p.done
}
