// Sallyport is the control tool of the gateway daemon: it asks over the control
// socket, prints for people or as JSON, checks configurations and hosts.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/config"
	"sallyport/cmd/internal/control"
	"sallyport/cmd/internal/version"
	"sallyport/dataplane/transform"
)

// Exit codes: what was asked for failed, the command line or a checked file is
// wrong, the daemon cannot be reached.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
)

// errUsage marks errors of the command line or of a checked file.
var errUsage = errors.New("")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := command(stdout)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if text := strings.TrimSuffix(err.Error(), "\n"); text != "" {
		fmt.Fprintln(stderr, "sallyport:", text)
	}
	switch {
	case errors.Is(err, control.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, errUsage) || strings.HasPrefix(err.Error(), "unknown "):
		return exitUsage
	}
	return exitFailed
}

// tool holds the flags that all commands share.
type tool struct {
	out      io.Writer
	socket   string
	instance string
	json     bool
}

func (t *tool) path() string {
	if t.socket != "" {
		return t.socket
	}
	return config.SocketPath(t.instance)
}

// ask sends a verb; with --json it prints the daemon's answer itself and says so.
func (t *tool) ask(cmd *cobra.Command, verb string, args, out any) (printed bool, err error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
	defer cancel()
	raw, err := control.NewClient(t.path()).Do(ctx, verb, args, out)
	if err != nil || !t.json {
		return false, err
	}
	return true, t.print(raw)
}

func (t *tool) print(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(t.out, string(b))
	return err
}

func (t *tool) table(header string, rows func(w io.Writer)) {
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, header)
	rows(w)
	w.Flush()
}

func command(out io.Writer) *cobra.Command {
	t := &tool{out: out}
	root := &cobra.Command{
		Use:           "sallyport",
		Short:         "Control tool of the Sallyport IPsec gateway",
		Long:          "Sallyport asks a running sallyportd over its control socket, checks configuration files and tells\nwhat this machine lacks. Exit codes: 0 done, 1 failed, 2 wrong usage or wrong file, 3 no daemon.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w%w", errUsage, err) })
	root.PersistentFlags().StringVar(&t.socket, "socket", "", "control socket (default /run/sallyport/INSTANCE.sock)")
	root.PersistentFlags().StringVar(&t.instance, "instance", "default", "name of the daemon's instance")

	reading := func(c *cobra.Command) *cobra.Command {
		c.Flags().BoolVar(&t.json, "json", false, "print JSON with stable field names")
		c.Args = cobra.NoArgs
		return c
	}
	root.AddCommand(
		reading(&cobra.Command{Use: "status", Short: "Show the daemon, its workers and interfaces", RunE: t.status}),
		reading(t.sasCommand()),
		reading(&cobra.Command{Use: "conns", Short: "List the connections that are negotiated", RunE: t.connections}),
		t.actCommand(control.VerbUp, "Bring up a connection or one of its children, and wait for it"),
		t.actCommand(control.VerbDown, "Take down a connection or one of its children, and wait for it"),
		t.actCommand(control.VerbRekey, "Renew the keys of a connection's IKE SAs, or of a child, and wait for it"),
		reading(&cobra.Command{Use: "policies", Short: "List the policies in the order in which they match", RunE: t.policies}),
		reading(t.countersCommand()),
		reading(&cobra.Command{
			Use: "reload", Short: "Read the configuration again and change what differs",
			Long: "Reload has the daemon read its configuration again, check it whole and change only what differs:\nunchanged associations go on with their sequence numbers and counters. A wrong file changes nothing.",
			RunE: t.reload,
		}),
		&cobra.Command{
			Use: "check FILE", Short: "Check a configuration file without a daemon",
			Args: func(cmd *cobra.Command, args []string) error {
				if len(args) != 1 {
					return fmt.Errorf("%wcheck takes one file: sallyport check FILE", errUsage)
				}
				return nil
			},
			RunE: func(_ *cobra.Command, args []string) error { return t.check(args[0]) },
		},
		reading(&cobra.Command{Use: "version", Short: "Print the version of this tool", RunE: func(*cobra.Command, []string) error {
			if t.json {
				return t.print(map[string]any{"version": version.String(), "control_schema": control.Schema})
			}
			fmt.Fprintf(out, "sallyport %s, control schema %d\n", version.String(), control.Schema)
			return nil
		}}),
		reading(&cobra.Command{
			Use: "doctor", Short: "Check kernel, limits and interfaces, and say how to mend them",
			Long: "Doctor checks what the gateway needs of this machine. It works with and without a running daemon;\nwith one, it also judges its interfaces, queues and modes. It fails (exit 1) if anything fails.",
			RunE: t.doctor,
		}),
		t.detachCommand(),
		t.topCommand(),
		t.traceCommand(),
		t.recorderCommand(),
		t.captureCommand(),
	)
	return root
}

func (t *tool) check(file string) error {
	c, err := config.Load(file)
	if err != nil {
		return fmt.Errorf("%w%w", errUsage, err)
	}
	for _, w := range c.Warnings {
		fmt.Fprintln(t.out, "warning:", w.Error())
	}
	fmt.Fprintf(t.out, "%s: correct: %s, %s, %s", file, count(len(c.File.Interfaces), "interface"), count(len(c.Policies), "policy"), count(len(c.Connections), "connection"))
	if n := len(c.Associations); n > 0 {
		fmt.Fprintf(t.out, ", %s with manual keys", count(n, "association"))
	}
	fmt.Fprintln(t.out)
	printSuites(t.out, c.Suites)
	return nil
}

// printSuites lists ESP suites by how far RFC 8221 obliges a peer to have them.
func printSuites(w io.Writer, suites []transform.Suite) {
	for _, level := range []transform.Level{transform.Must, transform.Should, transform.May} {
		var names []string
		for _, s := range transform.List() {
			if s.Info().Level == level && slices.Contains(suites, s) {
				names = append(names, s.String())
			}
		}
		if len(names) > 0 {
			fmt.Fprintf(w, "  ESP, %s by RFC 8221: %s\n", level, strings.Join(names, ", "))
		}
	}
}
