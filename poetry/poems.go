package poetry

import (
	"embed"
	"strings"
	"unicode"
)

//go:embed poems/*.txt
var files embed.FS

// A Poem is a poem in the public domain.
type Poem struct {
	// Name is what commands call it: lower case, no spaces.
	Name string
	// Title and Author are as printed, in the poem's own language.
	Title, Author string
	// Year is that of its first publication (or of writing, where it was
	// written long before).
	Year int
	// Circa says that Year is known only roughly.
	Circa bool
	// Text is UTF-8; every line ends in \n.
	Text string
}

var poems = load([]Poem{
	{Name: "ozymandias", Title: "Ozymandias", Author: "Percy Bysshe Shelley", Year: 1818},
	{Name: "sonnet-18", Title: "Sonnet 18", Author: "William Shakespeare", Year: 1609},
	{Name: "the-tyger", Title: "The Tyger", Author: "William Blake", Year: 1794},
	{Name: "the-little-crocodile", Title: "How Doth the Little Crocodile", Author: "Lewis Carroll", Year: 1865},
	{Name: "father-william", Title: "Father William", Author: "Lewis Carroll", Year: 1865},
	{Name: "the-raven", Title: "The Raven", Author: "Edgar Allan Poe", Year: 1845},
	{Name: "l-infinito", Title: "L’infinito", Author: "Giacomo Leopardi", Year: 1819},
	{Name: "guanque-tower", Title: "登鹳雀楼", Author: "王之涣", Year: 700, Circa: true},
})

// load adds the texts. The files are part of the program, so one that is
// missing is a mistake that every run of the tests shows.
func load(table []Poem) []Poem {
	for i := range table {
		text, err := files.ReadFile("poems/" + table[i].Name + ".txt")
		if err != nil {
			panic("poetry: " + err.Error())
		}
		table[i].Text = string(text)
	}
	return table
}

// Poems returns the poems that ship, the shortest way to something to serve.
// The slice is the caller's.
func Poems() []Poem { return append([]Poem(nil), poems...) }

// Find returns the poem that is called name. Its Name and its Title both will
// do; case, spaces, punctuation and a leading "the" do not matter, so that
// "raven", "The Raven" and "the-raven" are one.
func Find(name string) (Poem, bool) {
	want := plain(name)
	if want == "" {
		return Poem{}, false
	}
	for _, p := range poems {
		if want == plain(p.Name) || want == plain(p.Title) {
			return p, true
		}
	}
	return Poem{}, false
}

// plain reduces a name to its letters and digits, in lower case.
func plain(name string) string {
	s := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, name)
	return strings.TrimPrefix(s, "the")
}
