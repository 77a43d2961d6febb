package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Flag values that say what would be right.
var (
	_ pflag.Value = (*duration)(nil)
	_ pflag.Value = (*period)(nil)
	_ pflag.Value = (*number)(nil)
	_ pflag.Value = (*perSecond)(nil)
	_ pflag.Value = (*choice)(nil)
	_ pflag.Value = (*list)(nil)
)

// flagError is err, of a flag of cmd, with what would be right.
func flagError(cmd *cobra.Command, err error) error {
	var bad *pflag.InvalidValueError
	if errors.As(err, &bad) && bad.GetFlag().Value.Type() == "bool" { // of which pflag tells how they are parsed
		err = fmt.Errorf("invalid argument %q for \"--%s\" flag: want true or false", bad.GetValue(), bad.GetFlag().Name)
	}
	return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
}

// A duration is a Go duration or plain seconds, and not negative.
type duration time.Duration

func (d *duration) String() string { return time.Duration(*d).String() }
func (d *duration) Type() string   { return "duration" }

func (d *duration) Set(s string) error {
	v, err := time.ParseDuration(s)
	if err != nil {
		seconds, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(seconds) || math.Abs(seconds) > math.MaxInt64/1e9 {
			return fmt.Errorf("want a duration such as 100ms, or seconds such as 0.1")
		}
		v = time.Duration(math.Round(seconds * 1e9))
	}
	if v < 0 {
		return fmt.Errorf("want a duration that is not negative")
	}
	*d = duration(v)
	return nil
}

// A period is a duration within bounds; 0 is none that was given.
type period struct {
	value    *time.Duration
	min, max time.Duration
}

func (p *period) String() string {
	if p.value == nil || *p.value == 0 {
		return "0" // which no help tells
	}
	return p.value.String()
}

func (p *period) Type() string { return "duration" }

func (p *period) Set(s string) error {
	var d duration
	if err := d.Set(s); err != nil {
		return err
	}
	if v := time.Duration(d); v < p.min || v > p.max {
		return fmt.Errorf("want a duration from %s to %s", bound(p.min), bound(p.max))
	}
	*p.value = time.Duration(d)
	return nil
}

// bound is d without what is zero of it: "10m", not "10m0s".
func bound(d time.Duration) string {
	text := d.String()
	if d%time.Minute == 0 {
		text = strings.TrimSuffix(text, "0s")
	}
	return text
}

// A number is a whole number within bounds.
type number struct {
	value    *int
	min, max int
}

func (n *number) String() string {
	if n.value == nil {
		return ""
	}
	return strconv.Itoa(*n.value)
}

func (n *number) Type() string { return "int" }

func (n *number) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < n.min || v > n.max {
		if n.max == math.MaxInt {
			return fmt.Errorf("want a whole number, %d or more", n.min)
		}
		return fmt.Errorf("want a whole number from %d to %d", n.min, n.max)
	}
	*n.value = v
	return nil
}

// A perSecond is how many messages a second there are to be; 0 is no clock.
type perSecond float64

func (r *perSecond) String() string { return strconv.FormatFloat(float64(*r), 'g', -1, 64) }
func (r *perSecond) Type() string   { return "float" }

func (r *perSecond) Set(s string) error {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0 && v <= 1e8) {
		return errors.New("want messages per second, from 0 to 100 million")
	}
	*r = perSecond(v)
	return nil
}

// A choice is a word that passes a check.
type choice struct {
	value *string
	check func(string) error
}

func (c *choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

func (c *choice) Type() string { return "name" }

func (c *choice) Set(s string) error {
	if err := c.check(s); err != nil {
		return err
	}
	*c.value = s
	return nil
}

// A list is words with commas between them, and more of them where the flag is
// given again.
type list struct {
	value *[]string
	files bool // a value that is a file is one word, commas and all
	given bool // before that the value is the default
}

func (l *list) String() string {
	if l.value == nil {
		return ""
	}
	return strings.Join(*l.value, ",")
}

func (l *list) Type() string { return "strings" }

func (l *list) Set(s string) error {
	if !l.given {
		l.given, *l.value = true, nil
	}
	words := []string{s}
	if _, err := os.Stat(s); !l.files || err != nil {
		words = strings.Split(s, ",")
	}
	if s != "" {
		*l.value = append(*l.value, words...)
	}
	return nil
}

// oneOf checks for one of words.
func oneOf(words ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("want %s", names(words))
		}
		return nil
	}
}

// names lists words in a sentence.
func names(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
