package enginetest_test

import (
	"os"
	"testing"

	"couplet"
	"couplet/classic"
	"couplet/enginetest"
	"couplet/proactor"
	"couplet/reactor"
)

// opens makes an Open of an engine's constructor.
func opens(build func(couplet.Config) (couplet.Engine, error)) enginetest.Open {
	return func(t testing.TB, cfg couplet.Config) couplet.Engine {
		e, err := build(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
}

// TestMixed runs the suite with the server and the client on different
// engines.
func TestMixed(t *testing.T) {
	engines := map[string]func(couplet.Config) (couplet.Engine, error){
		"uring": proactor.New, "epoll": reactor.New, "goroutine": classic.New,
	}
	for i, pair := range [][2]string{
		{"uring", "epoll"}, {"epoll", "goroutine"}, {"goroutine", "uring"},
		{"epoll", "uring"}, {"goroutine", "epoll"}, {"uring", "goroutine"},
	} {
		server, client := pair[0], pair[1]
		name := server + " with " + client
		t.Run(name, func(t *testing.T) {
			if i >= 3 && os.Getenv("COUPLET_FULL") == "" {
				t.Skip("the other direction runs with COUPLET_FULL=1, as .ci/run full does")
			}
			for _, one := range pair {
				e, err := engines[one](couplet.Config{})
				if err != nil {
					t.Skipf("%s: %v", one, err)
				}
				e.Shutdown(t.Context())
			}
			s := enginetest.Suite{
				Name: name, Server: opens(engines[server]), Client: opens(engines[client]),
				Networks: []string{"tcp4"},
			}
			t.Run("cases", func(t *testing.T) { enginetest.Run(t, s) })
			t.Run("model", func(t *testing.T) { enginetest.Model(t, s) })
		})
	}
}
