// Sallyport-bench measures the gateway: packets a second, time a packet, throughput. It prints
// for people and writes rows that reports and comparisons read.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/version"
)

// Exit codes: a measurement failed, the command line is wrong.
const (
	exitFailed = 1
	exitUsage  = 2
)

// errUsage marks errors of the command line.
var errUsage = errors.New("")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := command(stdout, stderr)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "sallyport-bench:", err)
	if errors.Is(err, errUsage) || strings.HasPrefix(err.Error(), "unknown ") {
		return exitUsage
	}
	return exitFailed
}

func command(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "sallyport-bench",
		Short:         "Benchmarks of the Sallyport IPsec gateway",
		Long:          "Sallyport-bench measures the gateway. Figures of different runs on a shared machine differ by more than\nmost changes: compare within one run. Exit codes: 0 done, 1 failed, 2 wrong usage.",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w%w", errUsage, err) })
	root.AddCommand(pipelineCommand(stdout, stderr), cryptoCommand(stdout, stderr), peersCommand(stdout, stderr), vethCommand(stdout, stderr), wireCommand(stdout, stderr), ikeCommand(stdout, stderr), runCommand(stdout, stderr), reportCommand(stdout), compareCommand(stdout), soakCommand(stdout, stderr))
	return root
}
