package poetry_test

import (
	"context"
	"fmt"
	"time"

	"couplet"
	"couplet/engines"
	"couplet/poetry"
)

// Two servers and a client on one loop of one engine.
func Example() {
	e, err := engines.Open(engines.Auto, couplet.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer e.Shutdown(context.Background())

	var addrs []poetry.Addr
	for _, name := range []string{"raven", "tyger"} {
		poem, _ := poetry.Find(name)
		server, err := poetry.NewServer([]byte(poem.Text), poetry.Pace{NumBytes: 500, Delay: time.Millisecond})
		if err != nil {
			fmt.Println(err)
			return
		}
		l, err := e.Listen("tcp", "127.0.0.1:0", server)
		if err != nil {
			fmt.Println(err)
			return
		}
		addrs = append(addrs, poetry.AddrOf(l.Addr()))
	}

	report := poetry.FetchAll(context.Background(), e, addrs, poetry.FetchOptions{Timeout: 5 * time.Second})
	for _, r := range report.Results {
		fmt.Println(r.Task, len(r.Poem), r.Err)
	}
	// Output:
	// 1 6679 <nil>
	// 2 779 <nil>
}

func ExampleParseAddr() {
	for _, s := range []string{"10001", "[::1]:10001", "unix:/run/poem", "10001:poem"} {
		a, err := poetry.ParseAddr(s)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(a.Network, a.Address)
	}
	// Output:
	// tcp 127.0.0.1:10001
	// tcp [::1]:10001
	// unix /run/poem
	// address "10001:poem" has port "poem", which is not a number; want PORT, HOST:PORT, [IPV6]:PORT or unix:/PATH
}

func ExamplePace_Duration() {
	p := poetry.Pace{NumBytes: 10, Delay: 100 * time.Millisecond}
	fmt.Println(p.Duration(623))
	// Output: 6.3s
}
