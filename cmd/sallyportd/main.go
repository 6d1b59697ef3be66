// Sallyportd is the gateway's daemon. It reads the configuration, starts the
// packet engine, serves the control socket and carries reloads out. It is the
// only place that knows configuration and data plane.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"sallyport/cmd/internal/config"
	"sallyport/cmd/internal/control"
	"sallyport/cmd/internal/version"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // could not start or run
	exitConfig = 2 // wrong flags or configuration: a restart does not mend it
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr, hup, kernel))
}

const usage = `sallyportd: IPsec gateway on AF_XDP

  sallyportd --config FILE [--check | --fence-only]

`

// run is main without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, hup <-chan os.Signal, p platform) int {
	flags := flag.NewFlagSet("sallyportd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	path := flags.String("config", "/etc/sallyport/sallyport.yaml", "configuration `file`")
	check := flags.Bool("check", false, "check the configuration and exit")
	fence := flags.Bool("fence-only", false, "install the fence routes of the configuration and exit; for use before the network is up")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return exitOK
	} else if err != nil {
		return exitConfig
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "sallyportd: unexpected argument %q\n", flags.Arg(0))
		return exitConfig
	}
	// Absolute, so that what is shown and read again means the same from everywhere.
	absolute, err := filepath.Abs(*path)
	if err != nil {
		fmt.Fprintln(stderr, "sallyportd:", err)
		return exitFailed
	}
	c, err := config.Load(absolute)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitConfig
	}
	if *check {
		for _, w := range c.Warnings {
			fmt.Fprintln(stdout, "warning:", w.Error())
		}
		fmt.Fprintf(stdout, "%s: correct: %d interfaces, %d policies, %d connections, %d associations\n", *path, len(c.File.Interfaces), len(c.Policies), len(c.Connections), len(c.Associations))
		return exitOK
	}
	log := logger(c, stderr)
	if err := serve(ctx, c, log, hup, *fence, p); err != nil {
		log.Error().Msg(err.Error())
		return exitFailed
	}
	return exitOK
}

// serve runs the daemon until ctx ends.
func serve(ctx context.Context, c *config.Config, log zerolog.Logger, hup <-chan os.Signal, fenceOnly bool, p platform) error {
	fences, err := p.fences()
	if err != nil {
		return err
	}
	if fenceOnly {
		if err := errors.Join(fences.Fence(c.Fences), fences.Reserve(c)); err != nil {
			return fmt.Errorf("fence routes and interfaces: %w", err)
		}
		log.Info().Int("routes", len(c.Fences)).Msg("fence routes installed")
		return nil
	}
	// Keys are in this process: no core dumps, no ptrace by other processes of the user.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbidding core dumps: %w", err)
	}
	for _, w := range c.Warnings {
		log.Warn().Msg(w.Error())
	}
	if n := len(c.Associations); n > 0 {
		log.Warn().Int("associations", n).Msg("MANUAL KEYS: these associations use keys from the configuration, which is insecure and meant for tests")
	}
	e, keys, err := p.engine(c, log)
	if err != nil {
		return fmt.Errorf("setting up the packet engine: %w", err)
	}
	// The peers hear of it before the packet path ends, on which they hear everything.
	stop := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), goodbye)
		defer cancel()
		keys.Close(ctx)
		return e.Stop()
	}
	g := newGateway(log, e, keys, fences, func() (*config.Config, error) { return loadLean(c.Path) })
	if err := g.start(c); err != nil {
		return errors.Join(err, stop())
	}
	server, err := control.Listen(c.File.Control.Socket, c.File.Control.Group, g)
	if err != nil {
		return errors.Join(err, stop())
	}
	log.Info().Str("version", version.String()).Str("instance", c.File.Instance).Str("socket", c.File.Control.Socket).
		Int("policies", len(c.Policies)).Int("connections", len(c.Connections)).Int("associations", len(c.Associations)).Msg("sallyportd runs")
	for {
		select {
		case <-hup:
			if _, err := g.Reload(); err != nil {
				log.Error().Msg("reload refused: " + strings.ReplaceAll(err.Error(), "\n", "; "))
			}
		case <-ctx.Done():
			log.Info().Msg("stopping; protected traffic stays blocked until the next start or `sallyport detach`")
			return errors.Join(server.Close(), stop())
		}
	}
}

// level is the configuration's log level.
func level(c *config.Config) zerolog.Level {
	l, err := zerolog.ParseLevel(c.File.Log.Level)
	if err != nil {
		return zerolog.InfoLevel
	}
	return l
}

// logger writes JSON unless w is a terminal or the configuration says otherwise. The
// level is the process's, so that a reload can change it for everyone who holds the logger.
func logger(c *config.Config, w io.Writer) zerolog.Logger {
	zerolog.SetGlobalLevel(level(c))
	text := c.File.Log.Format == "text"
	if f, ok := w.(*os.File); ok && c.File.Log.Format == "auto" {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		text = err == nil
	}
	if text {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: "15:04:05", NoColor: os.Getenv("NO_COLOR") != ""}
	}
	return zerolog.New(zerolog.SyncWriter(w)).With().Timestamp().Logger()
}
