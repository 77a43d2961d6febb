package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"os"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"couplet"
	"couplet/poetry"
)

// maxPoemFile bounds the file of a poem.
const maxPoemFile = 256 << 20

func newServePoem(c *common) *cobra.Command {
	s := &serving{common: c}
	numBytes, delay, fast := 10, duration(100*time.Millisecond), false
	cmd := &cobra.Command{
		Use:   "poem [FILE or NAME]",
		Short: "Serve a poem slowly, to any number of clients at once",
		Long: "Serve a poem: --num-bytes bytes, then --delay, and so on, with a delay after the\n" +
			"last bytes too, to every client at its own time. A FILE that exists wins over a\n" +
			"NAME. Without either it is Ozymandias. The names are:\n\n" + poemTable(),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("serve poem takes one poem, and not also %q; want one FILE or NAME, such as ozymandias", args[1])
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []cobra.Completion
			for _, p := range poetry.Poems() {
				names = append(names, cobra.CompletionWithDesc(p.Name, p.Author))
			}
			return names, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, slow := range []string{"delay", "num-bytes"} {
				if fast && cmd.Flags().Changed(slow) {
					return fmt.Errorf("--fast sends the whole poem at once; leave out --%s", slow)
				}
			}
			name := "ozymandias"
			if len(args) > 0 {
				name = args[0]
			}
			text, err := readPoem(name)
			if err != nil {
				return err
			}
			pace := poetry.Pace{NumBytes: numBytes, Delay: time.Duration(delay)}
			if fast {
				pace = poetry.AllAtOnce
			}
			server, err := poetry.NewServer(text, pace)
			if err != nil {
				return err
			}
			return s.run(name, func(log *slog.Logger) couplet.Factory {
				server.OnStart = func(client net.Addr) { log.Info("somebody wants poetry", "client", addrText(client)) }
				server.OnEnd = func(client net.Addr, sent int, err error) {
					if err != nil {
						log.Info("poem cut", "client", addrText(client), "written", sent, "reason", err.Error())
						return
					}
					log.Info("poem sent", "client", addrText(client), "bytes", sent)
				}
				return server
			})
		},
	}
	s.register(cmd)
	cmd.Flags().Var(&number{&numBytes, 1, math.MaxInt}, "num-bytes", "bytes to send at a time")
	cmd.Flags().Var(&delay, "delay", "time between sends, such as 100ms; without a unit it is seconds")
	cmd.Flags().BoolVar(&fast, "fast", false, "send the whole poem at once")
	return cmd
}

// readPoem reads the file name, or finds the poem of that name.
func readPoem(name string) ([]byte, error) {
	f, err := os.Open(name)
	defer f.Close()
	missing := name == "" || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid)
	info, statErr := os.Stat(name)
	if p, ok := poetry.Find(name); ok && (missing || statErr == nil && info.IsDir()) {
		return []byte(p.Text), nil
	}
	if missing {
		var known []string
		for _, p := range poetry.Poems() {
			known = append(known, p.Name)
		}
		return nil, fmt.Errorf("no file and no poem is called %q; want a file, %s", name, names(known))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the poem %q: %w; want a text file", name, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPoemFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read the poem %q: %w; want a text file", name, err)
	case len(text) > maxPoemFile:
		return nil, fmt.Errorf("the poem %q is too long; want at most %d bytes", name, maxPoemFile)
	case !utf8.Valid(text):
		return nil, fmt.Errorf("the poem %q is not valid UTF-8 at byte %d; want UTF-8 text", name, invalidAt(text))
	}
	return text, nil
}

// invalidAt is the offset of the first byte that is not UTF-8.
func invalidAt(text []byte) int {
	at := 0
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if r == utf8.RuneError && n == 1 {
			break
		}
		at, text = at+n, text[n:]
	}
	return at
}

// poemTable lists the poems that ship.
func poemTable() string {
	table := ""
	for _, p := range poetry.Poems() {
		year := fmt.Sprint(p.Year)
		if p.Circa {
			year = "about " + year
		}
		table += fmt.Sprintf("  %-21s %s (%s, %s)\n", p.Name, p.Title, p.Author, year)
	}
	return table
}

// addrText is a for a log. A unix client has no name.
func addrText(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}
