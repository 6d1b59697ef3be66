package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/control"
)

const filterHelp = `A filter is words KEY=VALUE that all must fit:
  conn=CONNECTION[/CHILD]   src=PREFIX  dst=PREFIX  host=PREFIX (either)
  port=N (either)           proto=NAME or number      drop=REASON or drop=any
A packet fits if it does at one stage: an ESP packet by its outer addresses or by those of what is in it.`

func (t *tool) traceCommand() *cobra.Command {
	var timeout time.Duration
	add := &cobra.Command{
		Use: "add N [FILTER...]", Short: "Follow the next N packets through the stages of the packet path",
		Long:    "Trace add prints the way of the next N packets that fit the filter: each stage that did something with the packet,\nwhen, by which association and sequence number, what the replay window said, and where it left or why it was dropped.\n\n" + filterHelp,
		Example: "  sallyport trace add 5 conn=site-b/net\n  sallyport trace add 20 drop=any host=198.51.100.7",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%whow many packets? sallyport trace add N [FILTER...]", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 1 {
				return fmt.Errorf("%w%q is no number of packets", errUsage, args[0])
			}
			w, err := filter(args[1:])
			if err != nil {
				return err
			}
			w.Packets = n
			ctx, cancel := watching(cmd.Context(), timeout)
			defer cancel()
			seen := 0
			_, err = control.NewClient(t.path()).Follow(ctx, control.VerbTrace, w, func(raw json.RawMessage) error {
				seen++
				if t.json {
					_, err := fmt.Fprintln(t.out, string(raw))
					return err
				}
				var one control.Traced
				if err := json.Unmarshal(raw, &one); err != nil {
					return fmt.Errorf("reading sallyportd's answer: %w", err)
				}
				return printTraced(t.out, seen, &one)
			})
			if err == nil && seen < n && !t.json {
				fmt.Fprintf(t.out, "%d of %d packets came\n", seen, n)
			}
			return err
		},
	}
	add.Flags().BoolVar(&t.json, "json", false, "print a JSON object a packet, with stable field names")
	add.Flags().DurationVar(&timeout, "timeout", 0, "end after this time (default: with the Nth packet, or Ctrl-C)")
	c := &cobra.Command{Use: "trace", Short: "Follow packets through the stages of the packet path"}
	c.AddCommand(add)
	return c
}

func (t *tool) captureCommand() *cobra.Command {
	var timeout time.Duration
	var file string
	var packets, snap int
	c := &cobra.Command{
		Use: "capture -w FILE [FILTER...]", Short: "Write packets to a pcapng file, before and after ESP",
		Long:    "Capture writes packets as they arrive and as they leave, in the clear on the protected side and as ESP outside, to a\npcapng file for Wireshark, with the names of the interfaces and, in comments, association, sequence number and drop\nreason. It sees what tcpdump on the interface cannot. Only root may: the file holds decrypted packets. It goes on until\nCtrl-C, --count or --timeout.\n\n" + filterHelp,
		Example: "  sallyport capture -w tunnel.pcapng conn=site-b/net --timeout 10s\n  sallyport capture -w - drop=any | tshark -r -",
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := filter(args)
			if err != nil {
				return err
			}
			if file == "" {
				return fmt.Errorf("%wwhere to? -w FILE, or -w - for the standard output", errUsage)
			}
			w.Packets, w.Snap = packets, snap
			out := io.WriteCloser(writeCloser{t.out})
			if file != "-" {
				if out, err = os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600); err != nil {
					return err
				}
			}
			ctx, cancel := watching(cmd.Context(), timeout)
			defer cancel()
			bytes, err := control.NewClient(t.path()).Copy(ctx, control.VerbCapture, w, out)
			if err := errors.Join(err, out.Close()); err != nil {
				return err
			}
			if file != "-" {
				fmt.Fprintf(t.out, "%s: %d bytes\n", file, bytes)
			}
			return nil
		},
	}
	c.Flags().StringVarP(&file, "write", "w", "", "file to write to; - is the standard output")
	c.Flags().IntVarP(&packets, "count", "c", 0, "end after so many packets (default: no bound)")
	c.Flags().IntVarP(&snap, "snaplen", "s", 0, "bytes of each packet to keep (default: all)")
	c.Flags().DurationVar(&timeout, "timeout", 0, "end after this time")
	return c
}

type writeCloser struct{ io.Writer }

func (writeCloser) Close() error { return nil }

// watching bounds a trace or a capture; 0 is no bound.
func watching(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return context.WithCancel(ctx)
	}
	// Not a deadline, which the connection would take for a failure.
	ctx, cancel := context.WithCancel(ctx)
	stop := time.AfterFunc(timeout, cancel)
	return ctx, func() { stop.Stop(); cancel() }
}

