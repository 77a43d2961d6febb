package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"couplet"
	"couplet/poetry"
)

func newServeEcho(c *common) *cobra.Command {
	s := &serving{common: c}
	upper := false
	cmd := &cobra.Command{
		Use:   "echo",
		Short: "Send back what comes in",
		Long: `Send back what comes in. A client that does not take its echo is not read from.
After a signal the echo goes on until the clients close. Who is still there after
--drain-timeout, if only idle, is reset, and the exit status is 1.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return s.run("echo", func(*slog.Logger) couplet.Factory { return poetry.Echo{Upper: upper} })
		},
	}
	s.register(cmd)
	cmd.Flags().BoolVar(&upper, "upper", false, "send ASCII letters back in upper case")
	return cmd
}
