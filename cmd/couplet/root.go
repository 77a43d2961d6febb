package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"couplet"
	"couplet/engines"
)

// common is what every command knows: the flags of all, and where to write.
type common struct {
	engine    string
	logFormat string
	quiet     bool
	stdout    io.Writer
	stderr    io.Writer
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	c := &common{engine: engines.Auto, logFormat: "text", stdout: stdout, stderr: stderr}
	root := &cobra.Command{
		Use:   "couplet",
		Short: "Slow poems over io_uring and epoll: the proactor and the reactor side by side",
		Long: `Couplet serves and fetches poems, slowly, on event loops: with io_uring ("do
this, tell me when it is done"), with epoll ("tell me when I may, then I do it")
and with a goroutine per connection, all behind one Protocol.

Begin with "couplet demo". Exit status: 0 done, 1 the work failed, 2 the command
line or an input was wrong.`,
		Example: `  couplet demo
  couplet serve poem --port 10000     # and in a second terminal:
  couplet fetch 10000`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return notEmpty(cmd.Flags())
		},
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(flagError)
	all := append([]string{engines.Auto}, engines.Names()...)
	formats := []string{"text", "json"}
	flags := root.PersistentFlags()
	flags.Var(&choice{&c.engine, engines.Check}, "engine", "the engine: "+names(all))
	flags.Var(&choice{&c.logFormat, oneOf(formats...)}, "log-format", "the log on standard error: "+names(formats))
	flags.BoolVarP(&c.quiet, "quiet", "q", false, "say only what must be said")
	root.RegisterFlagCompletionFunc("engine", cobra.FixedCompletions(all, cobra.ShellCompDirectiveNoFileComp))
	root.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))

	root.AddCommand(newServe(c), newFetch(c), newDemo(c), newTrace(c), newDoctor(c), newBench(c), newBenchServer(c), newVersion(c))
	checkShell(root)
	checkHelp(root)
	return root
}

// checkShell makes couplet completion refuse a shell that it does not know,
// which it would answer with its help.
func checkShell(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	cmd, _, err := root.Find([]string{"completion"})
	if err != nil {
		return
	}
	var shells []string
	for _, shell := range cmd.Commands() {
		shell.Args = noArgs
		shells = append(shells, shell.Name())
	}
	cmd.Args = nil
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return fmt.Errorf("there is no completion for %q; want %s", args[0], names(shells))
	}
}

// checkHelp makes couplet help refuse what it has no help for.
func checkHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		return
	}
	show := help.Run
	help.RunE = func(cmd *cobra.Command, args []string) error {
		if _, rest, err := root.Find(args); err != nil || len(rest) > 0 {
			return fmt.Errorf("there is no help for %q; couplet --help lists the commands", strings.Join(args, " "))
		}
		show(cmd, args)
		return nil
	}
}

// notEmpty is nil unless a flag was given nothing, as by a variable that is not set.
func notEmpty(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		if err == nil && f.Value.Type() == "string" && f.Value.String() == "" {
			err = fmt.Errorf("--%s is empty; give it a value, or leave it out", f.Name)
		}
	})
	return err
}

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments; got %q", strings.TrimPrefix(cmd.CommandPath(), "couplet "), args[0])
	}
	return nil
}

func newVersion(c *common) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the Go version and the io_uring binding",
		Args:  noArgs,
		Run:   func(*cobra.Command, []string) { fmt.Fprintln(c.stdout, version()) },
	}
}

// version is the line of couplet version and couplet --version.
func version() string {
	v := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v = info.Main.Version
	}
	return fmt.Sprintf("couplet %s, %s %s/%s, io_uring binding: %s", v, runtime.Version(), runtime.GOOS, runtime.GOARCH, engines.Binding)
}

// logger writes to stderr, by w. Nothing that logs waits for whoever reads that; w.end
// writes what is left.
func (c *common) logger() (log *slog.Logger, w *patientWriter) {
	options := &slog.HandlerOptions{Level: slog.LevelInfo}
	if c.quiet {
		options.Level = slog.LevelWarn
	}
	to := func(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, options)) }
	if c.logFormat == "json" {
		options.ReplaceAttr = durationText
		to = func(w io.Writer) *slog.Logger { return slog.New(slog.NewJSONHandler(w, options)) }
	}
	w = newPatientWriter(c.stderr, func(w io.Writer, dropped int) {
		to(w).Warn("lines dropped: they were not read fast enough", "lines", dropped)
	})
	return to(w), w
}

// durationText has a duration read 10s in JSON too, where slog writes nanoseconds.
func durationText(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// open makes the engine that was asked for. One that the kernel refuses is a
// failure; one that is not in this build was refused with the flags.
func (c *common) open(cfg couplet.Config) (couplet.Engine, error) {
	e, err := engines.Open(c.engine, cfg)
	if err != nil {
		return nil, failure{fmt.Errorf("--engine=%s cannot run here: %w", c.engine, advised(err, "--engine=epoll"))}
	}
	return e, nil
}

// advised is err, and where that advises another engine than io_uring's, what it means
// to a command.
func advised(err error, means string) error {
	if engines.NoUring(err) {
		return fmt.Errorf("%w (%s)", err, means)
	}
	return err
}

// introduce writes the engine line to w. It is never left out where auto had to
// fall back.
func (c *common) introduce(w io.Writer, e couplet.Engine) {
	why, fallback := engines.Choice(e)
	if c.quiet && !fallback {
		return
	}
	if c.logFormat == "json" {
		slog.New(slog.NewJSONHandler(w, nil)).LogAttrs(context.Background(), slog.LevelInfo, "engine",
			slog.String("name", e.Name()), slog.String("description", e.Describe()), slog.Int("loops", len(e.Loops())), slog.String("why", why))
		return
	}
	fmt.Fprintf(w, "Engine %s: %s.\n", e.Name(), e.Describe())
}