// protocols are the names that filters and traces know.
var protocols = map[string]uint8{"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "sctp": 132}

func protocolName(n uint8) string {
	for name, number := range protocols {
		if number == n {
			return name
		}
	}
	return fmt.Sprintf("protocol %d", n)
}

// filter reads the words of a filter.
func filter(words []string) (w control.Watch, err error) {
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		if !ok || value == "" {
			return w, fmt.Errorf("%w%q is not KEY=VALUE; keys are conn, src, dst, host, port, proto and drop", errUsage, word)
		}
		switch key {
		case "conn":
			w.Name = value
		case "src":
			w.Source = value
		case "dst":
			w.Dest = value
		case "host":
			w.Host = value
		case "drop":
			w.Drop = value
		case "port":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil || n == 0 {
				return w, fmt.Errorf("%wport %q: 1 to 65535", errUsage, value)
			}
			w.Port = uint16(n)
		case "proto":
			n, err := strconv.ParseUint(value, 10, 8)
			if name, ok := protocols[value]; ok {
				n, err = uint64(name), nil
			}
			if err != nil || n == 0 {
				return w, fmt.Errorf("%wproto %q: a number from 1 to 255 or one of icmp, tcp, udp, gre, esp, ah, icmpv6 and sctp", errUsage, value)
			}
			w.Proto = uint8(n)
		default:
			return w, fmt.Errorf("%wunknown key %q; keys are conn, src, dst, host, port, proto and drop", errUsage, key)
		}
	}
	return w, nil
}

// printTraced prints a packet: a line for it, and one for each stage.
func printTraced(out io.Writer, number int, p *control.Traced) error {
	if len(p.Steps) == 0 {
		return nil
	}
	first := p.Steps[0].Time
	lines := []string{fmt.Sprintf("packet %d, worker %d, %s", number, p.Worker, first.Local().Format("15:04:05.000000"))}
	last := &control.TraceStep{}
	for i := range p.Steps {
		s := &p.Steps[i]
		lines = append(lines, fmt.Sprintf("  %-8s %+7.1f µs  %s", s.Stage, float64(s.Time.Sub(first).Nanoseconds())/1e3, sentence(s, last)))
		last = s
	}
	_, err := fmt.Fprintln(out, strings.Join(lines, "\n"))
	return err
}

// sentence says what a stage did, and what is not as it was after the last one.
func sentence(s, last *control.TraceStep) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if s.Drop != "" {
		add("DROP %s", s.Drop)
	}
	switch s.Stage {
	case "take":
		if s.Class == "" {
			add("from %s", s.Interface)
		} else {
			add("taken up again, %s", s.Class)
		}
	case "send":
		if s.Drop == "" && s.ToWorker == nil && !s.Parked {
			add("by %s", s.Interface)
		}
	default:
		if s.Drop == "" && s.Class != last.Class && s.Class != "waiting" {
			add("%s", s.Class)
		}
	}
	switch {
	case s.ToWorker != nil && *s.ToWorker >= 0:
		add("handed to worker %d", *s.ToWorker)
	case s.ToWorker != nil:
		add("handed to another worker")
	case s.Class == "waiting":
		add("kept until its tunnel has an association")
	case s.Parked:
		add("waits for its neighbour's link address")
	}
	if s.Source != "" && (s.Source != last.Source || s.Destination != last.Destination || s.SourcePort != last.SourcePort || s.DestPort != last.DestPort || s.Protocol != last.Protocol) {
		add("%s > %s %s", hostPort(s.Source, s.SourcePort), hostPort(s.Destination, s.DestPort), protocolName(s.Protocol))
	}
	if s.Association != "" && s.Association != last.Association {
		add("association %s", s.Association)
	}
	if s.SPI != "" && s.SPI != last.SPI {
		add("SPI %s", s.SPI)
	}
	if s.Sequence != 0 && s.Sequence != last.Sequence {
		add("sequence %d", s.Sequence)
	}
	if s.Window != 0 {
		add("window %d, highest %d", s.Window, s.Highest)
	}
	if s.TTL != 0 && s.TTL != last.TTL {
		add("TTL %d", s.TTL)
	}
	if s.Length != last.Length || len(parts) == 0 {
		add("%d bytes", s.Length)
	}
	return strings.Join(parts, ", ")
}

func hostPort(addr string, port uint16) string {
	if port == 0 {
		return addr
	}
	return net.JoinHostPort(addr, strconv.Itoa(int(port)))
}
