package poetry_test

import (
	"strings"
	"testing"

	"couplet/poetry"
)

func TestParseAddr(t *testing.T) {
	long := "unix:" + strings.Repeat("a", 107)
	for in, want := range map[string]string{
		long:                   long,
		"10001":                "127.0.0.1:10001",
		":10001":               "127.0.0.1:10001",
		"localhost:10001":      "localhost:10001",
		"10.1.2.3:1":           "10.1.2.3:1",
		"[::1]:10001":          "[::1]:10001",
		"[fe80::1%eth0]:65535": "[fe80::1%eth0]:65535",
		"010":                  "127.0.0.1:10",
		"unix:/tmp/poem":       "unix:/tmp/poem",
		"unix:poem":            "unix:poem",
		"unix:@abstract":       "unix:@abstract",
	} {
		a, err := poetry.ParseAddr(in)
		if err != nil || a.String() != want {
			t.Errorf("ParseAddr(%q) is %v, %v; want %s", in, a, err, want)
		}
		if again, err := poetry.ParseAddr(a.String()); err != nil || again != a {
			t.Errorf("ParseAddr(%q) is %v, %v; want what it came from", a.String(), again, err)
		}
	}
}

func TestParseAddrNamesWhatIsWrong(t *testing.T) {
	for in, want := range map[string]string{
		"":                                 "empty",
		"host":                             "not a number",
		"host:":                            "no port",
		":":                                "no port",
		"0":                                "from 1 to 65535",
		"65536":                            "from 1 to 65535",
		"host:99999999999999999999999":     "from 1 to 65535",
		"-1":                               "not a number",
		"host:http":                        "not a number",
		"::1:10001":                        "brackets",
		"[::1]":                            "cannot be split",
		"[::1":                             "cannot be split",
		"a b:1":                            "no host name",
		"http://host:80":                   "brackets",
		"host/path:80":                     "no host name",
		"unix:":                            "no path",
		"unix:a\x00b":                      "zero byte",
		"unix:" + strings.Repeat("a", 108): "may have 107",
	} {
		_, err := poetry.ParseAddr(in)
		if err == nil {
			t.Errorf("ParseAddr(%q) took it", in)
			continue
		}
		for _, want := range []string{want, "want PORT, HOST:PORT, [IPV6]:PORT or unix:/PATH"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("ParseAddr(%q) says %q; want %q in it", in, err, want)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q is more than a line", err)
		}
	}
}

func FuzzParseAddr(f *testing.F) {
	f.Add("10001")
	f.Add("[::1]:10001")
	f.Add("unix:/tmp/x")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := poetry.ParseAddr(s)
		if err != nil {
			return
		}
		if again, err := poetry.ParseAddr(a.String()); err != nil || again != a {
			t.Errorf("%q gave %v, whose text gives %v, %v", s, a, again, err)
		}
	})
}
