package poetry_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"unicode/utf8"

	"couplet/poetry"
)

// The poems are right to the letter: whoever changes one has to mean it.
var sums = map[string]string{
	"ozymandias":           "85a2cf4b69b61d98853de9e70e31da78278d8d29b5002d33d768c0c825ee03ff",
	"sonnet-18":            "08c6ae024fd4b095815343ee8daef5d09f1adec0438bbf5ea13f43a5ebb5b3f5",
	"the-tyger":            "82538e27f218c6cfb377a087a24c3746a9c4ca2946762f33da9d230b3f683b3f",
	"the-little-crocodile": "d3905dee83dc0325069903e7b2daf76f9563f67fb4ee86c432bd5c74867dfdb8",
	"father-william":       "feac92532f7a9a5cfcf4f6a19efce41d6e5be2aa713dc0fc75a2a91194189f2e",
	"the-raven":            "99e83bdd8d0fa554b3139bcb2a46a9834a20aa2476681fd5e1affecb1e258746",
	"l-infinito":           "659feb978fd4536628a0027533e6e29d3ccbdbd8f503e1397ae19edf93dced17",
	"guanque-tower":        "34ff581b1b82586dc692a1f1c9e00edcc02125ba51c9fa0018dd7601e38d65ca",
}

func TestPoemsAreRightToTheLetter(t *testing.T) {
	poems := poetry.Poems()
	if len(poems) != len(sums) {
		t.Errorf("%d poems, want %d", len(poems), len(sums))
	}
	for _, p := range poems {
		sum := sha256.Sum256([]byte(p.Text))
		if got := hex.EncodeToString(sum[:]); got != sums[p.Name] {
			t.Errorf("%s has SHA-256 %s, want %s", p.Name, got, sums[p.Name])
		}
		if !utf8.ValidString(p.Text) || strings.Contains(p.Text, "\r") || !strings.HasSuffix(p.Text, "\n") {
			t.Errorf("%s is not UTF-8 in lines that end in \\n", p.Name)
		}
		for n, line := range strings.Split(p.Text, "\n") {
			if strings.TrimRight(line, " \t") != line {
				t.Errorf("%s, line %d ends in a blank", p.Name, n+1)
			}
		}
		if p.Title == "" || p.Author == "" || p.Year == 0 {
			t.Errorf("%s lacks its title, author or year", p.Name)
		}
	}
}

func TestPoemHasItsLines(t *testing.T) {
	for name, want := range map[string]int{
		"ozymandias": 14, "sonnet-18": 14, "the-tyger": 24, "the-little-crocodile": 8,
		"father-william": 32, "the-raven": 108, "l-infinito": 15, "guanque-tower": 4,
	} {
		p, _ := poetry.Find(name)
		got := 0
		for line := range strings.Lines(p.Text) {
			if strings.TrimSpace(line) != "" {
				got++
			}
		}
		if got != want {
			t.Errorf("%s has %d lines, want %d", name, got, want)
		}
	}
}

func TestFindTakesNameOrTitle(t *testing.T) {
	for name, want := range map[string]string{
		"ozymandias": "ozymandias", "Ozymandias": "ozymandias", "The Raven": "the-raven", "raven": "the-raven",
		"tyger": "the-tyger", "sonnet18": "sonnet-18", "Sonnet 18": "sonnet-18", "L'infinito": "l-infinito",
		"登鹳雀楼": "guanque-tower", "how doth the little crocodile": "the-little-crocodile",
	} {
		if p, ok := poetry.Find(name); !ok || p.Name != want {
			t.Errorf("Find(%q) is %q, %v; want %q", name, p.Name, ok, want)
		}
	}
	for _, name := range []string{"", "the", "-", "rav", "ode", "sonnet", "sonnet 81"} {
		if p, ok := poetry.Find(name); ok {
			t.Errorf("Find(%q) is %q; want none", name, p.Name)
		}
	}
}
